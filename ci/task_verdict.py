"""What became of a run: the truth of three, exit code, status.json and declared outputs, together.

Nothing here follows a link, opens anything but a plain file, or believes what it reads: all of it is written by a task.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Any

# A status or a ports.json is a few words; more than this is not read.
MAX_JSON_BYTES = 1024 * 1024
MAX_REASON = 500

# Half a surrogate pair: JSON can spell it, Python has it in names of files that are no UTF-8, and no UTF-8 holds it.
HALF_PAIR = re.compile("[\ud800-\udfff]")

STATUS_WORDS = {"success": "success", "failed": "failed", "fail": "failed"}

# state -> exit code of `ci/run_task.py`. `refused` and `no engine` come before anything is run.
EXIT_CODES = {
    "success": 0,
    "failed": 1,
    "refused": 2,
    "no engine": 3,
    "broken contract": 4,
    "over limit": 5,
    "timedout": 124,
    "canceled": 130,
}


class BrokenContractError(ValueError):
    """The task left something that the contract does not allow; the message is the sentence for the user."""


@dataclass(frozen=True)
class Verdict:
    """The end of a run: one of the states in EXIT_CODES, and a sentence that says why."""

    state: str
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """The process exit code that stands for the state."""
        return EXIT_CODES[self.state]


def printable(text: str, limit: int = MAX_REASON) -> str:
    """`text` on one line, without control characters (a terminal would obey them), cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def read_json_object(path: str) -> dict[str, Any] | None:
    """One JSON object out of a plain file that a task wrote, None when there is no such file.

    Raises:
        BrokenContractError: a link, a folder or a device; too large; not UTF-8; not one JSON object.
    """
    name = os.path.basename(path)
    try:
        kind = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(kind.st_mode):
        raise BrokenContractError(f"{name}: expected a plain file, found {kind_of(kind.st_mode)}")
    if kind.st_size > MAX_JSON_BYTES:
        raise BrokenContractError(f"{name}: expected at most {MAX_JSON_BYTES} bytes, found {kind.st_size}")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError, OSError) as error:
        raise BrokenContractError(f"{name}: expected one JSON object, found something else ({error})") from None
    if not isinstance(found, dict):
        raise BrokenContractError(f"{name}: expected one JSON object, found {type(found).__name__}")
    return found


def kind_of(mode: int) -> str:
    """What a file mode stands for, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_status(path: str) -> tuple[str, str]:
    """The status word, `success` or `failed`, and the reason out of a status.json.

    Raises:
        BrokenContractError: no such file, not readable as JSON, or another word.
    """
    found = read_json_object(path)
    if found is None:
        raise BrokenContractError("status.json: expected the task to write it, found none")
    word = STATUS_WORDS.get(str(found.get("status")).lower())
    if word is None:
        shown = printable(repr(found.get("status")), 100)
        raise BrokenContractError(f'status.json: expected the status "success" or "failed", found {shown}')
    return word, printable(str(found.get("reason") or ""))


def entries_below(folder: str) -> list[os.DirEntry[str]]:
    """Every entry below a folder, deepest folders included, links not followed.

    A folder that its owner may not enter is opened first: the outputs belong to the caller, whatever the task set.
    """
    found: list[os.DirEntry[str]] = []
    pending = [folder]
    while pending:
        current = pending.pop()
        os.chmod(current, stat.S_IMODE(os.lstat(current).st_mode) | 0o700)
        with os.scandir(current) as entries:
            for entry in entries:
                found.append(entry)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return found


def leaves(folder: str, link: str) -> bool:
    """Whether a symbolic link below `folder` points out of it; an absolute one does, as it breaks when moved."""
    inside = os.path.realpath(folder)
    # Step by step, as the kernel goes: another link on the way may lead elsewhere than the text says.
    return os.path.isabs(os.readlink(link)) or os.path.commonpath([inside, os.path.realpath(link)]) != inside


def port_problems(output: str, name: str) -> list[str]:
    """What is wrong with a folder that a task left as a directory output port."""
    folder = os.path.join(output, name)
    mode = os.lstat(folder).st_mode
    if not stat.S_ISDIR(mode):
        return [f"output port {name!r}: expected a folder, found {kind_of(mode)}"]
    problems = []
    try:
        entries = entries_below(folder)
    except OSError as error:
        return [f"output port {name!r}: expected a folder that can be read to its end, found: {error.strerror}"]
    for entry in entries:
        where = f"output port {name!r}: {os.path.relpath(entry.path, folder)!r}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode) and leaves(folder, entry.path):
            problems.append(f"{where} is a link that leaves the folder, to {os.readlink(entry.path)!r}")
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            problems.append(f"{where}: expected files and folders, found {kind_of(mode)}")
    return problems


def owner_of(name: str, ports: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The declared port that a name under output/ (or in its ports.json) belongs to."""
    prefixes = [port for port in ports if port.get("multiplex") and len(name) > len(port["name"])]
    candidates = [port for port in ports if port["name"] == name and not port.get("multiplex")]
    candidates += sorted((p for p in prefixes if name.startswith(p["name"])), key=lambda p: -len(p["name"]))
    return candidates[0] if candidates else None


def check_outputs(output: str, definition: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Holds the folder /mnt/work/output against the definition.

    Returns:
        Problems, each of which breaks the contract (a declared port missing or not a plain folder), and warnings (what
        is not declared: the platform drops it).
    """
    ports = definition.get("outputPortDescriptors") or []
    if not os.path.isdir(output) or os.path.islink(output):
        found_kind = kind_of(os.lstat(output).st_mode) if os.path.lexists(output) else "none"
        return [f"output: expected a folder, found {found_kind}"], []
    try:
        strings = read_json_object(os.path.join(output, "ports.json")) or {}
        problems = []
    except BrokenContractError as error:
        strings, problems = {}, [f"output/{error}"]
    for key, value in strings.items():
        if HALF_PAIR.search(json.dumps({key: value}, ensure_ascii=False)):
            where = f"output/ports.json: {printable(repr(key), 100)}"
            problems.append(f"{where}: expected text, found half a surrogate pair in {printable(repr(value), 100)}")
    names = [name for name in sorted(os.listdir(output)) if name != "ports.json"]
    found = {"directory": names, "string": sorted(strings)}
    for port in ports:
        kind = "string" if port.get("type") == "string" else "directory"
        expected = not port.get("multiplex") and port.get("required", True)
        if expected and port["name"] not in found[kind]:
            beside = ", ".join([*names, *(f"{key} (string)" for key in strings)]) or "nothing"
            problems.append(f"output port {port['name']!r}: expected a {kind}, found {printable(beside)}")
    warnings = []
    for kind, present in found.items():
        declared = [port for port in ports if (port.get("type") == "string") == (kind == "string")]
        for name in present:
            if not owner_of(name, declared):
                warnings.append(f"output {name!r} is no declared {kind} port: a platform would drop it")
            elif kind == "directory":
                problems.extend(port_problems(output, name))
    return problems, warnings


def judge(exit_code: int, status_path: str, output_problems: list[str]) -> Verdict:
    """The verdict of a task that ended by itself: it succeeded only if all three say so."""
    try:
        word, reason = read_status(status_path)
    except BrokenContractError as error:
        if exit_code:
            return Verdict("failed", f"exit code {exit_code}, and {error}")
        return Verdict("broken contract", str(error))
    if word == "failed":
        return Verdict("failed", reason or "the task gave no reason")
    if exit_code:
        return Verdict("failed", f"status.json says success, but the exit code is {exit_code}")
    if output_problems:
        return Verdict("broken contract", printable("; ".join(map(printable, output_problems)), 4 * MAX_REASON))
    return Verdict("success", reason)
