"""Check task folders: the definition, and that script, README, sample inputs and Dockerfile say what it says.

    python ci/lint_tasks.py                              every task folder of the repository
    python ci/lint_tasks.py hello-gbdx other/folder      these folders
    python ci/lint_tasks.py some/definition.json         a definition alone, without the folder around it
    python ci/lint_tasks.py --port-table hello-gbdx      print the table of ports for the README

Each finding is one line, `<file>: error: <key>: expected <this>, found <that>`. The exit code is 0 without errors
(there may be warnings), 1 with errors, 2 when a path is no folder and no file.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from build_context import DOCKERFILE, IGNORE_FILE, check_context
from port_checks import check_ports
from readme_ports import README, check_readme, port_table
from sample_inputs import check_sample_inputs
from script_habits import check_habits
from sync_copies import INTERFACE_MASTER
from task_definition import (
    DefinitionError,
    container,
    container_properties,
    generation,
    load_definition,
    problems,
    quoted,
    split_image,
)
from task_folder import DEFINITION_SUFFIX, INTERFACE, Finding, TaskFolder, parse_scripts

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def task_folders(root: Path) -> list[Path]:
    """Return the top-level folders that hold a definition, or the interface, which only a task needs."""
    marks = [path for pattern in (f"*/*{DEFINITION_SUFFIX}", f"*/{INTERFACE}") for path in root.glob(pattern)]
    return sorted({path.parent for path in marks if not path.parent.name.startswith(".")})


def lint_folder(path: Path, root: Path) -> tuple[str, list[Finding]]:
    """Return which generation a folder's definition is, as text, and all findings of the folder."""
    task = TaskFolder(path)
    findings = [*_check_folder_name(task), *_find_definition(task)]
    if task.definition_file:
        findings += _load(task)
    findings += [*_check_files(task), *parse_scripts(task), *_check_interface_copy(task, root)]
    if not task.definition:
        return "", findings
    findings += [*_check_names(task), *_check_class(task)]
    script, command_findings = _script_of_command(task)
    findings += command_findings
    for check in (check_ports, check_habits, check_sample_inputs, check_readme):
        findings += check(task)
    return _kind(task), [*findings, *check_context(task, script)]


def lint_definition(path: Path) -> tuple[str, list[Finding]]:
    """Return which generation a definition file is, as text, and all findings of the file alone."""
    task = TaskFolder(path.parent, definition_file=path.name)
    findings = _load(task)
    return (_kind(task) if task.definition else ""), findings


def _kind(task: TaskFolder) -> str:
    return f"{task.definition_file}: generation {generation(task.definition)}"


def _load(task: TaskFolder) -> list[Finding]:
    try:
        task.definition = load_definition(task.path / task.definition_file)
    except DefinitionError as error:
        return [Finding(task.definition_file, str(error))]
    found = problems(task.definition)
    return [Finding(task.definition_file, str(problem), problem.severity) for problem in found]


def _check_folder_name(task: TaskFolder) -> Iterator[Finding]:
    if not FOLDER_NAME.fullmatch(task.name):
        expected = "expected a folder name of small letters, digits and single dashes, such as my-task"
        yield Finding("", f"{expected}, found {quoted(task.name)}")


def _find_definition(task: TaskFolder) -> Iterator[Finding]:
    """Set `task.definition_file` and report a definition that is missing, named otherwise, or there twice."""
    expected = f"{task.name}{DEFINITION_SUFFIX}"
    candidates = sorted(path.name for path in task.path.glob("*.json") if re.search("def[a-z]*tion", path.name))
    if expected in candidates:
        task.definition_file = expected
    elif candidates:
        task.definition_file = candidates[0]
    for name in candidates or ["none"]:
        if name != expected:
            yield Finding("", f"expected one definition named {quoted(expected)}, found {name}")


def _check_files(task: TaskFolder) -> Iterator[Finding]:
    for name in (task.script, f"test_{task.script}", INTERFACE, DOCKERFILE, IGNORE_FILE, README):
        if not (task.path / name).is_file():
            yield Finding(name, "expected this file in the folder, found none")


def _check_interface_copy(task: TaskFolder, root: Path) -> Iterator[Finding]:
    master, copy = root / INTERFACE_MASTER, task.path / INTERFACE
    if master.is_file() and copy.is_file() and copy.read_bytes() != master.read_bytes():
        yield Finding(copy.name, f"expected a copy of {INTERFACE_MASTER}, found a difference (make sync copies it)")


def _check_names(task: TaskFolder) -> Iterator[Finding]:
    """Compare the folder's name with the task's and the image's, the version with the image's tag."""
    name, version = task.definition.get("name"), task.definition.get("version")
    if isinstance(name, str) and name != task.name:
        message = f"name: expected the folder's name {quoted(task.name)}, found {quoted(name)}"
        yield Finding(task.definition_file, message)
    image = container_properties(task.definition).get("image")
    if not isinstance(image, str):
        return
    path, tag, _ = split_image(image)
    key = "containerDescriptors[0].properties.image"
    if path.rpartition("/")[2] != task.name:
        yield Finding(
            task.definition_file, f"{key}: expected an image named {quoted(task.name)}, found {quoted(image)}"
        )
    if tag and isinstance(version, str) and tag != version:
        yield Finding(
            task.definition_file, f"{key}: expected the version {quoted(version)} as tag, found {quoted(image)}"
        )


def _check_class(task: TaskFolder) -> Iterator[Finding]:
    """Expect a class of the script that derives from GbdxTaskInterface and is named after the folder."""
    tree = task.scripts.get(task.script)
    if tree is None:
        return
    classes = _task_classes(tree)
    expected = f"{task.camel} or {task.camel}Task"
    if not set(classes) & {task.camel, f"{task.camel}Task"}:
        found = ", ".join(classes) or "no such class"
        yield Finding(task.script, f"expected a class {expected} that derives from GbdxTaskInterface, found {found}")


def _task_classes(tree: ast.Module) -> list[str]:
    """Return the classes that derive from GbdxTaskInterface, directly or through another class of the script."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
            if "GbdxTaskInterface" in bases or set(bases) & set(found):
                found.append(node.name)
    return found


def _script_of_command(task: TaskFolder) -> tuple[str | None, list[Finding]]:
    """Return the script that the container's command runs, and a finding when it runs none of the folder."""
    key, command = "containerDescriptors[0].command", container(task.definition).get("command")
    if not isinstance(command, str) or not command.strip():
        return (task.script if task.script in task.scripts else None), []  # the image's own command
    try:
        words = shlex.split(command)
    except ValueError as error:
        message = f"{key}: expected a command line, found {quoted(command)}: {str(error).lower()}"
        return None, [Finding(task.definition_file, message)]
    named = [word.removeprefix("/").removeprefix("./") for word in words]
    script = next((name for name in named if name and (task.path / name).is_file()), None)
    if script:
        return script, []
    message = (
        f"{key}: expected a script of the folder, such as {quoted(f'python /{task.script}')}, found {quoted(command)}"
    )
    return None, [Finding(task.definition_file, message)]


def _print(path: Path, kind: str, findings: list[Finding], root: Path) -> None:
    folder = path if path.is_dir() else path.parent
    absolute = folder.resolve()
    shown = absolute.relative_to(root) if absolute.is_relative_to(root) else folder
    if kind:
        print(shown / kind)
    for finding in findings:
        place = str(shown / finding.file) + (f":{finding.line}" if finding.line else "")
        print(f"{place}: {finding.severity}: {finding.message}")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _lint(paths: list[Path], root: Path) -> int:
    severities: list[str] = []
    for path in paths:
        kind, findings = lint_folder(path, root) if path.is_dir() else lint_definition(path)
        _print(path, kind, findings, root)
        severities += [finding.severity for finding in findings]
    errors, warnings = severities.count("error"), severities.count("warning")
    checked = _counted(len(paths), "definition")
    print(f"{checked} checked: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}")
    return 1 if errors else 0


def _print_port_table(path: Path) -> int:
    definitions = sorted(path.glob(f"*{DEFINITION_SUFFIX}")) if path.is_dir() else [path]
    if len(definitions) != 1:
        print(f"lint: expected one definition in {path}, found {len(definitions)}", file=sys.stderr)
        return 2
    try:
        print(port_table(load_definition(definitions[0])), end="")
    except DefinitionError as error:
        print(f"lint: {definitions[0]}: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the linter; return the exit code."""
    parser = argparse.ArgumentParser(description="Check task definitions and the folders around them.")
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="FOLDER_OR_DEFINITION", help="default: every task folder"
    )
    parser.add_argument("--port-table", type=Path, metavar="FOLDER", help="print the README's table of ports")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still gets every line
    root = options.root.resolve()
    missing = [str(path) for path in [*options.paths, options.port_table] if path and not path.exists()]
    if missing:
        parser.error(f"expected a task folder or a definition, found nothing at {', '.join(missing)}")
    if options.port_table:
        return _print_port_table(options.port_table)
    paths = options.paths or task_folders(root)
    if not paths:
        parser.error(f"expected a folder with a *{DEFINITION_SUFFIX} in {root}, found none")
    return _lint(paths, root)


if __name__ == "__main__":
    sys.exit(main())
