#!/usr/bin/env python3
"""Runs one task once, as the platform's worker did, and tells what became of it.

    python3 ci/run_task.py hello-gbdx
    python3 ci/run_task.py hello-gbdx --input my_inputs --output my_outputs --ports 'message=Hi there'

`make run` calls this with TASK, INPUT, OUTPUT and PORTS from the environment. The container gets a fresh /mnt/work,
runs as the caller's uid, and sees its inputs and its own root file system read-only, no network and no capabilities.
Memory, processes, disk and time are limited. The last line has the verdict, the seconds, and where the outputs are.

Exit codes: 0 success; 1 the task failed; 2 refused, nothing was run; 3 no engine or no image; 4 the task broke the
contract; 5 over a limit of memory or disk; 124 over its timeout; 130 canceled.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import errno
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import build_images
from card_options import asked_device, card_options, card_problem
from image_graph import ROOT, GraphError, lineage, read_graph, task_folders
from task_inputs import RefusedError, prepare, read_definition, unreadable
from task_verdict import EXIT_CODES, BrokenContractError, Verdict, check_outputs, judge, printable, read_status

# The uid of the images' own user: stands in for root, who needs no root in a container.
CONTAINER_UID = 10001
# The platform's own default, in seconds, for a definition without a timeout.
DEFAULT_TIMEOUT = 7200
MAX_WARNINGS = 20
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Run:
    """One run as it was asked for, everything checked."""

    name: str
    definition: dict[str, Any]
    image: str
    values: dict[str, Any]
    folders: dict[str, Path]
    output: Path
    options: argparse.Namespace

    @property
    def timeout(self) -> int:
        """Seconds that the task may take."""
        properties = self.definition.get("properties") or {}
        return int(properties.get("timeout") or DEFAULT_TIMEOUT)


def size(text: str) -> int:
    """`512m` -> bytes; units are k, m, g and t, powers of 1024."""
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not number.isdigit() or unit not in UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 512m or 8g, found {text!r}")
    return int(number) * UNITS[unit]


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Command-line options; each has its default from the environment, as make sets it."""
    environment = {name: value for name, value in os.environ.items() if value}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("task", nargs="?", default=environment.get("TASK", ""), help="name of a task, or path of its folder")
    add("--input", type=Path, default=environment.get("INPUT"), help="folder of inputs (default: its test_inputs)")
    add("--output", type=Path, default=environment.get("OUTPUT"), help="new folder (default: runs/<task>/<time>)")
    add("--ports", default=environment.get("PORTS", ""), help="string ports: 'name=value ...', or JSON")
    add("--image", help="image to run (default: the task's own, built when needed)")
    add("--network", default=environment.get("NETWORK", "none"), help="the engine's network (default: none)")
    add("--memory", type=size, default=environment.get("MEMORY"), help="default: three quarters of the machine's")
    add("--disk", type=size, default=environment.get("DISK"), help="outputs at most (default: what is free, less 1g)")
    add("--temporary", type=size, default="2g", help="size of /tmp, which is memory (default: 2g)")
    add("--processes", type=int, default=1024, help="processes and threads at most (default: 1024)")
    add("--timeout", type=int, help="seconds (default: the definition's)")
    add("--shell", action="store_true", help="open a shell in the container instead of running the task")
    add("--grace", type=int, default=10, help="seconds between SIGTERM and SIGKILL (default: 10)")
    return parser.parse_args(arguments)


# --- what is asked for ---------------------------------------------------------------------------------------------


def task_folder(task: str) -> Path:
    """The folder of a task, by name or by path; a sentence with the tasks there are when it is neither."""
    if task and ("/" in task or task.startswith(".")) and Path(task).is_dir():
        return Path(task).resolve()
    folders = {folder.name: folder for folder in task_folders()}
    if task in folders:
        return folders[task]
    found = f"no task is called {task!r}" if task else "no task is named"
    raise RefusedError([f"{found}; for example: make run TASK=hello-gbdx. Tasks: {', '.join(folders)}"])


def output_folder(asked: Path | None, name: str) -> Path:
    """Where the outputs go: a folder that isn't there yet, or is empty."""
    if asked is None:
        stamp = time.strftime("%Y-%m-%d-%H%M%S")
        candidates = (ROOT / "runs" / name / (stamp + suffix) for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
        return next(path for path in candidates if not path.exists() and not failed_folder(path).exists())
    asked = asked.absolute()
    if asked.is_symlink() or (asked.exists() and not (asked.is_dir() and not any(asked.iterdir()))):
        raise RefusedError([f"OUTPUT: expected a new or an empty folder, found {asked} with something in it"])
    return asked


def failed_folder(output: Path) -> Path:
    """Where the leavings of a failed run go, beside the place that good outputs would have had."""
    return output.with_name(output.name + ".failed")


def plan(options: argparse.Namespace) -> Run:
    """Checks everything that can be checked before anything runs.

    Raises:
        RefusedError: with all problems at once.
    """
    folder = task_folder(options.task)
    definition = read_definition(folder)
    problems: list[str] = []
    values: dict[str, Any] = {}
    folders: dict[str, Path] = {}
    output = Path()
    samples = folder / "test_inputs"
    try:
        values, folders = prepare(definition, options.input or (samples if samples.is_dir() else None), options.ports)
    except RefusedError as error:
        problems += error.problems
    try:
        output = output_folder(options.output, definition["name"])
    except RefusedError as error:
        problems += error.problems
    if user() is None and (closed := unreadable(folders)):
        shown = ", ".join(closed[:3]) + (" ..." if len(closed) > 3 else "")
        problems.append(
            f"INPUT: root runs tasks as uid {CONTAINER_UID}, which can't read {shown}: chmod -R a+rX, or use sudo"
        )
    if no_card := card_problem(definition, asked_device()):
        problems.append(no_card)
    if problems:
        raise RefusedError(problems)
    image = options.image or build_images.reference(folder.name)
    return Run(definition["name"], definition, image, values, folders, output, options)


# --- the container -------------------------------------------------------------------------------------------------


def user() -> tuple[int, int] | None:
    """The caller's uid and gid: behind sudo the person's own, None for root itself."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and os.environ.get("SUDO_UID"):
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID") or 0)
    return (uid, gid) if uid else None


def lay_out(run: Run, staging: Path) -> Path:
    """A fresh /mnt/work as the platform made it, owned by the container's user; returns its folder here."""
    work = staging / "work"
    (work / "output").mkdir(parents=True)
    (work / "input").mkdir()
    for port in run.folders:
        (work / "input" / port).mkdir()
    (work / "input" / "ports.json").write_text(json.dumps(run.values, indent=2) + "\n", encoding="utf-8")
    (work / "gbdx_runtime.json").write_text("{}\n", encoding="utf-8")
    if os.getuid() == 0:
        give(work, *(user() or (CONTAINER_UID, CONTAINER_UID)))
    return work


# The system's own tools change and remove trees: they follow no link and go to any depth, whatever a task has nested.
def give(folder: Path, uid: int, gid: int) -> None:
    """Makes a user the owner of everything in a folder, links themselves included."""
    subprocess.run(["chown", "-hR", f"{uid}:{gid}", folder], check=True)


def open_up(folder: Path) -> None:
    """Lets the owner into everything that a task left, closed or not, and drops set-id bits."""
    subprocess.run(["chmod", "-R", "u+rwX,ug-s,o-t", folder], capture_output=True, check=False)


def mount(source: Path, target: str, read_only: bool) -> list[str]:
    """The engine's option for one bind mount; written as CSV, so that a comma in a path is just a comma."""
    text = io.StringIO()
    fields = ["type=bind", f"source={source.resolve()}", f"target={target}"] + (["readonly"] if read_only else [])
    csv.writer(text, lineterminator="").writerow(fields)
    return ["--mount", text.getvalue()]


def container_command(engine: str, run: Run, work: Path, container: str, *words: str) -> list[str]:
    """The engine's whole command line for a run of `words`, the definition's command when there are none."""
    options = run.options
    memory = str(options.memory or physical_memory() * 3 // 4)
    uid, gid = user() or (CONTAINER_UID, CONTAINER_UID)
    podman_user = ["--userns", "keep-id"] if "podman" in Path(engine).name and os.getuid() else []
    mounts = mount(work, "/mnt/work", False) + mount(work / "input", "/mnt/work/input", True)
    for port, folder in run.folders.items():
        mounts += mount(folder, f"/mnt/work/input/{port}", True)
    descriptor = run.definition["containerDescriptors"][0]
    return [
        *(engine, "run", "--name", container, "--label", f"gbdx.task={run.name}", "--init", "--log-driver", "none"),
        *("--user", f"{uid}:{gid}", *podman_user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(("--security-opt", "label=disable") if os.path.exists("/sys/fs/selinux/enforce") else ()),
        *card_options(engine, run.definition, asked_device()),
        *("--network", options.network, "--pids-limit", str(options.processes)),
        *("--memory", memory, "--memory-swap", memory),
        *("--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,exec,mode=1777,size={options.temporary}"),
        *("--env", "HOME=/tmp", *mounts, *(("--interactive", "--tty") if words else ())),
        *(run.image, *(words or shlex.split(descriptor.get("command") or ""))),
    ]


def used_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk; what vanishes meanwhile doesn't count."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
    return total


def over_disk(work: Path, limit: int | None) -> str:
    """A sentence when the outputs have grown over their limit, or the disk is nearly full; else empty."""
    free = shutil.disk_usage(work).free
    if limit is None:
        return f"only {free >> 20} MB are left on the disk of the outputs" if free < 2**30 else ""
    used = used_bytes(work)
    return f"the outputs take {used >> 20} MB, over the limit of {limit >> 20} MB (DISK)" if used > limit else ""


class Guard(threading.Thread):
    """Watches a running container and stops it, TERM first, KILL later: over its time, over its disk, or canceled."""

    def __init__(self, engine: str, container: str, run: Run, work: Path) -> None:
        super().__init__(daemon=True)
        self.engine, self.container, self.run_asked, self.work = engine, container, run, work
        self.client: subprocess.Popen[bytes] | None = None
        self.woken = threading.Event()
        self.canceled = False
        self.verdict: Verdict | None = None

    def watch(self, client: subprocess.Popen[bytes]) -> None:
        """Starts to look after the container that an engine's client runs."""
        self.client = client
        self.start()

    def run(self) -> None:
        """Looks once a second, or more rarely where looking at the disk takes long."""
        timeout = self.run_asked.options.timeout or self.run_asked.timeout
        deadline = time.monotonic() + timeout
        pause = 0.0
        while not self.woken.wait(min(max(pause, 1.0), max(deadline - time.monotonic(), 0))):
            looked = time.monotonic()
            if looked >= deadline:
                return self.stop(Verdict("timedout", f"over its timeout of {timeout} s"))
            if full := over_disk(self.work, self.run_asked.options.disk):
                return self.stop(Verdict("over limit", full))
            pause = 20 * (time.monotonic() - looked)
        if self.canceled and self.running():
            self.stop(Verdict("canceled", "stopped by the caller"))

    def cancel(self, signal_number: int, frame: object) -> None:
        """Handles a signal: Ctrl-C, SIGTERM, or the end of the terminal."""
        self.canceled = True
        self.woken.set()

    def running(self) -> bool:
        """Whether the engine's client, and so the container, has not ended yet."""
        return self.client is not None and self.client.poll() is None

    def stop(self, verdict: Verdict) -> None:
        """Ends the container for a reason."""
        self.verdict = verdict
        command = [self.engine, "stop", "--time", str(self.run_asked.options.grace), self.container]
        # Again and again: a container that the engine is only just starting can't be stopped yet.
        while self.running():
            subprocess.run(command, capture_output=True, start_new_session=True, check=False)
            time.sleep(0.05)


def run_container(engine: str, run: Run, work: Path, container: str) -> tuple[dict[str, Any], Verdict | None]:
    """Runs the container to its end, its output streaming through.

    Returns:
        The engine's account of the end (exit code, killed for memory), and the verdict if it was stopped from here.
    """
    command = container_command(engine, run, work, container)
    guard = Guard(engine, container, run, work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, guard.cancel)
    # In a session of its own, so that Ctrl-C reaches the container once, through the guard.
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        guard.watch(client)
        client.wait()
        guard.woken.set()
        guard.join()
        template = (
            '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}},'
            '"running":{{.State.Running}}}'
        )
        account = subprocess.run(
            [engine, "inspect", "--format", template, container], capture_output=True, text=True, check=False
        )
    finally:
        guard.woken.set()
        client.kill()
        remove(engine, container)
    if account.returncode:
        raise build_images.BuildError(f"the engine could not run {run.image}: {account.stderr.strip()}")
    found: dict[str, Any] = json.loads(account.stdout)
    if found["error"]:
        raise build_images.BuildError(f"the engine could not start {run.image}: {found['error']}")
    if found["running"]:
        raise build_images.BuildError(f"{engine} ended before its container did; the container is removed")
    return found, guard.verdict


def remove(engine: str, container: str) -> None:
    """Removes a container. Nobody waits for this: what is left of it is the engine's to remove."""
    subprocess.Popen(
        [engine, "rm", "--force", container],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


# --- the end -------------------------------------------------------------------------------------------------------


def decide(run: Run, work: Path, account: dict[str, Any], stopped: Verdict | None) -> tuple[Verdict, list[str]]:
    """The verdict of a run, and warnings that don't change it."""
    problems, warnings = check_outputs(str(work / "output"), run.definition)
    # The guard looks once a second: a quick task may be over the limit and gone before that.
    full = over_disk(work, run.options.disk) if run.options.disk else ""
    if stopped or full:
        return stopped or Verdict("over limit", full), warnings
    verdict = judge(account["exit_code"], str(work / "status.json"), problems)
    if account["out_of_memory"]:
        limit = f"the limit of {(run.options.memory or physical_memory() * 3 // 4) >> 20} MB (MEMORY)"
        if verdict.state != "success":
            return Verdict("over limit", f"out of memory, over {limit}"), warnings
        # One of its children was killed, and the task coped.
        warnings.append(f"a process of the task ran out of memory, over {limit}")
    return verdict, warnings


def result_folder(work: Path) -> Path:
    """The folder of outputs, the worker's own names in it free; a new one when the task put something in its place."""
    result = work / "output"
    if result.is_symlink() or not result.is_dir():
        result = work.parent / "output"
        result.mkdir()
    subprocess.run(["rm", "-rf", result / "status.json", result / "run.json"], check=True)
    return result


def publish(run: Run, staging: Path, verdict: Verdict, seconds: float, image_id: str) -> Path:
    """Moves what the task left to its place in one step, with status.json and a record of the run beside it."""
    work, result = staging / "work", result_folder(staging / "work")
    with contextlib.suppress(BrokenContractError):
        read_status(str(work / "status.json"))
        shutil.move(work / "status.json", result / "status.json")
    record = {
        "task": run.name,
        "image": run.image,
        "image_id": image_id,
        "verdict": verdict.state,
        "exit_code": verdict.exit_code,
        "reason": verdict.reason,
        "seconds": round(seconds, 3),
        "ports": run.values,
        "inputs": {port: str(folder) for port, folder in run.folders.items()},
    }
    (result / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if os.getuid() == 0:
        give(result, *(user() or (0, 0)))
    return place(result, run, verdict)


def place(result: Path, run: Run, verdict: Verdict) -> Path:
    """Renames the finished folder to where it belongs: never over an earlier one."""
    wanted = run.output if verdict.state == "success" else failed_folder(run.output)
    candidates = (wanted.with_name(wanted.name + suffix) for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    destination = next(path for path in candidates if renamed(result, path))
    latest = ROOT / "runs" / run.name / "latest"
    if verdict.state == "success" and destination.parent == latest.parent:
        new = latest.with_name(f".latest-{secrets.token_hex(4)}")
        new.symlink_to(destination.name)
        new.replace(latest)
    return destination


def renamed(result: Path, destination: Path) -> bool:
    """Whether a folder could get its name: not if there is anything but an empty folder, which another run may make."""
    try:
        result.rename(destination)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EBUSY):
            raise
        return False
    return True


def shown(path: Path) -> str:
    """A path as short as it can be: relative when it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def image_id(engine: str, run: Run) -> str:
    """Builds the task's image when it has to be, and returns its id.

    Raises:
        build_images.BuildError: no such image, or it can't be built.
    """
    if not run.options.image:
        arguments = build_images.asked_arguments()
        images = read_graph(arguments=arguments)
        for image in lineage(build_images_name(run), images):
            build_images.ensure(engine, image.name, images, arguments)
    found = build_images.image_ids(engine, run.image)[0]
    if found is None:
        raise build_images.BuildError(f"expected the image {run.image} in the engine's store, found none")
    return found


def build_images_name(run: Run) -> str:
    """The name of the image folder that a run's image is built from."""
    return run.image.rsplit("/", 1)[-1].split(":")[0]


@contextlib.contextmanager
def staging_folder(run: Run) -> Iterator[Path]:
    """A folder beside the destination, so that the last step is a rename; its name says that it isn't finished."""
    parent = run.output.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{run.output.name}.unfinished-", dir=parent))
    except OSError as error:
        raise RefusedError([f"OUTPUT: expected a folder to write in, found {parent} ({error.strerror})"]) from None
    try:
        yield staging
    finally:
        open_up(staging)
        subprocess.run(["rm", "-rf", staging], capture_output=True, check=False)


def open_shell(run: Run) -> int:
    """A shell in a container just like the task's, /mnt/work laid out as for a run; all of it goes with the shell."""
    engine = build_images.find_engine()
    image_id(engine, run)
    with staging_folder(run) as staging:
        work = lay_out(run, staging)
        print(f"{run.name}: the task's command is: {run.definition['containerDescriptors'][0].get('command')}")
        container = f"gbdx-{run.name}-{secrets.token_hex(4)}"
        command = container_command(engine, run, work, container, "bash")
        try:
            return subprocess.run(command, check=False).returncode
        finally:
            subprocess.run([engine, "rm", "--force", container], capture_output=True, check=False)


def execute(run: Run) -> Verdict:
    """Runs a task and prints the line that says what became of it."""
    engine = build_images.find_engine()
    identity = image_id(engine, run)
    with staging_folder(run) as staging:
        work = lay_out(run, staging)
        start = time.monotonic()
        account, stopped = run_container(engine, run, work, f"gbdx-{run.name}-{secrets.token_hex(4)}")
        seconds = time.monotonic() - start
        open_up(work)
        verdict, warnings = decide(run, work, account, stopped)
        destination = publish(run, staging, verdict, seconds, identity)
    for warning in warnings[:MAX_WARNINGS]:
        print(f"{run.name}: warning: {printable(warning)}")
    if len(warnings) > MAX_WARNINGS:
        print(f"{run.name}: warning: and {len(warnings) - MAX_WARNINGS} more of these")
    if verdict.state == "success":
        print(f"{run.name}: success in {seconds:.1f} s, outputs in {shown(destination)}")
    else:
        reason = f"{verdict.state} (exit code {verdict.exit_code}) in {seconds:.1f} s: {verdict.reason}"
        print(f"{run.name}: {reason}; what it left is in {shown(destination)}")
    return verdict


def main(arguments: list[str]) -> int:
    """One run; the exit codes are those of the module's docstring."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a task's words must not fail to print, whatever the terminal takes
            stream.reconfigure(errors="backslashreplace")
    try:
        run = plan(parse_arguments(arguments))
        return open_shell(run) if run.options.shell else execute(run).exit_code
    except KeyboardInterrupt:
        return EXIT_CODES["canceled"]
    except RefusedError as error:
        print("\n".join(f"refused: {problem}" for problem in error.problems), file=sys.stderr)
        return EXIT_CODES["refused"]
    except (build_images.BuildError, GraphError) as error:
        print(f"run: {error}", file=sys.stderr)
        return EXIT_CODES["no engine"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
