"""The verdict's parts, one by one, on files made by hand. What real tasks come to is in test_misbehaving_tasks.py."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_verdict import (
    EXIT_CODES,
    BrokenContractError,
    Verdict,
    check_outputs,
    entries_below,
    judge,
    leaves,
    owner_of,
    printable,
    read_json_object,
    read_status,
)


def definition(*ports: dict[str, Any]) -> dict[str, Any]:
    """A definition with these output ports, a directory unless they say otherwise."""
    return {"outputPortDescriptors": [{"type": "directory", **port} for port in ports]}


# --- printable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no clouds found", "no clouds found"),
        ("two\nlines\r\tand  blanks ", "two lines and blanks"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("\u202egpj.elif", "gpj.elif"),
        ("name \udce9t\udce9", "name t"),
        ("déjà vu 雲", "déjà vu 雲"),
        ("", ""),
    ],
)
def test_a_text_becomes_one_line_that_no_terminal_obeys(text: str, line: str) -> None:
    assert printable(text) == line


def test_a_long_text_is_cut_and_says_so() -> None:
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcde…"
    assert len(printable("x" * 10_000)) == 500


@given(st.text(), st.integers(1, 50))
def test_whatever_the_text_the_line_is_short_printable_and_stays_as_it_is(text: str, limit: int) -> None:
    line = printable(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert not any(unicodedata.category(character).startswith("C") for character in line)
    assert printable(line, limit) == line


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_a_word_without_blanks_is_kept_letter_by_letter(word: str) -> None:
    assert printable(word) == word or len(word) > 500


# --- one JSON object -------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_no_object(tmp_path: Path) -> None:
    assert read_json_object(str(tmp_path / "status.json")) is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found something else (Expecting value"),
        (b"{'status': 'success'}", "found something else (Expecting property name"),
        (b"{}{}", "found something else (Extra data"),
        (b'["success"]', "found list"),
        (b"null", "found NoneType"),
        (b"\xff\xfe{\x00}\x00", "found something else ('utf-8' codec can't decode"),
        (b'{"a":' * 100_000, "found something else ("),
        (b" " * (1024 * 1024 + 1), "expected at most 1048576 bytes, found 1048577"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(BrokenContractError, match=r"^status\.json: expected ") as raised:
        read_json_object(str(tmp_path / "status.json"))
    assert found in str(raised.value)


def test_a_pipe_is_not_waited_for_and_a_link_is_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link").symlink_to("real.json")
    with pytest.raises(BrokenContractError, match=r"^pipe: expected a plain file, found a named pipe$"):
        read_json_object(str(tmp_path / "pipe"))
    with pytest.raises(BrokenContractError, match=r"^link: expected a plain file, found a symbolic link$"):
        read_json_object(str(tmp_path / "link"))
    with pytest.raises(BrokenContractError, match=r"^null: expected a plain file, found a device$"):
        read_json_object("/dev/null")


# --- status.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"status": "success"}', ("success", "")),
        ('{"status": "SUCCESS", "reason": "done"}', ("success", "done")),
        ('{"status": "failed", "reason": "no\\nclouds"}', ("failed", "no clouds")),
        (r'{"status": "failed", "reason": "no\ud800 clouds\u0000"}', ("failed", "no clouds")),
        ('{"status": "fail", "reason": null}', ("failed", "")),
        ('{"status": "Failed", "reason": 42}', ("failed", "42")),
        ('{"status": "failed", "status": "success"}', ("success", "")),
    ],
)
def test_the_status_words_of_the_contract_are_read_in_any_case(
    tmp_path: Path, text: str, status: tuple[str, str]
) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(str(tmp_path / "status.json")) == status


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"status": "banana"}', "'banana'"),
        ('{"status": true}', "True"),
        ('{"status": ["success"]}', r"\['success'\]"),
        ('{"status": "success "}', "'success '"),
        ('{"reason": "success"}', "None"),
    ],
)
def test_any_other_status_word_breaks_the_contract(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(
        BrokenContractError, match=f'^status.json: expected the status "success" or "failed", found {found}$'
    ):
        read_status(str(tmp_path / "status.json"))


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_outputs_as_declared_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "image" / "deep").mkdir(parents=True)
    (tmp_path / "image" / "deep" / "file.tif").touch()
    (tmp_path / "image" / "shortcut").symlink_to("deep/file.tif")
    (tmp_path / "ports.json").write_text('{"count": "3"}')
    assert check_outputs(str(tmp_path), definition({"name": "image"}, {"name": "count", "type": "string"})) == ([], [])


def test_every_declared_port_that_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "imge").mkdir()
    (tmp_path / "ports.json").write_text('{"cuont": "3"}')
    ports = definition({"name": "image"}, {"name": "count", "type": "string"}, {"name": "log", "required": False})
    problems, warnings = check_outputs(str(tmp_path), ports)
    assert problems == [
        "output port 'image': expected a directory, found imge, cuont (string)",
        "output port 'count': expected a string, found imge, cuont (string)",
    ]
    assert warnings == [
        "output 'imge' is no declared directory port: a platform would drop it",
        "output 'cuont' is no declared string port: a platform would drop it",
    ]


def test_a_multiplex_port_takes_every_name_that_begins_with_its_own(tmp_path: Path) -> None:
    for name in ("tile1", "tile_two", "til"):
        (tmp_path / name).mkdir()
    problems, warnings = check_outputs(str(tmp_path), definition({"name": "tile", "multiplex": True}))
    assert problems == []
    assert warnings == ["output 'til' is no declared directory port: a platform would drop it"]


def test_an_undeclared_output_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    os.mkfifo(tmp_path / "extra" / "pipe")
    problems, warnings = check_outputs(str(tmp_path), {})
    assert problems == []
    assert len(warnings) == 1


def test_broken_string_outputs_are_a_problem_even_when_none_is_declared(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    problems, _ = check_outputs(str(tmp_path), {})
    assert len(problems) == 1
    assert problems[0].startswith("output/ports.json: expected one JSON object, found something else")


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        (r'{"word": "bad \ud800"}', "'word'", r"'bad \ud800'"),
        (r'{"word": "\ude00\ud83d"}', "'word'", r"'\ude00\ud83d'"),
        (r'{"\udfff": 1}', r"'\udfff'", "1"),
        (r'{"word": ["\ud83d", 1]}', "'word'", r"['\ud83d', 1]"),
    ],
)
def test_half_a_surrogate_pair_in_a_string_output_is_named(tmp_path: Path, text: str, where: str, found: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    problems, _ = check_outputs(str(tmp_path), {})
    assert problems == [f"output/ports.json: {where}: expected text, found half a surrogate pair in {found}"]


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(r'{"word": "\ud83d\ude00 \u0000"}')
    assert check_outputs(str(tmp_path), definition({"name": "word", "type": "string"})) == ([], [])


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: None, "none"),
        (lambda path: path.touch(), "a file"),
        (lambda path: path.symlink_to("/"), "a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
    ],
)
def test_an_output_folder_that_is_none_is_not_looked_into(tmp_path: Path, make: Any, found: str) -> None:
    make(tmp_path / "output")
    problems = [f"output: expected a folder, found {found}"]
    assert check_outputs(str(tmp_path / "output"), definition({"name": "image"})) == (problems, [])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("data", "data"), ("data1", "data*"), ("data_mask", "data_mask"), ("data_mask1", "data_mask*"), ("other", None)],
)
def test_a_name_belongs_to_its_own_port_or_to_the_longest_prefix(name: str, kind: str | None) -> None:
    ports = [
        *({"name": "data"}, {"name": "data_mask"}),
        *({"name": "data", "multiplex": True}, {"name": "data_mask", "multiplex": True}),
    ]
    found = owner_of(name, ports)
    assert (found and found["name"] + ("*" if found.get("multiplex") else "")) == kind


# --- links and closed folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("file.txt", False),
        ("deep/../file.txt", False),
        ("nowhere", False),
        ("loop", False),
        (".", False),
        ("..", True),
        ("../port-2/file.txt", True),
        ("../port/file.txt", False),
        ("deep/../../outside", True),
        ("deep/top/../outside", True),
        ("away/file.txt", True),
        ("/etc/passwd", True),
    ],
)
def test_a_link_leaves_its_folder_when_any_step_of_it_does(tmp_path: Path, target: str, out: bool) -> None:
    port = tmp_path / "port"
    (port / "deep").mkdir(parents=True)
    (port / "deep" / "top").symlink_to("..")
    (port / "away").symlink_to("../..")
    (port / "loop").symlink_to("loop")
    (port / "link").symlink_to(target)
    assert leaves(str(port), str(port / "link")) is out


def test_a_link_that_stays_inside_does_so_where_the_folder_itself_is_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "port").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "real" / "port" / "link").symlink_to("file.txt")
    port = tmp_path / "alias" / "port"
    assert leaves(str(port), str(port / "link")) is False


def test_a_closed_folder_is_opened_for_its_owner_and_linked_ones_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside" / "secret").mkdir(parents=True)
    (tmp_path / "port" / "closed").mkdir(parents=True)
    (tmp_path / "port" / "closed" / "file.txt").touch()
    (tmp_path / "port" / "link").symlink_to("../outside")
    (tmp_path / "port" / "closed").chmod(0)
    assert sorted(entry.name for entry in entries_below(str(tmp_path / "port"))) == ["closed", "file.txt", "link"]
    assert (tmp_path / "port" / "closed").stat().st_mode & 0o777 == 0o700


# --- the three together ----------------------------------------------------------------------------------------------

PROBLEM = "output port 'image': expected a directory, found nothing"


@pytest.mark.parametrize(
    ("exit_code", "status", "problems", "verdict"),
    [
        (0, '{"status": "success", "reason": "3 tiles"}', [], Verdict("success", "3 tiles")),
        (0, '{"status": "success"}', [PROBLEM, PROBLEM], Verdict("broken contract", f"{PROBLEM}; {PROBLEM}")),
        (1, '{"status": "success"}', [], Verdict("failed", "status.json says success, but the exit code is 1")),
        (1, '{"status": "success"}', [PROBLEM], Verdict("failed", "status.json says success, but the exit code is 1")),
        (0, '{"status": "failed"}', [PROBLEM], Verdict("failed", "the task gave no reason")),
        (7, '{"status": "failed", "reason": "no clouds"}', [], Verdict("failed", "no clouds")),
        (0, None, [], Verdict("broken contract", "status.json: expected the task to write it, found none")),
        (
            137,
            None,
            [],
            Verdict("failed", "exit code 137, and status.json: expected the task to write it, found none"),
        ),
    ],
)
def test_a_run_is_a_success_only_when_exit_code_status_and_outputs_all_say_so(
    tmp_path: Path, exit_code: int, status: str | None, problems: list[str], verdict: Verdict
) -> None:
    if status:
        (tmp_path / "status.json").write_text(status)
    assert judge(exit_code, str(tmp_path / "status.json"), problems) == verdict


def test_ten_thousand_problems_make_one_line_of_bounded_length(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"status": "success"}')
    reason = judge(0, str(tmp_path / "status.json"), ["a pipe\n" * 10] * 10_000).reason
    assert reason.startswith("a pipe a pipe ")
    assert len(reason) == 2000
    assert reason.isprintable()


def test_each_verdict_has_an_exit_code_of_its_own() -> None:
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert Verdict("timedout").exit_code == 124
    assert [state for state, code in EXIT_CODES.items() if code == 0] == ["success"]
