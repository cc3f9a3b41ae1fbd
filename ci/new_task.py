#!/usr/bin/env python3
"""Start a task from another one: copy its folder and rename what carries its name.

    NAME=my-task FROM=hello-gbdx python3 ci/new_task.py
    python3 ci/new_task.py my-task --from hello-gbdx

Only files that git tracks or would track are copied. In file names and text files the name is replaced in each of its
forms: hello-gbdx, hello_gbdx, HELLO_GBDX, HelloGbdx, HelloGbdxTask, "Hello GBDX". What stays: gbdx_task_interface.py,
binary files, links, paths that lead out of the folder (../hello-gbdx), and the mention of where a task comes from
(FROM=hello-gbdx, "copied from hello-gbdx", a line about the walkthrough). The fork begins at version 0.1.0 and belongs
to git's user.email. The folder appears whole or not at all. Python's standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import keyword
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

REPOSITORY = Path(__file__).resolve().parent.parent
DEFINITION_SUFFIX = "_definition.json"
INTERFACE = "gbdx_task_interface.py"
FIRST_VERSION = "0.1.0"
NAME_FORM = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAIL_FORM = re.compile(r"[^@\s\"\\<>]+@[^@\s\"\\<>]+\.[^@\s\"\\<>]+")
RESERVED = {
    *(
        "base-images",
        "build",
        "ci",
        "conftest",
        "dist",
        "docs",
        "env",
        "gbdx-platform",
        "gbdx-task-interface",
        "node-modules",
    ),
    *("output", "outputs", "runs", "scratch", "setup", "shared", "test", "test-inputs", "tests", "venv"),
}
JUNK = {"__pycache__", "build", "dist", "node_modules", "output", "outputs", "runs", "venv"}
JUNK_ENDINGS = (".pyc", ".pyo", ".tmp", ".swp", "~")
KEPT_DOT_FILES = {".dockerignore", ".gitignore", ".gitattributes", ".gitkeep", ".hadolint.yaml"}

Rename = Callable[[str], str]


def tasks(root: Path) -> list[str]:
    """Return the names of the folders that can be forked: those with a definition."""
    found = {path.parent.name for path in root.glob(f"*/*{DEFINITION_SUFFIX}")}
    return sorted(name for name in found if NAME_FORM.fullmatch(name))


def snake(name: str) -> str:
    """my-task -> my_task, as scripts are named."""
    return name.replace("-", "_")


def camel(name: str) -> str:
    """my-task -> MyTask, as classes are named."""
    return "".join(part.capitalize() for part in name.split("-"))


# --- What is refused ----------------------------------------------------------------------------------------------


def refusals(root: Path, name: str, origin: str) -> list[str]:
    """Return a sentence for each reason why `name` cannot be made from `origin`; none when it can."""
    found = []
    if origin not in tasks(root):
        known = ", ".join(tasks(root)) or "none in this repository"
        found.append(f"FROM: expected one of the tasks ({known}), found {origin or 'nothing'}")
    if not NAME_FORM.fullmatch(name):
        form = "small letters, digits and single dashes, a letter first, such as NAME=my-task"
        return [f"NAME: expected {form}; found {name or 'nothing'}", *found]
    found += [f"NAME: {name} {reason}" for reason in _name_clashes(root, name)]
    if origin in tasks(root):
        found += [f"NAME: {name} {reason}" for reason in _clashes_with_origin(root / origin, name)]
    return found


def _name_clashes(root: Path, name: str) -> Iterator[str]:
    script = f"{snake(name)}.py"
    if name in RESERVED or name.startswith("test-"):
        yield "is a name that the repository needs for something else"
    elif (root / name).exists() or (root / name).is_symlink():
        yield "exists already"
    if (root / "base-images" / name).exists():
        yield "is the name of a base image"
    if keyword.iskeyword(snake(name)):
        yield "is a word of the Python language, so that no script could be imported"
    if snake(name) in _standard_modules():
        yield f"is a module of Python's standard library, which {script} would hide"


def _standard_modules() -> set[str]:
    known = getattr(sys, "stdlib_module_names", None)  # since Python 3.10
    if known is not None:
        return set(known)
    library = Path(sysconfig.get_paths()["stdlib"])
    return {*sys.builtin_module_names, *(path.stem for path in library.iterdir() if path.suffix in ("", ".py"))}


def _clashes_with_origin(folder: Path, name: str) -> Iterator[str]:
    """Names that the origin uses otherwise: its ports, and the libraries that its scripts import."""
    definition = _definition(folder)
    if definition is None:
        yield f"cannot be made: {folder.name}{DEFINITION_SUFFIX} must be a JSON object first (make lint says more)"
        return
    ports = [port for key in ("inputPortDescriptors", "outputPortDescriptors") for port in _objects(definition, key)]
    if any(port.get("name") in (name, snake(name)) for port in ports):
        yield f"is the name of a port of {folder.name}"
    scripts = "\n".join(_text(path.read_bytes()) or "" for path in folder.glob("*.py"))
    if re.search(rf"^\s*(?:import|from)\s+{snake(name)}\b", scripts, re.M):
        yield f"is a library that {folder.name} imports, which {snake(name)}.py would hide"


def _definition(folder: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads((folder / f"{folder.name}{DEFINITION_SUFFIX}").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _objects(definition: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = definition.get(key)
    return [member for member in listed if isinstance(member, dict)] if isinstance(listed, list) else []


# --- What is copied -----------------------------------------------------------------------------------------------


def files_to_copy(folder: Path) -> list[Path]:
    """Return the files of a folder that git tracks or would track, relative to it; without git, all but junk."""
    tracked = _git_files(folder, "--cached")
    others = _git_files(folder, "--others", "--exclude-standard")
    if tracked or others:
        return sorted({*tracked, *(path for path in others if not _is_junk(path))})
    every = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path.relative_to(folder) for path in every if not _is_junk(path.relative_to(folder)))


def _git_files(folder: Path, *options: str) -> list[Path]:
    command = ["git", "-C", str(folder), "ls-files", "-z", *options]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    names = (Path(os.fsdecode(name)) for name in listed.split(b"\0") if name)
    return [name for name in names if (folder / name).is_file() or (folder / name).is_symlink()]


def _is_junk(path: Path) -> bool:
    *folders, name = path.parts
    hidden = any(part.startswith(".") for part in folders) or (name.startswith(".") and name not in KEPT_DOT_FILES)
    return hidden or bool(JUNK & set(folders)) or name.endswith(JUNK_ENDINGS)


# --- What is renamed ----------------------------------------------------------------------------------------------


def renamer(origin: str, name: str, script: str) -> Rename:
    """Return the function that replaces one task's name by another's in a text or a file name.

    `script` is the text of the origin's script; it says which classes are the task's.
    """
    is_one_word = "-" not in origin
    forms = _forms_of_one_word(origin, name, script) if is_one_word else _forms(origin, name)
    as_module = [*forms, (rf"(?<![\w.-]){origin}(?=\.)", snake(name))]
    imports_origin = re.compile(rf"^import {snake(origin)}\b", re.M)
    kept, kept_in_prose = re.compile(_kept(origin)), re.compile(f"{_kept(origin)}|{_mention(origin)}")

    def rename(text: str) -> str:
        chosen = as_module if is_one_word and imports_origin.search(text) else forms
        lines = text.splitlines(keepends=True)
        return "".join(_replaced(line, kept_in_prose if _recalls(line) else kept, chosen) for line in lines)

    return rename


def _recalls(line: str) -> bool:
    """Say whether a line of prose, no heading and no code, is about the walkthrough, whose names stay."""
    return "walkthrough" in line.lower() and not re.match(r"#+ \S|.*([={]|\w\()", line)


def _replaced(text: str, kept: re.Pattern[str], forms: list[tuple[str, str]]) -> str:
    """Replace each form in one pass, so that a new name that holds the old one is not replaced again."""
    parts = [f"(?P<kept>{kept.pattern})", *(f"(?P<form{place}>{form})" for place, (form, _) in enumerate(forms))]

    def replacement(match: re.Match[str]) -> str:
        which = match.lastgroup or "kept"
        return match.group() if which == "kept" else forms[int(which.removeprefix("form"))][1]

    return re.sub("|".join(parts), replacement, text)


def _kept(origin: str) -> str:
    """What stays as it is: the interface, links, paths that lead out, and mentions of the origin as the origin."""
    sources = r"fork(?:ed)?|cop(?:y|ied)|derived|adapted|taken|started|master(?: copy)?"
    parts = [
        "gbdx_task_interface|GbdxTaskInterface",
        r"https?://(?!localhost|127\.0\.0\.1)[^\s)>\"'`]+",
        r"(?:\.\./)+[\w./-]*",
        rf"\bFROM={origin}(?![\w-])",
        rf"(?i:\b(?:{sources})\s+(?:of|from|in)\s+)(?:the )?[`'\"*]?{_mention(origin)}",
    ]
    return "|".join(parts)


def _mention(origin: str) -> str:
    title = origin.replace("-", " ")
    return rf"(?<!TASK=)(?<!NAME=)(?<![\w-])(?:{origin}(?![\w-])|(?i:{title})\b)"


def _class_forms(origin: str, name: str) -> list[tuple[str, str]]:
    """HelloGbdxTask -> MyTask rather than MyTaskTask, HelloGbdx -> MyTask."""
    new = camel(name)
    with_task = new if new.endswith("Task") else f"{new}Task"
    return [(f"{camel(origin)}Task", with_task), (camel(origin), new)]


def _forms(origin: str, name: str) -> list[tuple[str, str]]:
    """Return (pattern, replacement) for a name of several words, which means the task wherever it stands."""
    words = origin.split("-")
    title = " ".join(part.capitalize() for part in name.split("-"))
    before, after = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
    classes = [(rf"(?:(?<![A-Za-z0-9])|(?<=\bTest)){old}(?![a-z0-9])", new) for old, new in _class_forms(origin, name)]
    return [
        (rf"(?<![\w-]){origin}(?![A-Za-z0-9-])", name),
        (rf"{before}(?<!\w\.){snake(origin)}{after}", snake(name)),
        (rf"{before}{snake(origin).upper()}{after}", snake(name).upper()),
        *classes,
        (rf"\b{' '.join(words)}\b", title.lower()),
        (rf"(?i:\b{' '.join(words)}\b)", title),
    ]


def _forms_of_one_word(origin: str, name: str, script: str) -> list[tuple[str, str]]:
    """Return (pattern, replacement) for a name of one word, such as `forest`, which has other meanings too.

    It is the task's only in file names, imports, commands, image references, headings, and alone in quotes.
    """
    own_classes = re.findall(r"^class\s+(\w+)\(.*GbdxTaskInterface", script, re.M)
    return [
        (rf"(?<![A-Za-z0-9.-]){origin}(?={DEFINITION_SUFFIX})", name),
        (rf"(?:(?<![\w.-])|(?<=\btest_)){origin}(?=\.py\b|\.[A-Z]|\.invoke\b)", snake(name)),
        (rf"(?<=\btest_){origin}\b", snake(name)),
        (rf"(?:(?<=\bimport )|(?<=\bfrom )){origin}\b(?! import [a-z])", snake(name)),
        (rf"(?:(?<=\bTASK=)|(?<=\bNAME=)|(?<=\blocalhost/)|(?<=title=)|(?<=title=\")){origin}\b(?!-)", name),
        (rf"(?:(?<=^# )|(?<=\"\"\")|(?<=`)){origin}(?=[\n:`/]|$)", name),
        (rf"(?<![\w.-]){origin}(?=:\d+\.\d)", name),
        *((rf"\b{old}\b", new) for old, new in _class_forms(origin, name) if old in own_classes),
    ]


def renamed_definition(text: str, origin: str, name: str, rename: Rename, owner: str | None) -> str:
    """Return a definition under its new name, at the first version, for its new owner, in the layout it had."""
    definition = _renamed_values(json.loads(text), rename)
    definition["name"] = name
    if "version" in definition:
        definition["version"] = FIRST_VERSION
    if owner and "taskOwnerEmail" in definition:
        definition["taskOwnerEmail"] = owner
    for container in _objects(definition, "containerDescriptors"):
        properties = container.get("properties")
        if isinstance(properties, dict) and isinstance(properties.get("image"), str):
            registry = properties["image"].partition("@")[0].rpartition("/")[:2]
            properties["image"] = "".join(registry) + f"{name}:{FIRST_VERSION}"
    indent = re.search(r"^( +|\t)\"", text, re.M)
    width: int | str | None = None if indent is None else "\t" if indent.group(1) == "\t" else len(indent.group(1))
    return json.dumps(definition, indent=width, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")


def _renamed_values(value: Any, rename: Rename) -> Any:
    if isinstance(value, dict):
        return {key: _renamed_values(member, rename) for key, member in value.items()}
    if isinstance(value, list):
        return [_renamed_values(member, rename) for member in value]
    return rename(value) if isinstance(value, str) else value


def _text(content: bytes) -> str | None:
    """Return the text of a file, None when it is binary."""
    try:
        return None if b"\0" in content else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


# --- The fork -----------------------------------------------------------------------------------------------------


def fork(root: Path, name: str, origin: str, owner: str | None) -> None:
    """Make the folder `name` from the folder `origin`; it is put together beside it and renamed at the end."""
    source = root / origin
    script = source / f"{snake(origin)}.py"
    rename = renamer(origin, name, script.read_text("utf-8") if script.is_file() else "")
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        for path in files_to_copy(source):
            _copy(source, path, unfinished, rename, (origin, name, owner))
        shutil.copymode(source, unfinished)
        os.rename(unfinished, root / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy(source: Path, path: Path, folder: Path, rename: Rename, about: tuple[str, str, str | None]) -> None:
    origin, name, owner = about
    target = folder.joinpath(*(rename(part) for part in path.parts))
    target.parent.mkdir(parents=True, exist_ok=True)
    if (source / path).is_symlink():
        target.symlink_to(rename(os.readlink(source / path)))
        return
    content = (source / path).read_bytes()
    text = None if path.name == INTERFACE else _text(content)
    if text is None:
        target.write_bytes(content)
    elif path == Path(f"{origin}{DEFINITION_SUFFIX}"):
        target.write_bytes(renamed_definition(text, origin, name, rename, owner).encode("utf-8"))
    else:
        old_version = (_definition(source) or {}).get("version")
        target.write_bytes(_at_first_version(rename(text), name, old_version).encode("utf-8"))
    shutil.copymode(source / path, target)


def _at_first_version(text: str, name: str, old_version: object) -> str:
    """Replace the origin's version where it is said to be the task's: `my-task:1.2.0`, `ARG VERSION=1.2.0`."""
    if not isinstance(old_version, str):
        return text
    pattern = rf"({re.escape(name)}:|\bversion[\"']?\s*[=:]\s*[\"']?){re.escape(old_version)}(?![\w.])"
    return re.sub(pattern, rf"\g<1>{FIRST_VERSION}", text, flags=re.I)


def git_user_email(root: Path) -> str | None:
    """Return git's user.email, None when it is not set or is no mail address."""
    command = ["git", "-C", str(root), "config", "user.email"]
    try:
        said = subprocess.run(command, capture_output=True, check=False).stdout.decode("utf-8", "replace").strip()
    except OSError:
        return None
    return said if MAIL_FORM.fullmatch(said) else None


def main(arguments: list[str] | None = None) -> int:
    """Make the fork; return the exit code: 0, 1 when files could not be written, 2 when it is refused."""
    parser = argparse.ArgumentParser(description="Start a task from another one.")
    parser.add_argument("name", nargs="?", default=os.environ.get("NAME", ""), help="the new task (default: $NAME)")
    parser.add_argument("--from", dest="origin", default=os.environ.get("FROM", ""), help="the task to copy ($FROM)")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    root, origin = options.root.resolve(), options.origin.rstrip("/")
    reasons = refusals(root, options.name, origin)
    if reasons:
        print("\n".join(f"new: {reason}" for reason in reasons), file=sys.stderr)
        print("new: for example, make new NAME=my-task FROM=hello-gbdx", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the unfinished folder goes
    owner = git_user_email(root)
    try:
        fork(root, options.name, origin, owner)
    except OSError as error:
        print(f"new: expected to write the folder {options.name}, found: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.name}/ is a copy of {origin}/ at version {FIRST_VERSION}" + (f", owned by {owner}" if owner else "")
    )
    print(f"next:\n  make run TASK={options.name}\n  make lint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
