"""Tests of this task alone, in its image: the script runs as the worker would run it, on changed sample inputs.

One container waits, and each run is a process in it. The image is the one built for the processor (DEVICE=cpu).
"""

import csv
import json
import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import build_images
import pytest

pytestmark = pytest.mark.container

FOLDER = Path(__file__).resolve().parent
SCRIPT = "/" + Path(__file__).name[len("test_") :]
CERTAINTY_OF_THE_SUM = """
import numpy as np
certainty = np.load("/runs/sample/output/labels/certainty.npz")["arr_0"]
print(certainty.shape, certainty.dtype, abs(certainty.sum(1) - 1).max() < 1e-5)
print(np.load("/runs/sample/output/labels/y.npz")["arr_0"].tolist())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the container sees as /runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def execute(folder):
    """A function that runs a command in a container of the image: no network, read-only root, the caller's uid."""
    os.environ.setdefault("DEVICE", "cpu")
    assert build_images.main([FOLDER.name]) == 0
    engine = build_images.find_engine()
    hardened = ["--read-only", "--network", "none", "--cap-drop", "ALL", "--tmpfs", "/tmp:exec", "--init"]
    user = ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp", "--volume", f"{folder}:/runs"]
    command = [
        engine,
        "run",
        "--detach",
        "--rm",
        *hardened,
        *user,
        build_images.reference(FOLDER.name),
        "sleep",
        "3600",
    ]
    name = subprocess.check_output(command, text=True).strip()

    def execute_words(*words, **environment):
        settings = [word for pair in environment.items() for word in ("--env", "=".join(pair))]
        command = [engine, "exec", *settings, name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    yield execute_words
    subprocess.run([engine, "rm", "--force", name], capture_output=True, check=True)


def new_work(folder, name):
    """A work folder with the sample inputs."""
    shutil.copytree(FOLDER / "test_inputs", folder / name / "input")
    (folder / name / "output").mkdir()
    return folder / name


@pytest.fixture
def work(folder):
    return new_work(folder, f"run-{len(list(folder.iterdir()))}")


@pytest.fixture
def refused(execute, work):
    """A function that runs the script, sees it fail, and returns the reason; keywords are environment variables."""

    def run(**environment):
        done = execute("python", SCRIPT, GBDX_WORK_DIR=f"/runs/{work.name}", **environment)
        assert done.returncode == 1
        assert "Keras" not in done.stdout
        return json.loads((work / "status.json").read_text())["reason"]

    return run


def put_images(work, shape, dtype="|u1", data=None):
    """Replaces the chips by an array of that shape; its values are zeros, or the bytes that are given."""
    count = 1
    for side in shape:
        count *= side
    header = str({"descr": dtype, "fortran_order": False, "shape": shape})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(work / "input" / "chips" / "X.npz", "w") as archive:
        archive.writestr("arr_0.npy", content + (bytes(count * int(dtype[2:])) if data is None else data))


def put_ports(work, **ports):
    (work / "input" / "ports.json").write_text(json.dumps(ports))


@pytest.fixture(scope="module")
def sample_run(execute, folder):
    """(finished process, rows of labels.csv) of a run on test_inputs/."""
    work = new_work(folder, "sample")
    done = execute("python", SCRIPT, GBDX_WORK_DIR="/runs/sample")
    assert done.returncode == 0, done.stderr
    with (work / "output" / "labels" / "labels.csv").open(newline="") as file:
        return done, list(csv.DictReader(file))


def test_nine_of_ten_sample_chips_get_their_true_label(sample_run):
    _, rows = sample_run
    true_labels = json.loads((FOLDER / "tests" / "true_labels.json").read_text())
    right = [int(row["label"]) == label for row, label in zip(rows, true_labels)]
    assert len(rows) == len(right) == 90
    assert sum(right) >= 81


def test_the_labels_come_with_their_certainty(sample_run):
    _, rows = sample_run
    assert [int(row["index"]) for row in rows] == list(range(90))
    assert all(1 / 3 < float(row["certainty"]) <= 1 for row in rows)


def test_the_arrays_say_the_same_as_the_table(sample_run, execute):
    _, rows = sample_run
    shape, labels = execute("python", "-c", CERTAINTY_OF_THE_SUM).stdout.splitlines()
    assert shape == "(90, 3) float32 True"
    assert json.loads(labels) == [int(row["label"]) for row in rows]


def test_the_run_says_what_it_ran_on_and_what_it_found(sample_run):
    done, _ = sample_run
    first, last = done.stdout.splitlines()
    assert first.startswith("label-chips: runs on the processor: ")
    assert last.startswith("label-chips: 90 images: ")
    assert " of 2, " in last


def test_a_model_without_classes_gives_the_places_as_labels(work, execute):
    (work / "input" / "trained_model" / "classes.json").unlink()
    put_ports(work, bit_depth="8", batch_size="7")
    assert execute("python", SCRIPT, GBDX_WORK_DIR=f"/runs/{work.name}").returncode == 0
    rows = (work / "output" / "labels" / "labels.csv").read_text().splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"0", "1", "2"}


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (5, 4, 9, 8), (5, 8, 8)], ids=["bands", "size", "one band"])
def test_images_that_do_not_fit_the_model_are_refused(work, refused, shape):
    put_images(work, shape)
    found = shape[1:] if len(shape) == 4 else (1, *shape[1:])
    assert refused() == (
        "ValueError: input port 'chips', file X.npz: expected (bands, rows, cols) = (4, 8, 8) "
        f"as the model was trained on, found {found}"
    )


def test_another_bit_depth_than_the_models_is_refused(work, refused):
    put_ports(work, bit_depth="11")
    assert refused() == "ValueError: input port 'bit_depth': expected 8, which the model was trained with, found 11"


def test_values_beyond_the_bit_depth_are_refused(work, refused):
    put_images(work, (2, 4, 8, 8), "<u2", struct.pack("<512H", *range(512)))
    assert "expected values from 0 to 255 (bit_depth 8), found 0 to 511" in refused()


def test_values_that_are_not_finite_are_refused(work, refused):
    put_images(work, (2, 4, 8, 8), "<f4", struct.pack("<512f", *[float("nan")] * 512))
    assert "expected finite values, found 512 NaN, 0 infinite" in refused()


@pytest.mark.parametrize(("port", "value"), [("bit_depth", "eight"), ("bit_depth", "0"), ("batch_size", "-1")])
def test_a_bad_number_is_refused(work, refused, port, value):
    put_ports(work, **{port: value})
    assert refused().startswith(f"ValueError: input port '{port}': expected a whole number from 1 to ")


def test_a_missing_model_file_is_named_with_what_is_there(work, refused):
    (work / "input" / "trained_model" / "model_weights.h5").unlink()
    expected = "input port 'trained_model': expected model_weights.h5, found: classes.json, model_architecture.json"
    assert refused() == f"ValueError: {expected}"


@pytest.mark.parametrize("text", ["{", "[1]", '"{}"'], ids=["broken", "a list", "empty"])
def test_another_architecture_file_is_refused(work, refused, text):
    (work / "input" / "trained_model" / "model_architecture.json").write_text(text)
    assert "input port 'trained_model', file model_architecture.json: expected " in refused()


@pytest.mark.parametrize(
    "text", ["{}", "[1, 2, 3]", '{"classes": 3, "bit_depth": 8}'], ids=["empty", "a list", "a count"]
)
def test_another_classes_file_is_refused(work, refused, text):
    (work / "input" / "trained_model" / "classes.json").write_text(text)
    expected = "expected an object with classes and bit_depth, as train-cnn writes it, found another"
    assert refused() == f"ValueError: input port 'trained_model', file classes.json: {expected}"


def test_classes_of_another_model_are_refused(work, refused):
    (work / "input" / "trained_model" / "classes.json").write_text('{"classes": [1, 2], "bit_depth": 8}')
    assert "expected a class for each output, found 2 for a model with 3 outputs" in refused()


def test_without_classes_the_bit_depth_must_be_said(work, refused):
    (work / "input" / "trained_model" / "classes.json").unlink()
    expected = "expected a value, as the model has no classes.json, found none"
    assert refused() == f"ValueError: input port 'bit_depth': {expected}"


def test_damaged_weights_are_an_error_that_names_the_file(work, execute):
    (work / "input" / "trained_model" / "model_weights.h5").write_bytes(b"no HDF5")
    assert execute("python", SCRIPT, GBDX_WORK_DIR=f"/runs/{work.name}").returncode == 1
    reason = json.loads((work / "status.json").read_text())["reason"]
    assert "input port 'trained_model', file model_weights.h5: expected this model's weights, found: " in reason


def test_a_gpu_is_wanted_unless_the_processor_is_asked_for(refused):
    assert "DEVICE=gpu: expected an NVIDIA card, found no NVIDIA driver" in refused(DEVICE="gpu")


def test_all_problems_are_said_at_once(work, refused):
    put_ports(work, bit_depth="eight", batch_size="0")
    (work / "input" / "trained_model" / "model_weights.h5").unlink()
    put_images(work, (5, 8))
    said = refused().splitlines()
    assert said[0] == "ValueError: 4 problems with the inputs:"
    assert [line.partition(":")[0] for line in said[1:]] == [
        "- input port 'trained_model'",
        "- input port 'bit_depth'",
        "- input port 'batch_size'",
        "- input port 'chips', file X.npz",
    ]


def test_a_chips_folder_without_images_is_said_with_what_is_there(work, refused):
    (work / "input" / "chips" / "X.npz").rename(work / "input" / "chips" / "images.npz")
    assert refused() == "ValueError: input port 'chips', file X.npz: expected this file, found: images.npz"
