"""What a run is given: the folder of inputs and the port values, held against the definition before anything starts."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from task_verdict import BrokenContractError, owner_of, read_json_object

PORT_NAME = re.compile(r"(?:^|\s)([A-Za-z_][\w.-]*)=")


class RefusedError(ValueError):
    """The run can't be started as asked; `problems` are all the reasons, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def read_definition(folder: Path) -> dict[str, Any]:
    """The one task definition in a folder.

    Raises:
        RefusedError: none, several, or one that is not a JSON object with a name and a container.
    """
    paths = sorted(folder.glob("*_definition.json"))
    if len(paths) != 1:
        found = ", ".join(path.name for path in paths) or "none"
        raise RefusedError([f"{folder}: expected one file *_definition.json, found {found}"])
    try:
        definition = read_json_object(str(paths[0])) or {}
        definition["name"], definition["containerDescriptors"][0]["type"]
        shlex.split(definition["containerDescriptors"][0].get("command") or "")
        int((definition.get("properties") or {}).get("timeout") or 0)
    except BrokenContractError as error:
        raise RefusedError([f"{folder}/{error}"]) from None
    except ValueError as error:
        raise RefusedError(
            [f"{paths[0]}: expected words as in a shell for command and seconds for timeout ({error})"]
        ) from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RefusedError([f"{paths[0]}: expected a name and a container descriptor; `make lint` says more"]) from None
    return definition


def parse_ports(text: str) -> dict[str, Any]:
    """Port values as a person types them: `message=Hi there n=5`, or a JSON object.

    A value goes on until the next `name=`, so that words need no quotes; a value that itself holds ` name=` needs the
    JSON form.

    Raises:
        RefusedError: text before the first name, one name twice, or broken JSON.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise RefusedError([f"PORTS: expected a JSON object, found {text!r} ({error})"]) from None
    names = list(PORT_NAME.finditer(text))
    if text and (not names or names[0].start() != 0):
        raise RefusedError([f"PORTS: expected port=value, found {text!r}; for example PORTS='message=Hi there'"])
    ends = [match.start() for match in names[1:]] + [len(text)]
    values = {match[1]: text[match.end() : end].strip() for match, end in zip(names, ends)}
    if len(values) < len(names):
        raise RefusedError([f"PORTS: expected each port once, found one twice in {text!r}; JSON takes any value"])
    return values


def declared(definition: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The declared input ports of a kind, `string` or `directory` (whatever is no string is one)."""
    ports = definition.get("inputPortDescriptors") or []
    return [port for port in ports if (port.get("type") == "string") == (kind == "string")]


def string_values(folder: Path | None, asked: dict[str, Any]) -> dict[str, Any]:
    """The values of a folder's ports.json, with those that were asked for on top."""
    if folder is None:
        return asked
    try:
        return {**(read_json_object(str(folder / "ports.json")) or {}), **asked}
    except BrokenContractError as error:
        raise RefusedError([f"{folder}/{error}"]) from None


def string_problems(definition: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What is wrong with the string port values: unknown names, wrong types, required ones missing."""
    ports = declared(definition, "string")
    known = ", ".join(port["name"] for port in ports) or "none"
    problems = [f"string port {n!r}: not declared; there are: {known}" for n in values if not owner_of(n, ports)]
    problems += [
        f"string port {name!r}: expected a string, found {json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
        if not isinstance(value, (str, bool))
    ]
    return problems + [
        f"string port {port['name']!r} is required: expected a value, such as PORTS='{port['name']}=...', found none"
        for port in ports
        if port.get("required") and not any(owner_of(name, ports) is port for name in values)
    ]


def port_folders(folder: Path | None) -> dict[str, Path]:
    """The directory ports that a folder of inputs holds: its subfolders, hidden ones left out."""
    if folder is None:
        return {}
    return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def folder_problems(definition: dict[str, Any], folders: dict[str, Path], folder: Path | None) -> list[str]:
    """What is wrong with the input folders: undeclared ones, required ones missing."""
    ports = declared(definition, "directory")
    known = ", ".join(port["name"] for port in ports) or "none"
    strangers = [name for name in folders if not owner_of(name, ports)]
    problems = [f"{folders[name]}: not a declared input port; there are: {known}" for name in strangers]
    found = ", ".join(folders) or "none"
    return problems + [
        f"directory port {port['name']!r} is required: expected the folder {folder}/{port['name']}, found {found}"
        for port in ports
        if port.get("required") and not any(owner_of(name, ports) is port for name in folders)
    ]


def unreadable(folders: dict[str, Path], limit: int = 10_000) -> list[str]:
    """Files among the first `limit` that not everybody may read: for a run under another uid than the caller's."""
    closed, seen = [], 0
    for folder in folders.values():
        for current, _, names in os.walk(folder):
            for path in (current, *(os.path.join(current, name) for name in names)):
                needed = 0o005 if path == current else 0o004
                if os.path.exists(path) and os.stat(path).st_mode & needed != needed:
                    closed.append(path)
            seen += len(names)
            if seen > limit:
                return closed
    return closed


def prepare(definition: dict[str, Any], folder: Path | None, ports: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """String port values and directory port folders of a run, checked against the definition.

    Raises:
        RefusedError: with all problems at once.
    """
    if folder is not None and not folder.is_dir():
        raise RefusedError([f"INPUT: expected a folder, found none at {folder}"])
    problems: list[str] = []
    values: dict[str, Any] = {}
    folders: dict[str, Path] = {}
    try:
        values = string_values(folder, parse_ports(ports))
        problems += string_problems(definition, values)
    except RefusedError as error:
        problems += error.problems
    try:
        folders = port_folders(folder)
        problems += folder_problems(definition, folders, folder)
    except OSError as error:
        problems.append(f"INPUT: expected a folder that can be read, found {folder} ({error.strerror})")
    if problems:
        raise RefusedError(problems)
    return values, folders
