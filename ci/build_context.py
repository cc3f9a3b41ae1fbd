"""Check a task's Dockerfile and .dockerignore as far as their text shows: what is copied, left out and pinned."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from collections.abc import Iterator

from task_folder import INTERFACE, Finding, TaskFolder, is_visible

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
# Names that may be left out of a build context before they exist.
GENERIC_NAMES = {"__pycache__", "build", "dist", "env", "node_modules", "output", "outputs", "runs", "venv"}
_FOLDER_ENDS = ("/**", "/*", "/")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) of a Dockerfile, continuation lines joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, _, rest in found]


def copied_sources(dockerfile: str) -> list[str]:
    """Return what COPY and ADD take out of the build context, as written."""
    sources: list[str] = []
    for word, rest in instructions(dockerfile):
        if word in ("COPY", "ADD") and not re.search(r"(?:^|\s)--from=", rest):
            paths = re.sub(r"^(?:--\S+\s+)+", "", rest)
            sources += (_json_list(paths) or _words(paths))[:-1]
    return sources


def _json_list(text: str) -> list[str]:
    try:
        loaded = json.loads(text)
    except ValueError:
        return []
    return [str(word) for word in loaded] if isinstance(loaded, list) else []


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def is_copied(name: str, sources: list[str]) -> bool:
    """Say whether a file of the folder is among the sources; a source with a variable may be any file."""
    plain = [source.strip("/").removeprefix("./") for source in sources]
    return any("$" in source or fnmatch.fnmatchcase(name, "*" if source in ("", ".") else source) for source in plain)


def check_dockerfile(task: TaskFolder, script: str | None) -> Iterator[Finding]:
    """Report a Dockerfile that copies neither the script nor the interface, and packages without a version."""
    dockerfile = task.text(DOCKERFILE)
    if not dockerfile:
        return
    sources = copied_sources(dockerfile)
    for name in filter(None, (script, INTERFACE)):
        if (task.path / name).is_file() and not is_copied(name, sources):
            found = ", ".join(sources) or "nothing copied"
            yield Finding(DOCKERFILE, f'expected a COPY of "{name}", found {found}')
    for word, rest in instructions(dockerfile):
        for package in _unpinned(rest) if word == "RUN" else []:
            yield Finding(
                DOCKERFILE, f'pip install: expected a version, as in "{package}==1.2.3", found none', "warning"
            )


def _unpinned(command: str) -> list[str]:
    """Return the names that `pip install` gets without a version; files and addresses are not names."""
    found = []
    for arguments in re.findall(r"\bpip3?\s+install\s+([^&;|]*)", command):
        words = _words(arguments)
        options = {place + 1 for place, word in enumerate(words) if word.startswith("-") and "=" not in word}
        options -= {place + 1 for place, word in enumerate(words) if word in _PIP_FLAGS}
        found += [
            word
            for place, word in enumerate(words)
            if place not in options and re.fullmatch(r"[A-Za-z][\w.\[\],-]*", word) and not word.endswith(".whl")
        ]
    return found


_PIP_FLAGS = {
    *("--no-cache-dir", "--no-deps", "--require-hashes", "--upgrade", "-U", "-q", "--quiet", "--no-compile", "--pre"),
    *("--break-system-packages", "--no-index", "--user", "-v", "--prefer-binary", "--force-reinstall"),
    *("--disable-pip-version-check", "--no-build-isolation", "-qq", "--root-user-action"),
}


def check_ignore_file(task: TaskFolder) -> Iterator[Finding]:
    """Report patterns of .dockerignore that match nothing, and sample inputs that go into every build context."""
    lines = [line.strip() for line in task.text(IGNORE_FILE).splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    for pattern in patterns:
        if not _is_generic(pattern) and not _matches_something(task, pattern):
            yield Finding(IGNORE_FILE, f'expected names of files that are in the folder, found "{pattern}"')
    if patterns and (task.path / "test_inputs").is_dir() and not is_ignored("test_inputs", patterns):
        yield Finding(
            IGNORE_FILE, "expected test_inputs, which would go into every build context, found it not", "warning"
        )


def _plain(pattern: str) -> str:
    plain = pattern.removeprefix("!").removeprefix("./").lstrip("/")
    for end in _FOLDER_ENDS:
        plain = plain.removesuffix(end)
    return plain


def _is_generic(pattern: str) -> bool:
    """Say whether a pattern is meant for files that may come: `*`, `*.pyc`, `**/.git`, `runs/`."""
    last = _plain(pattern).rsplit("/", 1)[-1]
    return last in GENERIC_NAMES or last.startswith((".", "*.")) or last.strip("*") in ("", "~")


def _matches_something(task: TaskFolder, pattern: str) -> bool:
    try:
        return any(True for _ in task.path.glob(_plain(pattern)))
    except (ValueError, NotImplementedError):
        return False


def is_ignored(name: str, patterns: list[str]) -> bool:
    """Say whether a top-level name is left out of the build context; the last pattern that fits decides."""
    ignored = False
    for pattern in patterns:
        if fnmatch.fnmatchcase(name, _plain(pattern).removeprefix("**/") or "*"):
            ignored = not pattern.startswith("!")
    return ignored


def check_context(task: TaskFolder, script: str | None) -> Iterator[Finding]:
    """Check the Dockerfile and .dockerignore, and that the one does not leave out what the other copies."""
    yield from check_dockerfile(task, script)
    yield from check_ignore_file(task)
    patterns = [line.strip() for line in task.text(IGNORE_FILE).splitlines() if line.strip() and line[0] != "#"]
    for source in copied_sources(task.text(DOCKERFILE)):
        path = task.path / source.strip("/")
        if path.is_file() and is_visible(path) and is_ignored(source.strip("/"), patterns):
            yield Finding(
                IGNORE_FILE, f'expected what the Dockerfile copies in the build context, found "{source}" left out'
            )
