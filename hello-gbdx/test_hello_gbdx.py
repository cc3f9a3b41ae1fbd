"""Tests of this task alone: its script runs on a plain folder, as the worker would run it in a container.

Nothing here is spelled twice: the script is the one this file is named after, so that a renamed copy tests the copy.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
SCRIPT = FOLDER / Path(__file__).name[len("test_") :]


@pytest.fixture
def work(tmp_path):
    """A work folder with an empty input port and the output folder, as the worker makes it."""
    (tmp_path / "input" / "data_in").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    return tmp_path


def put_files(work, *names):
    for name in names:
        (work / "input" / "data_in" / name).write_text("not read")


def run(work):
    environment = {**os.environ, "GBDX_WORK_DIR": str(work)}
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def status(work):
    return json.loads((work / "status.json").read_text())


def output_text(work):
    return (work / "output" / "data_out" / "out.txt").read_bytes().decode("utf-8")


def test_the_sample_inputs_give_the_file_name_and_the_message(tmp_path):
    shutil.copytree(FOLDER / "test_inputs", tmp_path / "input")
    (tmp_path / "output").mkdir()
    result = run(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert status(tmp_path) == {"status": "success", "reason": ""}
    assert output_text(tmp_path) == "data_file.txt\nThis is my message!"
    assert sorted(path.name for path in (tmp_path / "output").rglob("*")) == ["data_out", "out.txt"]


def test_names_are_sorted_and_hidden_files_are_left_out(work):
    put_files(work, "b.tif", "a.tif", ".DS_Store", "C.tif")
    assert run(work).returncode == 0
    assert output_text(work) == "C.tif,a.tif,b.tif\nNo message!"


def test_a_folder_in_the_input_is_listed_like_a_file(work):
    (work / "input" / "data_in" / "scene").mkdir()
    assert run(work).returncode == 0
    assert output_text(work) == "scene\nNo message!"


@pytest.mark.parametrize(
    ("value", "line"),
    [("", ""), ("Καλημέρα, κόσμε", "Καλημέρα, κόσμε"), ("two\nlines", "two\nlines"), (True, "True")],
)
def test_the_message_is_written_as_it_is(work, value, line):
    put_files(work, "a.txt")
    (work / "input" / "ports.json").write_text(json.dumps({"message": value}))
    assert run(work).returncode == 0
    assert output_text(work) == f"a.txt\n{line}"


def test_a_second_run_on_the_same_folder_replaces_the_output(work):
    put_files(work, "b.txt")
    assert run(work).returncode == 0
    put_files(work, "a.txt")
    assert run(work).returncode == 0
    assert output_text(work) == "a.txt,b.txt\nNo message!"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses file names that are not UTF-8")
def test_a_name_that_is_not_utf8_keeps_its_bytes(work):
    (work / "input" / "data_in" / os.fsdecode(b"caf\xe9.tif")).touch()
    assert run(work).returncode == 0
    assert (work / "output" / "data_out" / "out.txt").read_bytes() == b"caf\xe9.tif\nNo message!"


@pytest.mark.parametrize(("hidden", "found"), [([], "nothing"), ([".DS_Store"], ".DS_Store")])
def test_an_input_without_visible_files_is_an_error_that_names_the_port(work, hidden, found):
    put_files(work, *hidden)
    result = run(work)
    sentence = f"input port 'data_in': expected a directory with at least one file, found: {found}"
    assert result.returncode == 1
    assert status(work) == {"status": "failed", "reason": f"FileNotFoundError: {sentence}"}
    assert sentence in result.stderr
    assert list((work / "output").iterdir()) == []


def test_a_missing_input_is_an_error_that_names_the_port_and_what_is_there(work):
    (work / "input" / "data_in").rename(work / "input" / "data_old")
    assert run(work).returncode == 1
    expected = f"expected a directory at {work}/input/data_in, found: data_old"
    assert status(work) == {"status": "failed", "reason": f"FileNotFoundError: input port 'data_in': {expected}"}


def test_the_input_is_only_read(work):
    put_files(work, "a.txt")
    folder = work / "input" / "data_in"
    before = (folder / "a.txt").stat()
    assert run(work).returncode == 0
    after = (folder / "a.txt").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
