"""Tasks that break the contract, each run for real by ci/run_task.py: the verdict is the documented one.

CASES is the table. All cases start at once, a few at a time, when the first of them is asked for; each test then waits
for its own and looks at what is left.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from image_graph import ROOT
from task_verdict import EXIT_CODES

FIXTURES = Path(__file__).resolve().parent / "misbehaving_tasks"
# The uid that root's containers run as.
CONTAINER_UID = 10001


@dataclass
class Finished:
    """A run that has ended: what it said, and where its outputs are."""

    name: str
    exit_code: int
    text: str
    last_line: str
    lines: int
    printed_bytes: int
    errors: str
    place: Path
    memory: int

    @property
    def folder(self) -> Path:
        """Where the outputs are: apart from good ones unless it is a success."""
        return self.place / ("out" if self.exit_code == 0 else "out.failed")

    @property
    def port(self) -> Path:
        """The folder of the one output port."""
        return self.folder / "data_out"


class Case(NamedTuple):
    """What a task must come to: exit code and word of the verdict, words of the last line, and what else holds."""

    exit_code: int
    verdict: str
    words: str
    options: tuple[str, ...] = ()
    check: Callable[[Finished], None] = lambda finished: None


# --- further checks --------------------------------------------------------------------------------------------------


def warns_of_the_extra_folder(finished: Finished) -> None:
    warning = "output-undeclared: warning: output 'extra' is no declared directory port: a platform would drop it"
    assert warning in finished.text


def input_is_unchanged(finished: Finished) -> None:
    assert (finished.place / "inputs" / "data_in" / "data_file.txt").read_text() == "theirs"


def was_asked_first(finished: Finished) -> None:
    assert (finished.folder / "asked_to_end").is_file()


def child_is_gone(finished: Finished) -> None:
    assert eventually(lambda: processes("sleep\0003611") == [])


def forks_are_gone(finished: Finished) -> None:
    assert (finished.folder / "bounded").is_file()
    assert eventually(lambda: processes("/forks_without_end.py") == [])


def nothing_was_kept(finished: Finished) -> None:
    assert finished.printed_bytes >= 100_000_000
    assert sum(path.stat().st_size for path in finished.folder.rglob("*")) < 10_000
    # The engine's client, which passes the output on, is the largest of the runner's processes.
    assert finished.memory < 90_000_000


def is_nobody(finished: Finished) -> None:
    uid = os.getuid() or CONTAINER_UID
    ids = (finished.port / "ids.txt").read_text().replace("(", "").replace(")", "").split(" [")[0]
    assert ids.split()[:3] == [f"{uid},", f"{uid},", f"{uid}"]
    assert "worked" not in (finished.port / "attempts.txt").read_text()


def can_be_read(finished: Finished) -> None:
    assert (finished.port / "locked" / "file.txt").read_text() == "within"


def runs_as_nobody_else(finished: Finished) -> None:
    for path in (finished.port, finished.port / "program"):
        assert stat.S_IMODE(path.stat().st_mode) & (stat.S_ISUID | stat.S_ISGID) == 0
    assert os.access(finished.port / "program", os.X_OK)


def name_is_kept(finished: Finished) -> None:
    assert os.listdir(os.fsencode(finished.port)) == [b"\xe9t\xe9.txt"]


def all_three_links_are_named(finished: Finished) -> None:
    for link in ("absolute", "upwards", "deep/deeper/devious"):
        assert f"'{link}' is a link that leaves the folder" in finished.last_line
    assert "'deep/deeper/top'" not in finished.last_line


def is_the_callers_to_its_end(finished: Finished) -> None:
    assert subprocess.check_output(["find", finished.port, "!", "-uid", str(os.getuid())]) == b""
    subprocess.run(["rm", "-rf", finished.port], check=True)  # Python's own tools would fail at it


def warns_of_no_more_than_twenty(finished: Finished) -> None:
    assert finished.lines == 22
    assert "output-too-many: warning: and 80 more of these" in finished.text


def line_is_plain(finished: Finished) -> None:
    assert finished.last_line.isprintable()
    assert finished.lines == 1


def line_is_short(finished: Finished) -> None:
    assert len(finished.last_line) < 1000


CASES = {
    # How it ends.
    "exits-without-status": Case(4, "broken contract", "status.json: expected the task to write it, found none"),
    "exits-with-code-1": Case(1, "failed", "status.json says success, but the exit code is 1"),
    "reports-failure": Case(1, "failed", "no clouds found"),
    "raises-in-constructor": Case(1, "failed", "ValueError: expected a model, found none"),
    "kills-itself": Case(1, "failed", "exit code 137, and status.json: expected the task to write it, found none"),
    "outlives-timeout": Case(124, "timedout", "over its timeout of 2 s", ("--timeout", "2")),
    "ignores-sigterm": Case(124, "timedout", "over its timeout of 6 s", ("--timeout", "6"), was_asked_first),
    "leaves-child-behind": Case(0, "success", "outputs in", (), child_is_gone),
    "forks-without-end": Case(
        124, "timedout", "over its timeout of 6 s", ("--timeout", "6", "--processes", "32"), forks_are_gone
    ),
    # status.json.
    "status-banana": Case(4, "broken contract", 'expected the status "success" or "failed", found \'banana\''),
    "status-in-capitals": Case(0, "success", "outputs in"),
    "status-twice": Case(1, "failed", "second thoughts"),
    "status-two-documents": Case(4, "broken contract", "status.json: expected one JSON object, found something else"),
    "status-is-folder": Case(4, "broken contract", "status.json: expected a plain file, found a folder"),
    "status-is-link": Case(4, "broken contract", "status.json: expected a plain file, found a symbolic link"),
    "status-too-large": Case(4, "broken contract", "status.json: expected at most 1048576 bytes, found 5000"),
    "status-word-too-long": Case(4, "broken contract", "found 'xxx", (), line_is_short),
    "status-not-utf8": Case(4, "broken contract", "status.json: expected one JSON object, found something else"),
    "status-with-escape-codes": Case(1, "failed", "no clouds [2K ]0;title hello: success in 0.1 s", (), line_is_plain),
    # Outputs.
    "output-missing": Case(4, "broken contract", "output port 'data_out': expected a directory, found nothing"),
    "output-undeclared": Case(0, "success", "outputs in", (), warns_of_the_extra_folder),
    "output-is-file": Case(4, "broken contract", "output port 'data_out': expected a folder, found a file"),
    "output-is-link": Case(4, "broken contract", "output port 'data_out': expected a folder, found a symbolic link"),
    "output-links-outside": Case(4, "broken contract", "to '/etc/passwd'", (), all_three_links_are_named),
    "output-holds-pipe": Case(4, "broken contract", "'pipe': expected files and folders, found a named pipe"),
    "output-locked": Case(0, "success", "outputs in", (), can_be_read),
    "output-sets-uid": Case(0, "success", "outputs in", (), runs_as_nobody_else),
    "output-name-not-utf8": Case(0, "success", "outputs in", (), name_is_kept),
    "output-too-deep": Case(4, "broken contract", "found: File name too long", (), is_the_callers_to_its_end),
    "output-too-many": Case(0, "success", "outputs in", (), warns_of_no_more_than_twenty),
    "output-folder-swapped": Case(4, "broken contract", "output: expected a folder, found a symbolic link"),
    "output-folder-removed": Case(4, "broken contract", "output: expected a folder, found none"),
    "output-record-is-link": Case(0, "success", "outputs in"),
    "output-ports-is-link": Case(4, "broken contract", "output/ports.json: expected a plain file, found a symbolic"),
    "string-output-missing": Case(4, "broken contract", "'answer': expected a string, found ansver (string)"),
    "string-output-half-pair": Case(4, "broken contract", r"found half a surrogate pair in '\ud83d'"),
    # What it may not.
    "writes-into-input": Case(1, "failed", "exit code 1, and status.json", (), input_is_unchanged),
    "writes-into-image": Case(1, "failed", "exit code 1, and status.json: expected the task to write it, found none"),
    "becomes-root": Case(0, "success", "outputs in", (), is_nobody),
    "calls-out": Case(1, "failed", "OSError: [Errno 101] Network is unreachable"),
    # Resources.
    "fills-disk": Case(5, "over limit", "over the limit of 20 MB (DISK)", ("--disk", "20m")),
    "fills-disk-at-once": Case(5, "over limit", " MB, over the limit of 20 MB", ("--disk", "20m")),
    "fills-tmp": Case(1, "failed", "OSError: [Errno 28] No space left on device", ("--temporary", "16m")),
    "eats-memory": Case(5, "over limit", "out of memory, over the limit of 64 MB (MEMORY)", ("--memory", "64m")),
    "child-eats-memory": Case(0, "success", "outputs in", ("--memory", "64m")),
    "prints-100-mb": Case(0, "success", "outputs in", (), nothing_was_kept),
}


# --- running them ----------------------------------------------------------------------------------------------------


def processes(words: str) -> list[str]:
    """Command lines of this machine's processes, those in containers among them, that hold `words`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text(errors="replace")
        except OSError:
            continue
        found += [command] if words in command else []
    return found


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Waits until something holds; whether it did in the end."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


def read_to_the_end(process: subprocess.Popen[bytes]) -> tuple[str, str, int, int]:
    """What a process prints (short lines alone), its last line, and how many lines and bytes that was."""
    kept, last, lines, size = [], b"", 0, 0
    assert process.stdout
    for line in process.stdout:
        last, lines, size = line, lines + 1, size + len(line)
        if len(line) < 10_000:
            kept.append(line.decode())
    return "".join(kept), last.decode().rstrip("\n"), lines, size


def run_fixture(name: str, image: str, environment: dict[str, str], place: Path) -> Finished:
    """Runs one misbehaving task as a user would, with the memory of the runner's processes measured."""
    (place / "victim").mkdir(parents=True)
    (place / "victim" / "keep.txt").write_text("precious")
    (place / "inputs" / "data_in").mkdir(parents=True)
    (place / "inputs" / "data_in" / "data_file.txt").write_text("theirs")
    asks = "inputPortDescriptors" in (FIXTURES / name / f"{name}_definition.json").read_text()
    command = [
        *(sys.executable, str(ROOT / "ci" / "run_task.py"), str(FIXTURES / name), "--image", image, "--grace", "1"),
        *("--output", str(place / "out"), *(("--input", str(place / "inputs")) if asks else ()), *CASES[name].options),
    ]
    with (place / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        printed = read_to_the_end(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said = (place / "errors.txt").read_text(errors="replace")
    return Finished(name, process.returncode, *printed, said, place, usage.ru_maxrss * 1024)


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest,
    misbehaving_image: str,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[Finished]]]:
    """The runs of all fixtures that this session asks for, a few at a time."""
    base = tmp_path_factory.mktemp("misbehaving")
    asked = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(max_workers=6) as pool:
        # Those that wait for their end come first.
        names = sorted((name for name in CASES if name in asked), key=lambda name: CASES[name].exit_code != 124)
        yield {name: pool.submit(run_fixture, name, misbehaving_image, environment, base / name) for name in names}


@pytest.mark.parametrize("name", CASES)
def test_a_misbehaving_task_gets_the_documented_verdict(
    name: str, runs: dict[str, Future[Finished]], containers_at: Callable[[Path], list[str]]
) -> None:
    case, finished = CASES[name], runs[name].result()
    assert finished.exit_code == case.exit_code, finished.last_line + finished.errors
    said = case.verdict if case.exit_code == 0 else f"{case.verdict} (exit code {case.exit_code})"
    assert re.match(rf"{name}: {re.escape(said)} in \d+\.\d s", finished.last_line)
    assert case.words in finished.last_line
    assert "ci/run_task.py" not in finished.errors, finished.errors
    case.check(finished)
    leaves_nothing_but_its_outputs(finished, containers_at)


def leaves_nothing_but_its_outputs(finished: Finished, containers_at: Callable[[Path], list[str]]) -> None:
    """What holds after every run: one folder of outputs, the caller's own, with a record; no container; no damage."""
    expected = {finished.folder.name, "victim", "inputs", "errors.txt"}
    assert {path.name for path in finished.place.iterdir()} == expected
    record: dict[str, Any] = json.loads((finished.folder / "run.json").read_text())
    assert (record["verdict"], record["exit_code"]) == (CASES[finished.name].verdict, finished.exit_code)
    assert not (finished.folder / "run.json").is_symlink()
    assert {path.lstat().st_uid for path in (finished.folder, *finished.folder.rglob("*"))} == {os.getuid()}
    assert [path.name for path in (finished.place / "victim").iterdir()] == ["keep.txt"]
    assert (finished.place / "victim" / "keep.txt").read_text() == "precious"
    assert eventually(lambda: containers_at(finished.place) == [])


# --- the table -------------------------------------------------------------------------------------------------------


def documented() -> dict[str, tuple[int, set[str]]]:
    """Verdict -> exit code and names of fixtures, out of the table in the fixtures' README."""
    lines = (FIXTURES / "README.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| [a-z ]+ \| \d", line)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {verdict: (int(code), set(re.findall("`([^`]+)`", names))) for verdict, code, _, names in rows}


def test_the_readme_has_every_verdict_with_its_exit_code() -> None:
    assert {verdict: code for verdict, (code, _) in documented().items()} == EXIT_CODES


def test_the_readme_names_every_fixture_beside_its_verdict() -> None:
    for verdict, (code, names) in documented().items():
        assert names == {name for name, case in CASES.items() if case.verdict == verdict}, verdict
        assert {case.exit_code for case in CASES.values() if case.verdict == verdict} <= {code}


def test_every_fixture_is_in_the_table_of_cases() -> None:
    folders = {path.parent.name for path in FIXTURES.glob("*/*_definition.json")}
    assert folders == {*CASES, "reads-its-limits"}, "reads-its-limits behaves, and belongs to test_run_task.py"
    for name in folders:
        assert json.loads((FIXTURES / name / f"{name}_definition.json").read_text())["name"] == name
        assert (FIXTURES / name / f"{name.replace('-', '_')}.py").is_file()
