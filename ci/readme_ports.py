"""The table of ports in a task's README, which says what the definition says.

One table outside of code blocks, with this head; first the inputs, then the outputs, in the definition's order:

    | port | direction | type | required | description |
    | --- | --- | --- | --- | --- |
    | `data_in` | input | directory | yes | The files to list. |

`type` is `directory` or `string`, followed by `, multiplex` for a multiplex port. `required` is `yes` or `no`; an
output that does not say it has `-`. A `|` in a description is written `\\|`, a line break is a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from task_definition import PORT_LISTS, container_properties, ports, quoted
from task_folder import DEFINITION_SUFFIX, Finding, TaskFolder

COLUMNS = ("port", "direction", "type", "required", "description")
README = "README.md"
_URL = re.compile(r"https?://\S+")
_CELL_END = re.compile(r"(?<!\\)\|")

Row = tuple[str, ...]


def port_table(definition: dict[str, Any]) -> str:
    """Return the table of a definition's ports as Markdown, ready to paste into the README."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [(f"`{port}`", *cells) for port, *cells in rows_of(definition)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("|  |", "| |")


def rows_of(definition: dict[str, Any]) -> list[Row]:
    """Return the cells of the table, one row for each port."""
    rows: list[Row] = []
    for direction, port_list in zip(("input", "output"), PORT_LISTS):
        for _, port in ports(definition, port_list):
            kind = str(port.get("type")) + (", multiplex" if port.get("multiplex") is True else "")
            unsaid = "no" if direction == "input" else "-"
            required = ("yes" if port["required"] is True else "no") if "required" in port else unsaid
            description = " ".join(str(port.get("description", "")).split()).replace("|", "\\|")
            rows.append((port["name"], direction, kind, required, description))
    return rows


def check_readme(task: TaskFolder) -> Iterator[Finding]:
    """Compare the README's table, and the ports and definition files that its text names, with the definition."""
    if not (task.path / README).is_file():
        return
    lines = _outside_code(task.text(README).splitlines())
    yield from _check_table(task, lines)
    text = _URL.sub("", task.text(README))
    yield from _check_ports_in_text(task, text)
    yield from _check_files_in_text(task, text)
    if re.search(r"\blogin\b.*\s(-p\b|--password(?!-stdin))", text):
        yield Finding(README, "expected no password on a command line, found a login with one")


def _check_table(task: TaskFolder, lines: list[tuple[int, str]]) -> Iterator[Finding]:
    heads = [place for place, (_, line) in enumerate(lines) if _cells(line) == COLUMNS]
    expected = rows_of(task.definition)
    if len(heads) != 1:
        found = f"{len(heads)} of them" if heads else "none"
        head = f"| {' | '.join(COLUMNS)} |"
        yield Finding(
            README, f"port table: expected one table with the head {quoted(head)}, found {found}{_paste(task)}"
        )
        return
    found_rows = list(_rows_below(lines, heads[0]))
    by_port = {(row[1], row[0]): (line, row) for line, row in found_rows if len(row) == len(COLUMNS)}
    differing = list(_row_differences(expected, by_port))
    known = {(row[1], row[0]) for row in expected}
    for line, row in found_rows:
        if len(row) != len(COLUMNS) or (row[1], row[0]) not in known:
            differing.append(
                Finding(README, f"port table: expected only declared ports, found {quoted(row[0])}", line=line)
            )
    if not differing and [row for _, row in found_rows] != expected:
        differing.append(
            Finding(README, "port table: expected each port once, in the definition's order, found another")
        )
    yield from (Finding(finding.file, finding.message + _paste(task), line=finding.line) for finding in differing)


def _row_differences(expected: list[Row], found: dict[tuple[str, str], tuple[int, Row]]) -> Iterator[Finding]:
    for row in expected:
        where = f"port table, {row[1]} port {quoted(row[0])}"
        if (row[1], row[0]) not in found:
            yield Finding(README, f"{where}: expected a row, found none")
            continue
        line, cells = found[row[1], row[0]]
        for column, want, have in zip(COLUMNS, row, cells):
            if want != have:
                yield Finding(README, f"{where}, {column}: expected {quoted(want)}, found {quoted(have)}", line=line)


def _paste(task: TaskFolder) -> str:
    return f" (paste the output of: python ci/lint_tasks.py --port-table {task.name})"


def _outside_code(lines: list[str]) -> list[tuple[int, str]]:
    """Return (line number, line) of what is in no fenced code block."""
    outside, fence = [], ""
    for number, line in enumerate(lines, start=1):
        mark = line.strip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        elif not fence:
            outside.append((number, line))
    return outside


def _cells(line: str) -> Row:
    line = line.strip()
    if not (line.startswith("|") and line.endswith("|")):
        return ()
    first, *others = (cell.strip() for cell in _CELL_END.split(line[1:-1]))
    return (first.strip("`"), *others)


def _rows_below(lines: list[tuple[int, str]], head: int) -> Iterator[tuple[int, Row]]:
    for number, line in lines[head + 2 :]:
        cells = _cells(line)
        if not cells:
            return
        yield number, cells


def _check_ports_in_text(task: TaskFolder, text: str) -> Iterator[Finding]:
    """Check `task.inputs.message` and `task.outputs.data_out`, as a workflow's Python writes them."""
    for direction, port_list in zip(("inputs", "outputs"), PORT_LISTS):
        declared = [port for _, port in ports(task.definition, port_list)]
        for name in sorted(set(re.findall(rf"\w\.{direction}\.(\w+)", text))):
            multiplex = [port["name"] for port in declared if port.get("multiplex") is True]
            if name not in [port["name"] for port in declared] and not name.startswith(tuple(multiplex)):
                yield Finding(README, f"expected declared ports, found {direction}.{name}")


def _check_files_in_text(task: TaskFolder, text: str) -> Iterator[Finding]:
    """Check that definition files and images that the README names are this folder's."""
    pattern = rf"(?<![\w/.-])(?:[\w-]*def[a-z]*tion\.json|{re.escape(task.name)}[\w-]*\.json)\b"
    for name in sorted(set(re.findall(pattern, text))):
        is_another_task = name.endswith(DEFINITION_SUFFIX) and not name.startswith(task.name)
        if name != task.definition_file and not is_another_task and not (task.path / name).is_file():
            yield Finding(README, f"expected files that are in the folder, found {quoted(name)}")
    image = container_properties(task.definition).get("image")
    for tag in sorted(set(re.findall(rf"(?<![\w-]){re.escape(task.name)}:(\d[\w.-]*\w)", text))):
        if isinstance(image, str) and f"{task.name}:{tag}" not in image:
            yield Finding(README, f"expected the definition's image {quoted(image)}, found {task.name}:{tag}")
