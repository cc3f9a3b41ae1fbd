"""Compare the ports that a task's scripts use, and what the descriptions promise, with the definition."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from typing import Any

from script_ports import ANY_END, METHODS, PortCall, port_calls
from task_definition import PORT_LISTS, ports, quoted
from task_folder import Finding, TaskFolder

DIRECTIONS = {"input": PORT_LISTS[0], "output": PORT_LISTS[1]}
_DEFAULT_WORDS = re.compile(
    r"(?:\bdefaults?(?: is| to|:)?|\bwhen (?:not given|absent),?)\s+(?:'([^']*)'|\"([^\"]*)\"|(-?\d[\w.+-]*))", re.I
)
_WHOLE_NUMBER = re.compile(r"\s*int(eger)?s?\b", re.I)
_FILE_NAME = re.compile(r"(?<![\w./*<>-])[A-Za-z][\w-]*(?:\.[A-Za-z0-9]{1,8})*\.[A-Za-z][A-Za-z0-9]{1,7}\b")
_FRACTION = re.compile(r"-?\d*\.\d+")

Port = dict[str, Any]


def check_ports(task: TaskFolder) -> Iterator[Finding]:
    """Report undeclared and unused ports, wrong types and directions, and descriptions that the script contradicts."""
    if not task.scripts:
        return
    calls = port_calls(task.scripts)
    for call in calls:
        yield from _check_call(task, call)
    for direction, port_list in DIRECTIONS.items():
        for key, port in ports(task.definition, port_list):
            if not _is_used(direction, port, calls):
                expected = "a port that the script " + ("reads" if direction == "input" else "writes")
                yield _about(task, f"{key}.name", expected, f"{quoted(port['name'])} and no call that names it")
    yield from _check_described_defaults(task, calls)
    yield from _check_described_files(task)


def _about(task: TaskFolder, key: str, expected: str, found: str) -> Finding:
    return Finding(task.definition_file, f"{key}: expected {expected}, found {found}")


def _check_call(task: TaskFolder, call: PortCall) -> Iterator[Finding]:
    method = METHODS[call.method]
    if call.name is None:
        message = f"{call.method}: expected a port name that can be read from the script, found one that cannot"
        yield Finding(call.file, f"{message}: not checked", "warning", call.line)
        return
    declared = dict(ports(task.definition, DIRECTIONS[method.direction])).values()
    port = next((port for port in declared if _names_port(call.name, port)), None)
    wanted = f"a declared {'multiplex ' if method.multiplex else ''}{method.type} {method.direction} port"
    found = _what_is_wrong(task, call, port)
    if found:
        yield Finding(
            call.file, f"{call.method}({quoted(call.name)}): expected {wanted}, found {found}", line=call.line
        )


def _what_is_wrong(task: TaskFolder, call: PortCall, port: Port | None) -> str | None:
    method = METHODS[call.method]
    if port is None:
        return _whereabouts(task, call.name or "")
    if port.get("type") != method.type and not (port.get("type") == "image" and method.type == "directory"):
        return f"a {port.get('type')} port"
    if method.multiplex and port.get("multiplex") is not True:
        return "a port without multiplex"
    is_whole_prefix = port.get("multiplex") is True and call.name == port["name"]
    if is_whole_prefix and not method.multiplex and method.direction == "input":
        return "a multiplex port, whose name is only a prefix"
    return None


def _whereabouts(task: TaskFolder, name: str) -> str:
    """Say where an undeclared name is declared after all, or which declared name is like it."""
    declared = {
        port["name"]: direction for direction in DIRECTIONS for _, port in ports(task.definition, DIRECTIONS[direction])
    }
    if name in declared:
        return f"an {declared[name]} port"
    close = difflib.get_close_matches(name, declared, n=1)
    return "no such port" + (f" (did you mean {quoted(close[0])}?)" if close else "")


def _names_port(name: str, port: Port) -> bool:
    """Say whether a name in a script, perhaps only its beginning, names a port; a multiplex port's name is a prefix."""
    beginning = name[: -len(ANY_END)] if name.endswith(ANY_END) else None
    if port.get("multiplex") is True:
        return (name if beginning is None else beginning).startswith(port["name"])
    return bool(name == port["name"] or (beginning is not None and port["name"].startswith(beginning)))


def _is_used(direction: str, port: Port, calls: list[PortCall]) -> bool:
    """Say whether a call names the port; a call whose name is not known may name any port of its direction."""
    return any(
        METHODS[call.method].direction == direction and (call.name is None or _names_port(call.name, port))
        for call in calls
    )


def _check_described_defaults(task: TaskFolder, calls: list[PortCall]) -> Iterator[Finding]:
    """Compare `Defaults to 0.01.` in a description with the literal default in the script."""
    for key, port in ports(task.definition, "inputPortDescriptors"):
        text = port.get("description")
        if not isinstance(text, str):
            continue
        in_text = _described_default(text)
        in_code = [call.default for call in calls if call.name == port["name"] and call.default is not None]
        for default in in_code:
            if in_text is not None and not _is_same(in_text, str(default)):
                expected = f"the script's default {quoted(default)}"
                yield _about(task, f"{key}.description", expected, f"the default {quoted(in_text)}")
        for default in [in_text, *in_code]:
            if _WHOLE_NUMBER.match(text) and default is not None and _FRACTION.fullmatch(str(default)):
                yield _about(task, f"{key}.description", f"a word for {quoted(default)}", '"Int"')


def _described_default(text: str) -> str | None:
    match = _DEFAULT_WORDS.search(text)
    if match is None:
        return None
    single, double, number = match.groups()
    return str(number).rstrip(".") if number else single or double


def _is_same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _check_described_files(task: TaskFolder) -> Iterator[Finding]:
    """Report file names that an output's description promises and no string of the scripts, docstrings apart, has."""
    whole, ends = _strings(task.scripts)
    for key, port in ports(task.definition, "outputPortDescriptors"):
        text = port.get("description")
        for name in _FILE_NAME.findall(text if isinstance(text, str) else ""):
            if not any(name in string for string in whole) and not name.endswith(tuple(ends)):
                yield _about(task, f"{key}.description", "names of files that the script writes", quoted(name))


def _strings(scripts: dict[str, ast.Module]) -> tuple[list[str], list[str]]:
    """Return the scripts' strings, and those that end an f-string, such as `_metrics.json`."""
    whole, ends = [], []
    for tree in scripts.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and node.values:
                last = node.values[-1]
                if isinstance(last, ast.Constant) and "." in str(last.value):
                    ends.append(str(last.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.append(node.value)
        whole = [string for string in whole if string not in _docstrings(tree)]
    return whole, ends


def _docstrings(tree: ast.Module) -> set[str]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, owners)}
    return {text for text in found if text is not None}
