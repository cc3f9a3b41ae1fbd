"""Check a task's test_inputs/: what a run would get as /mnt/work/input, against the definition's input ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from task_definition import DefinitionError, load_definition, ports, quoted
from task_folder import Finding, TaskFolder, is_visible

FOLDER = "test_inputs"
PORTS_FILE = f"{FOLDER}/ports.json"

Port = dict[str, Any]


def check_sample_inputs(task: TaskFolder) -> Iterator[Finding]:
    """Report sample values and folders that are not declared, and required ports without a sample."""
    declared = [port for _, port in ports(task.definition, "inputPortDescriptors")]
    yield from _check_strings(task, [port for port in declared if port.get("type") == "string"])
    yield from _check_folders(task, [port for port in declared if port.get("type") in ("directory", "image")])


def _belongs(name: str, port: Port) -> bool:
    """Say whether an input's name is the port's; a multiplex port's name is the beginning of a longer one."""
    prefix = str(port["name"])
    return name.startswith(prefix) and name != prefix if port.get("multiplex") is True else name == prefix


def _check_strings(task: TaskFolder, declared: list[Port]) -> Iterator[Finding]:
    path = task.path / PORTS_FILE
    required = [port for port in declared if port.get("required") is True]
    try:
        values = load_definition(path) if path.exists() or required else {}
    except DefinitionError as error:
        yield Finding(PORTS_FILE, str(error))
        return
    for name, value in values.items():
        if not any(_belongs(name, port) for port in declared):
            names = ", ".join(port["name"] for port in declared) or "none"
            yield Finding(PORTS_FILE, f"{name}: expected a declared string input port ({names}), found {quoted(name)}")
        elif not isinstance(value, (str, bool)):
            yield Finding(PORTS_FILE, f"{name}: expected a string or a boolean, found {quoted(value)}")
    for port in required:
        if not any(_belongs(name, port) for name in values):
            yield Finding(PORTS_FILE, f"{port['name']}: expected a value for the required port, found none")


def _check_folders(task: TaskFolder, declared: list[Port]) -> Iterator[Finding]:
    root = task.path / FOLDER
    folders = sorted(path for path in root.glob("*") if path.is_dir() and is_visible(path))
    for folder in folders:
        if not any(_belongs(folder.name, port) for port in declared):
            names = ", ".join(port["name"] for port in declared) or "none"
            expected = f"expected folders of declared directory input ports ({names})"
            yield Finding(f"{FOLDER}/{folder.name}", f"{expected}, found {quoted(folder.name)}")
    for port in declared:
        samples = [folder for folder in folders if _belongs(folder.name, port)]
        if port.get("required") is True and not any(_holds_a_file(folder) for folder in samples):
            shown = f"{port['name']}*" if port.get("multiplex") is True else port["name"]
            found = "an empty folder" if samples else "none"
            yield Finding(f"{FOLDER}/{shown}", f"expected a folder with files for the required port, found {found}")


def _holds_a_file(folder: Path) -> bool:
    return any(path.is_file() and is_visible(path) for path in folder.rglob("*"))
