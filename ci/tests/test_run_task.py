"""ci/run_task.py as a user calls it: what it refuses, what a container gets, where outputs go, how a run is canceled.

What becomes of tasks that misbehave is in test_misbehaving_tasks.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import build_images
import pytest
import run_task
from image_graph import ROOT
from task_verdict import Verdict

SCRIPT = ROOT / "ci" / "run_task.py"
FIXTURES = Path(__file__).resolve().parent / "misbehaving_tasks"
PROBE = FIXTURES / "reads-its-limits"
CONTAINER_UID = 10001
# An ordinary user's; no account is needed for a process to have it.
ORDINARY_UID = 12345


def call(environment: dict[str, str], *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """One call of ci/run_task.py."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, check=False)


def eventually(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until something holds, and returns what it found in the end."""
    deadline = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its content and its time of change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# --- refused: nothing is run -----------------------------------------------------------------------------------------
# ENGINE names none, so that a run which got as far as looking for an engine would end with 3, not 2.


def refused(environment: dict[str, str], *arguments: object) -> list[str]:
    """The problems that a call is refused for."""
    done = call(environment, *arguments, ENGINE="no-such-engine")
    assert (done.returncode, done.stdout) == (2, "")
    return [line.partition("refused: ")[2] for line in done.stderr.splitlines()]


def test_everything_wrong_with_what_is_asked_is_said_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "inputs" / "data").mkdir(parents=True)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "earlier.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    ports = json.dumps({"mesage": "Hi", "message": 5})
    asked = ("--input", tmp_path / "inputs", "--output", tmp_path / "outputs", "--ports", ports)
    assert refused(environment, "hello-gbdx", *asked) == [
        "string port 'mesage': not declared; there are: message",
        "string port 'message': expected a string, found 5",
        f"{tmp_path}/inputs/data: not a declared input port; there are: data_in",
        f"directory port 'data_in' is required: expected the folder {tmp_path}/inputs/data_in, found data",
        f"OUTPUT: expected a new or an empty folder, found {tmp_path}/outputs with something in it",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_ports_do_not_hide_a_missing_input(environment: dict[str, str], tmp_path: Path) -> None:
    said = refused(environment, "hello-gbdx", "--input", tmp_path, "--ports", "Hi there")
    assert said == [
        "PORTS: expected port=value, found 'Hi there'; for example PORTS='message=Hi there'",
        f"directory port 'data_in' is required: expected the folder {tmp_path}/data_in, found none",
    ]


def test_an_input_folder_that_is_not_there_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    said = refused(environment, "hello-gbdx", "--input", tmp_path / "nowhere")
    assert said == [f"INPUT: expected a folder, found none at {tmp_path}/nowhere"]


@pytest.mark.parametrize(("task", "found"), [("helo", "no task is called 'helo'"), ("", "no task is named")])
def test_a_task_that_is_not_there_is_answered_with_those_that_are(
    environment: dict[str, str], task: str, found: str
) -> None:
    (said,) = refused(environment, task)
    assert said.startswith(f"{found}; for example: make run TASK=hello-gbdx. Tasks: ")
    assert "hello-gbdx" in said.partition("Tasks: ")[2].split(", ")


@pytest.mark.parametrize("kind", ["file", "link to an empty folder", "folder with a hidden file"])
def test_an_output_that_would_replace_something_is_refused(
    environment: dict[str, str], tmp_path: Path, kind: str
) -> None:
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("precious")
    elif kind == "link to an empty folder":
        (tmp_path / "empty").mkdir()
        output.symlink_to("empty")
    else:
        output.mkdir()
        (output / ".hidden").touch()
    before = sorted(tmp_path.rglob("*"))
    (said,) = refused(environment, "hello-gbdx", "--output", output)
    assert said == f"OUTPUT: expected a new or an empty folder, found {output} with something in it"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", ["5q", "0", "-1g", "g", "1.5g"])
def test_a_size_that_is_none_is_refused(environment: dict[str, str], size: str) -> None:
    done = call(environment, "hello-gbdx", MEMORY=size, ENGINE="no-such-engine")
    assert done.returncode == 2
    assert f"expected a size such as 512m or 8g, found '{size}'" in done.stderr


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"containerDescriptors": [{"type": "DOCKER", "command": "python '/a.py"}]}, "No closing quotation"),
        ({"properties": {"timeout": "two hours"}}, "'two hours'"),
        ({"containerDescriptors": []}, "`make lint` says more"),
        ({"properties": 7200}, "`make lint` says more"),
    ],
)
def test_a_definition_that_can_not_be_run_is_refused(
    environment: dict[str, str], tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    definition = {"name": "task", "containerDescriptors": [{"type": "DOCKER", "command": "true"}], **change}
    (tmp_path / "task_definition.json").write_text(json.dumps(definition))
    (said,) = refused(environment, tmp_path)
    assert said.startswith(f"{tmp_path}/task_definition.json: expected ")
    assert found in said


# --- no engine, no image ---------------------------------------------------------------------------------------------


def test_an_engine_that_does_not_work_is_a_sentence_and_exit_code_3(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = call(environment, "hello-gbdx", "--output", tmp_path / "out", ENGINE="no-such-engine")
    assert done.returncode == 3
    assert "engine: ENGINE=no-such-engine does not work: expected a command that builds images" in done.stderr
    assert done.stderr.splitlines()[-1] == "run: no container engine: see the lines above"
    assert list(tmp_path.iterdir()) == []


def test_a_container_test_without_an_engine_fails_with_a_sentence(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::test_an_image_that_is_not_there"]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "ENGINE": "no-such-engine"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no container engine:" in done.stdout
    assert "engine: ENGINE=no-such-engine does not work" in done.stdout
    assert "1 error" in done.stdout.splitlines()[-1]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_an_image_that_is_not_there(environment: dict[str, str], engine: str, tmp_path: Path) -> None:
    image = "localhost/no-such-image:dev"
    done = call(environment, PROBE, "--image", image, "--output", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr == f"run: expected the image {image} in the engine's store, found none\n"
    assert list(tmp_path.iterdir()) == []


def test_a_task_folder_that_is_no_image_of_this_repository_needs_one_named(
    environment: dict[str, str], engine: str, tmp_path: Path
) -> None:
    done = call(environment, PROBE, "--output", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr.startswith("run: no image is called 'reads-its-limits'; there are: ")


def test_an_output_that_can_not_be_made_is_refused(
    environment: dict[str, str], misbehaving_image: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = call(environment, PROBE, "--image", misbehaving_image, "--output", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"refused: OUTPUT: expected a folder to write in, found {tmp_path}/file (")


# --- what a container gets -------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """A run of the probe: what it found, where its outputs are, and its inputs before and after."""

    facts: dict[str, Any]
    output: Path
    inputs: Path
    before: dict[str, tuple[bytes, int]]


@pytest.fixture(scope="module")
def probe(misbehaving_image: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """One run of the probe, its paths full of what command lines split at."""
    base = tmp_path_factory.mktemp("probe")
    inputs, output = base / 'in, "put": a=b', base / "out, put: c"
    (inputs / "data_in" / "sub folder").mkdir(parents=True)
    (inputs / "data_in" / "sub folder" / "file, one.txt").write_text("theirs")
    (inputs / "ports.json").write_text('{"message": "from the file", "number": "from the file"}')
    before = tree(inputs)
    asked = ("--input", inputs, "--output", output, "--ports", "message=Hi there, n = 5", "--memory", "256m")
    done = call(environment, PROBE, "--image", misbehaving_image, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    return Probe(json.loads((output / "data_out" / "facts.json").read_text()), output, inputs, before)


def test_the_container_runs_as_the_caller_and_never_as_root(probe: Probe) -> None:
    uid = os.getuid() or CONTAINER_UID
    assert probe.facts["status"]["Uid"] == [str(uid)] * 4
    assert "0" not in [*probe.facts["status"]["Gid"], *probe.facts["status"]["Groups"]]


def test_the_container_has_no_capabilities_and_can_gain_none(probe: Probe) -> None:
    status = probe.facts["status"]
    assert (int(status["CapEff"][0], 16), int(status["CapBnd"][0], 16), status["NoNewPrivs"]) == (0, 0, ["1"])


def test_the_container_has_a_read_only_root_and_a_home_to_write_in(probe: Probe) -> None:
    assert probe.facts["root"] == ["ro"]
    assert probe.facts["home"] == "/tmp"


def test_the_container_has_no_network(probe: Probe) -> None:
    assert probe.facts["interfaces"] == ["lo"]


def test_the_container_has_the_memory_that_was_asked_for(probe: Probe) -> None:
    assert probe.facts["memory"] == [256 * 2**20]


def test_inputs_are_where_the_contract_says_whatever_their_path(probe: Probe) -> None:
    found = ["input/data_in", "input/data_in/sub folder", "input/data_in/sub folder/file, one.txt", "input/ports.json"]
    assert probe.facts["inputs"] == found


def test_port_values_of_the_command_line_go_before_those_of_the_file(probe: Probe) -> None:
    assert probe.facts["ports"] == {"message": "Hi there, n = 5", "number": "from the file"}


def test_inputs_are_the_same_after_the_run(probe: Probe) -> None:
    assert tree(probe.inputs) == probe.before


def test_outputs_belong_to_the_caller(probe: Probe) -> None:
    assert {path.lstat().st_uid for path in (probe.output, *probe.output.rglob("*"))} == {os.getuid()}


def test_the_record_says_what_was_run_on_what(probe: Probe, misbehaving_image: str, engine: str) -> None:
    record = json.loads((probe.output / "run.json").read_text())
    identity = build_images.image_ids(engine, misbehaving_image)[0]
    assert (record["task"], record["image"], record["image_id"]) == ("reads-its-limits", misbehaving_image, identity)
    assert record["inputs"] == {"data_in": str(probe.inputs / "data_in")}
    assert record["ports"] == probe.facts["ports"]
    assert json.loads((probe.output / "status.json").read_text()) == {"status": "success"}


# --- where outputs go ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what hello-gbdx needs, with a runs/ of its own."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def copy_checkout(folder: Path) -> Path:
    """Copies the Makefile, ci/ without its tests, hello-gbdx and the probe."""
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("ci", "hello-gbdx"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("tests", ".*_cache", "__pycache__"))
    return folder


def make_run(checkout: Path, environment: dict[str, str], *settings: str) -> subprocess.CompletedProcess[str]:
    """`make run` with settings as a shell hands them to it."""
    command = ["make", "--no-print-directory", "run", *settings]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ("message=Hi there, n = 5", "Hi there, n = 5"),
        (
            'message=It\'s $5 $HOME $$ $(id) `id` "now" \\ #1; %s & *',
            'It\'s $5 $HOME $$ $(id) `id` "now" \\ #1; %s & *',
        ),
        ('{"message": "a message=b"}', "a message=b"),
        ("message=", ""),
        ("", "This is my message!"),
    ],
)
def test_make_run_takes_port_values_exactly_as_they_are(
    checkout: Path, environment: dict[str, str], tmp_path: Path, ports: str, message: str
) -> None:
    done = make_run(checkout, environment, "TASK=hello-gbdx", f"PORTS={ports}", f"OUTPUT={tmp_path}/out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "data_out" / "out.txt").read_text() == f"data_file.txt\n{message}"


def test_without_output_each_run_gets_a_folder_and_latest_points_to_the_last(
    checkout: Path, environment: dict[str, str]
) -> None:
    runs = checkout / "runs" / "hello-gbdx"
    for number in (1, 2):
        done = make_run(checkout, environment, "TASK=hello-gbdx", f"PORTS=message={number}")
        said, _, place = done.stdout.rstrip().rpartition(", outputs in ")
        assert said.startswith("hello-gbdx: success in ")
        assert (runs / "latest").resolve() == checkout / place
        assert (runs / "latest" / "data_out" / "out.txt").read_text() == f"data_file.txt\n{number}"
    kept = {path.name for path in runs.iterdir()}
    assert len(kept) == 3, "two runs and the link"
    assert {len(name) for name in kept - {"latest"}} <= {17, 19}, "2026-01-31-235959, and -2 within a second"


def test_an_empty_output_folder_is_filled_and_then_no_longer_taken(
    environment: dict[str, str], misbehaving_image: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    asked = (PROBE, "--image", misbehaving_image, "--output", output)
    assert call(environment, *asked).returncode == 0
    before = tree(output)
    assert "data_out/facts.json" in before
    assert call(environment, *asked).returncode == 2
    assert tree(output) == before


def test_failed_runs_keep_their_outputs_apart_one_beside_the_other(
    environment: dict[str, str], misbehaving_image: str, tmp_path: Path
) -> None:
    asked = (FIXTURES / "output-is-file", "--image", misbehaving_image, "--output", tmp_path / "out")
    for number, name in ((1, "out.failed"), (2, "out.failed-2")):
        done = call(environment, *asked)
        assert done.returncode == 4
        assert done.stdout.rstrip().endswith(f"what it left is in {tmp_path}/{name}")
        assert len(list(tmp_path.iterdir())) == number
    assert {path.name for path in (tmp_path / "out.failed").iterdir()} == {"data_out", "run.json", "status.json"}
    assert json.loads((tmp_path / "out.failed-2" / "run.json").read_text())["verdict"] == "broken contract"


def a_run(output: Path, **options: Any) -> run_task.Run:
    """A run as it is planned, for the functions that look at its end."""
    asked = argparse.Namespace(**{"memory": None, "disk": None, **options})
    return run_task.Run("task", {"name": "task"}, "image", {}, {}, output, asked)


@pytest.mark.parametrize(("state", "name"), [("success", "out"), ("failed", "out.failed")])
def test_two_runs_that_end_with_one_name_keep_both_outputs(tmp_path: Path, state: str, name: str) -> None:
    places = []
    for number in (1, 2, 3):
        (tmp_path / "staging").mkdir()
        (tmp_path / "staging" / "number.txt").write_text(str(number))
        places.append(run_task.place(tmp_path / "staging", a_run(tmp_path / "out"), Verdict(state)))
    assert [path.name for path in places] == [name, f"{name}-2", f"{name}-3"]
    assert [(path / "number.txt").read_text() for path in places] == ["1", "2", "3"]


def test_a_child_killed_for_its_memory_is_a_warning_when_the_task_copes(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "status.json").write_text('{"status": "success"}')
    run = a_run(tmp_path / "out", memory=64 * 2**20)
    verdict, warnings = run_task.decide(run, tmp_path, {"exit_code": 0, "out_of_memory": True}, None)
    assert verdict.state == "success"
    assert warnings == ["a process of the task ran out of memory, over the limit of 64 MB (MEMORY)"]
    (tmp_path / "status.json").write_text('{"status": "failed"}')
    verdict, warnings = run_task.decide(run, tmp_path, {"exit_code": 1, "out_of_memory": True}, None)
    assert verdict == Verdict("over limit", "out of memory, over the limit of 64 MB (MEMORY)")
    assert warnings == []


def test_the_last_line_is_printed_whatever_the_terminal_takes(
    environment: dict[str, str], misbehaving_image: str, tmp_path: Path
) -> None:
    asked = (PROBE, "--image", misbehaving_image, "--output", tmp_path / "été")
    done = call(environment, *asked, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.endswith("\\xe9t\\xe9\n")


# --- canceled --------------------------------------------------------------------------------------------------------


# Ctrl-C then works as on a terminal, also where the tests themselves run in the background.
ATTENTIVE = """import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def sleeper(environment: dict[str, str], misbehaving_image: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run, just started and in a process group of its own, of a task that says `ready` and sleeps for an hour."""
    command = [sys.executable, "-c", ATTENTIVE, str(SCRIPT), str(FIXTURES / "outlives-timeout")]
    process = subprocess.Popen(
        [*command, "--image", misbehaving_image, "--output", str(tmp_path / "out"), "--grace", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    # Asked to end, it takes its container along; the streams are closed unread, as the container may hold them too.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)
    for stream in (process.stdout, process.stderr):
        assert stream
        stream.close()


def is_canceled(process: subprocess.Popen[str], place: Path) -> None:
    """What a canceled run ends with: the verdict, its exit code, and the outputs set apart."""
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, printed + errors
    last = printed.splitlines()[-1]
    assert last.startswith("outlives-timeout: canceled (exit code 130) in ")
    assert last.endswith(f"stopped by the caller; what it left is in {place}/out.failed")
    assert [path.name for path in place.iterdir()] == ["out.failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_the_caller_cancels_the_run(
    sleeper: subprocess.Popen[str],
    engine: str,
    containers_at: Callable[[Path], list[str]],
    tmp_path: Path,
    number: int,
) -> None:
    assert sleeper.stdout
    assert sleeper.stdout.readline() == "ready\n"
    (container,) = containers_at(tmp_path)
    kind = subprocess.check_output([engine, "inspect", "--format", "{{.HostConfig.LogConfig.Type}}", container])
    assert kind == b"none\n", "a task that prints without end must not fill the engine's disk"
    os.killpg(sleeper.pid, number)
    is_canceled(sleeper, tmp_path)
    assert eventually(lambda: containers_at(tmp_path) == [])
    status = json.loads((tmp_path / "out.failed" / "status.json").read_text())
    assert status["reason"].startswith("terminated by the worker"), "the task was asked before it was killed"


def test_a_run_can_be_canceled_before_its_container_is_there(
    sleeper: subprocess.Popen[str], containers_at: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    # The engine's client is the runner's child from the moment that the container is asked for.
    children = Path(f"/proc/{sleeper.pid}/task/{sleeper.pid}/children")

    def client() -> bool:
        lines = [Path(f"/proc/{child}/cmdline") for child in children.read_text().split()]
        return any(b"--init" in line.read_bytes() for line in lines if line.exists())

    assert eventually(client)
    os.killpg(sleeper.pid, signal.SIGINT)
    is_canceled(sleeper, tmp_path)
    assert eventually(lambda: containers_at(tmp_path) == [])


def test_a_run_whose_engine_client_dies_takes_its_container_along(
    sleeper: subprocess.Popen[str], engine: str, containers_at: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    assert sleeper.stdout
    assert sleeper.stdout.readline() == "ready\n"
    (client,) = Path(f"/proc/{sleeper.pid}/task/{sleeper.pid}/children").read_text().split()
    os.kill(int(client), signal.SIGKILL)
    _, errors = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 3
    assert errors == f"run: {engine} ended before its container did; the container is removed\n"
    assert eventually(lambda: containers_at(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []


# --- an ordinary user ------------------------------------------------------------------------------------------------


def someone(engine: str) -> dict[str, Any]:
    """subprocess's arguments for an ordinary user, who may use the engine; empty when the tests' own user is one."""
    if os.getuid():
        return {}
    socket = Path("/var/run/docker.sock")
    if "podman" in Path(engine).name or not socket.exists():
        pytest.skip("root's Podman is no ordinary user's: start the tests as that user")
    return {"user": ORDINARY_UID, "group": ORDINARY_UID, "extra_groups": [socket.stat().st_gid]}


@pytest.fixture
def persons_folder() -> Iterator[Path]:
    """A folder that belongs to the ordinary user; pytest's own can't be entered by others."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def give(folder: Path, account: dict[str, Any]) -> None:
    """Makes the ordinary user the owner of a folder and all in it."""
    if account:
        subprocess.run(["chown", "-R", f"{account['user']}:{account['group']}", folder], check=True)


def python_of(account: dict[str, Any]) -> str:
    """A Python that the ordinary user can start: root's own may lie in root's home."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([python, "-c", ""], cwd="/", check=True, capture_output=True, **account)
            return python
        except OSError:
            continue
    raise AssertionError("expected a Python that everybody can start, found none")


@pytest.mark.parametrize("task", ["reads-its-limits", "output-locked", "output-sets-uid"])
def test_an_ordinary_user_gets_outputs_of_his_own(
    engine: str, misbehaving_image: str, environment: dict[str, str], persons_folder: Path, task: str
) -> None:
    account = someone(engine)
    uid = account.get("user", os.getuid())
    copy_checkout(persons_folder)
    shutil.copytree(FIXTURES / task, persons_folder / task)
    give(persons_folder, account)
    command = [python_of(account), "ci/run_task.py", f"./{task}", "--image", misbehaving_image, "--output", "made/out"]
    home = {"HOME": str(persons_folder)}
    done = subprocess.run(
        command, cwd=persons_folder, env={**environment, **home}, capture_output=True, text=True, check=False, **account
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (persons_folder / "made").iterdir()] == ["out"]
    made = [persons_folder / "made" / "out", *(persons_folder / "made" / "out").rglob("*")]
    assert {path.lstat().st_uid for path in made} == {uid}
    assert [path for path in made if path.lstat().st_mode & 0o6000] == []
    assert [path for path in made if path.lstat().st_mode & 0o400 == 0] == []
    if task == "reads-its-limits":
        facts = json.loads((persons_folder / "made" / "out" / "data_out" / "facts.json").read_text())
        assert facts["status"]["Uid"] == [str(uid)] * 4


# --- images ----------------------------------------------------------------------------------------------------------


def test_a_run_builds_what_its_image_is_built_from(
    engine: str, hello_image: str, environment: dict[str, str], tmp_path: Path
) -> None:
    checkout = copy_checkout(tmp_path)
    parent = checkout / "base-images" / "test-parent"
    parent.mkdir(parents=True)
    (parent / "Dockerfile").write_text("FROM debian:trixie-slim\nENV PARENT=there\n")
    task = checkout / "test-child"
    task.mkdir()
    (task / "Dockerfile").write_text("ARG REGISTRY\nARG TAG\nFROM ${REGISTRY}/test-parent:${TAG}\n")
    script = 'test "$PARENT" = there && echo "{\\"status\\": \\"success\\"}" > /mnt/work/status.json'
    container = {"type": "DOCKER", "command": f"bash -c '{script}'"}
    definition = {"name": "test-child", "containerDescriptors": [container]}
    (task / "test-child_definition.json").write_text(json.dumps(definition))
    try:
        done = make_run(checkout, environment, "TASK=test-child")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        for name in subprocess.check_output(command, text=True).split():
            if "/test-child:" in name or "/test-parent:" in name:
                subprocess.run([engine, "rmi", name], capture_output=True, check=True)
