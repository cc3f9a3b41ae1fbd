"""What a run is given: port values as people type them, and the folder of inputs, against the definition."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_inputs import RefusedError, parse_ports, port_folders, prepare, read_definition, unreadable


def definition(*ports: dict[str, Any]) -> dict[str, Any]:
    """A definition with these input ports."""
    return {"inputPortDescriptors": list(ports)}


IMAGE = {"name": "image", "type": "directory", "required": True}
MASK = {"name": "mask", "type": "directory"}
TILES = {"name": "tile", "type": "directory", "multiplex": True, "required": True}
MESSAGE = {"name": "message", "type": "string", "required": True}
COUNT = {"name": "count", "type": "string"}


def problems_of(call: Any, *arguments: Any) -> list[str]:
    """The problems that a call is refused for."""
    with pytest.raises(RefusedError) as raised:
        call(*arguments)
    return raised.value.problems


# --- PORTS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("  \n ", {}),
        ("message=Hi", {"message": "Hi"}),
        ("message=Hi there", {"message": "Hi there"}),
        ("message=Hi there count=5", {"message": "Hi there", "count": "5"}),
        ("message= Hi  there \n count=5 ", {"message": "Hi  there", "count": "5"}),
        ("message=", {"message": ""}),
        ("message= count=", {"message": "", "count": ""}),
        ("message=a=b c-d=e", {"message": "a=b", "c-d": "e"}),
        ("message=5 = five", {"message": "5 = five"}),
        ("message='quoted' \"twice\"", {"message": "'quoted' \"twice\""}),
        ("a.b=1 _c=2", {"a.b": "1", "_c": "2"}),
        ('{"message": "a count=5", "flag": true}', {"message": "a count=5", "flag": True}),
        (" {} ", {}),
    ],
)
def test_port_values_are_read_as_they_are_typed(text: str, values: dict[str, Any]) -> None:
    assert parse_ports(text) == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Hi there", "PORTS: expected port=value, found 'Hi there'; for example PORTS='message=Hi there'"),
        ("Hi message=there", "PORTS: expected port=value, found 'Hi message=there'"),
        ("=Hi", "PORTS: expected port=value, found '=Hi'"),
        ("1=Hi", "PORTS: expected port=value, found '1=Hi'"),
        ("a=1 a=2", "PORTS: expected each port once, found one twice in 'a=1 a=2'; JSON takes any value"),
        ('{"a": 1', "PORTS: expected a JSON object, found '{\"a\": 1' (Expecting"),
        ('{"a": "1"} b=2', 'PORTS: expected a JSON object, found \'{"a": "1"} b=2\' (Extra data'),
    ],
)
def test_port_values_that_can_not_be_read_are_quoted(text: str, problem: str) -> None:
    (found,) = problems_of(parse_ports, text)
    assert found.startswith(problem)


port_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]*", fullmatch=True)
# Without blanks at its ends, and nothing in it that looks like the next port.
plain_values = st.text().map(str.strip).filter(lambda value: not re.search(r"\s[A-Za-z_][\w.-]*=", " " + value))


@given(st.dictionaries(port_names, plain_values))
def test_values_that_do_not_look_like_ports_survive_being_typed(values: dict[str, str]) -> None:
    typed = " ".join(f"{name}={value}" for name, value in values.items())
    assert parse_ports(typed) == values


@given(st.dictionaries(st.text(), st.text() | st.booleans()))
def test_any_values_survive_as_json(values: dict[str, Any]) -> None:
    assert parse_ports(json.dumps(values)) == values
    assert parse_ports(json.dumps(values, ensure_ascii=False, indent=2)) == values


# --- the definition --------------------------------------------------------------------------------------------------


def test_a_folder_has_exactly_one_definition(tmp_path: Path) -> None:
    assert problems_of(read_definition, tmp_path) == [f"{tmp_path}: expected one file *_definition.json, found none"]
    for name in ("a", "b"):
        (tmp_path / f"{name}_definition.json").write_text("{}")
    found = "a_definition.json, b_definition.json"
    assert problems_of(read_definition, tmp_path) == [f"{tmp_path}: expected one file *_definition.json, found {found}"]


def test_a_definition_is_read(tmp_path: Path) -> None:
    written = {"name": "a", "containerDescriptors": [{"type": "DOCKER", "command": "python /a.py"}]}
    (tmp_path / "a_definition.json").write_text(json.dumps(written))
    assert read_definition(tmp_path) == written


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "a_definition.json: expected one JSON object, found something else"),
        ("[]", "a_definition.json: expected one JSON object, found list"),
        ("{}", "expected a name and a container descriptor"),
        ('{"name": "a", "containerDescriptors": {}}', "expected a name and a container descriptor"),
        ('{"name": "a", "containerDescriptors": ["DOCKER"]}', "expected a name and a container descriptor"),
    ],
)
def test_a_definition_without_a_name_or_a_container_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a_definition.json").write_text(text)
    (found,) = problems_of(read_definition, tmp_path)
    assert found.startswith(str(tmp_path))
    assert problem in found


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_as_declared_are_taken(tmp_path: Path) -> None:
    for name in ("image", "tile1", "tile2", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "stray.txt").touch()
    (tmp_path / "ports.json").write_text('{"message": "Hi", "count": "1"}')
    values, folders = prepare(definition(IMAGE, MASK, TILES, MESSAGE, COUNT), tmp_path, "count=2")
    assert values == {"message": "Hi", "count": "2"}
    assert folders == {name: tmp_path / name for name in ("image", "tile1", "tile2")}


def test_a_port_may_be_a_link_to_a_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "image").symlink_to("../archive")
    (tmp_path / "inputs" / "broken").symlink_to("nowhere")
    assert port_folders(tmp_path / "inputs") == {"image": tmp_path / "inputs" / "image"}


def test_a_task_without_inputs_needs_no_folder() -> None:
    assert prepare({}, None, "") == ({}, {})
    assert prepare(definition(MESSAGE), None, "message=Hi") == ({"message": "Hi"}, {})


def test_everything_wrong_with_the_inputs_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "imge").mkdir()
    (tmp_path / "ports.json").write_text('{"cuont": "1", "count": 1.5}')
    assert problems_of(prepare, definition(IMAGE, TILES, MESSAGE, COUNT), tmp_path, "") == [
        "string port 'cuont': not declared; there are: message, count",
        "string port 'count': expected a string, found 1.5",
        "string port 'message' is required: expected a value, such as PORTS='message=...', found none",
        f"{tmp_path}/imge: not a declared input port; there are: image, tile",
        f"directory port 'image' is required: expected the folder {tmp_path}/image, found imge",
        f"directory port 'tile' is required: expected the folder {tmp_path}/tile, found imge",
    ]


def test_a_broken_ports_json_does_not_hide_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    first, second = problems_of(prepare, definition(IMAGE), tmp_path, "")
    assert first.startswith(f"{tmp_path}/ports.json: expected one JSON object, found something else")
    assert second.startswith("directory port 'image' is required")


def test_a_directory_port_is_no_string_port_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    assert problems_of(prepare, definition(MASK, COUNT), tmp_path, "mask=here") == [
        "string port 'mask': not declared; there are: count",
        f"{tmp_path}/count: not a declared input port; there are: mask",
    ]


def test_files_that_not_everybody_may_read_are_found(tmp_path: Path) -> None:
    (tmp_path / "image" / "closed").mkdir(parents=True)
    for name, mode in (("open.tif", 0o644), ("private.tif", 0o600), ("group.tif", 0o640)):
        (tmp_path / "image" / name).touch()
        (tmp_path / "image" / name).chmod(mode)
    (tmp_path / "image" / "closed").chmod(0o750)
    (tmp_path / "image").chmod(0o755)
    (tmp_path / "image" / "broken").symlink_to("nowhere")
    found = {os.path.relpath(path, tmp_path) for path in unreadable({"image": tmp_path / "image"})}
    assert found == {"image/private.tif", "image/group.tif", "image/closed"}
