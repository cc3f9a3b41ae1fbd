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
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import stat
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
from image_graph import ROOT, GraphError, read_graph, task_folders
from task_inputs import RefusedError, prepare, read_definition, unreadable
from task_verdict import EXIT_CODES, BrokenContractError, Verdict, check_outputs, judge, printable, read_status

# The uid of the images' own user: stands in for root, who needs no root in a container.
CONTAINER_UID = 10001
# The platform's own default, in seconds, for a definition without a timeout.
DEFAULT_TIMEOUT = 7200
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


def give(folder: Path, uid: int, gid: int) -> None:
    """Makes a user the owner of everything in a folder, links themselves included; set-id bits are dropped."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & 0o777)


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
    """Watches a running container and stops it, TERM first, KILL later, when it is over its time or its disk."""

    def __init__(self, engine: str, container: str, run: Run, work: Path) -> None:
        super().__init__(daemon=True)
        self.engine, self.container, self.run_asked, self.work = engine, container, run, work
        self.finished = threading.Event()
        self.verdict: Verdict | None = None

    def run(self) -> None:
        """Looks once a second, or more rarely where looking at the disk takes long."""
        timeout = self.run_asked.options.timeout or self.run_asked.timeout
        deadline = time.monotonic() + timeout
        pause = 0.0
        while not self.finished.wait(min(max(pause, 1.0), max(deadline - time.monotonic(), 0))):
            looked = time.monotonic()
            if looked >= deadline:
                return self.stop(Verdict("timedout", f"over its timeout of {timeout} s"))
            if full := over_disk(self.work, self.run_asked.options.disk):
                return self.stop(Verdict("over limit", full))
            pause = 20 * (time.monotonic() - looked)

    def stop(self, verdict: Verdict) -> None:
        """Ends the container, and keeps the first reason for it."""
        self.verdict = self.verdict or verdict
        grace = str(self.run_asked.options.grace)
        subprocess.run([self.engine, "stop", "--time", grace, self.container], capture_output=True, check=False)


def interrupted(signum: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def run_container(engine: str, run: Run, work: Path, container: str) -> tuple[dict[str, Any], Verdict | None]:
    """Runs the container to its end, its output streaming through.

    Returns:
        The engine's account of the end (exit code, killed for memory), and the verdict if it was stopped from here.
    """
    guard = Guard(engine, container, run, work)
    command = container_command(engine, run, work, container)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        # In a session of its own, so that Ctrl-C reaches the container once, through the guard.
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        guard.start()
        try:
            client.wait()
        except KeyboardInterrupt:
            guard.stop(Verdict("canceled", "stopped by the caller"))
            client.wait()
        guard.finished.set()
        guard.join()
        template = (
            '{"exit_code":{{.State.ExitCode}},"out_of_memory":{{.State.OOMKilled}},"error":{{json .State.Error}}}'
        )
        account = subprocess.run(
            [engine, "inspect", "--format", template, container], capture_output=True, text=True, check=False
        )
    finally:
        guard.finished.set()
        # Nobody waits for this: what is left of the container is the engine's to remove.
        subprocess.Popen([engine, "rm", "--force", container], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if account.returncode:
        raise build_images.BuildError(f"the engine could not run {run.image}: {account.stderr.strip()}")
    found: dict[str, Any] = json.loads(account.stdout)
    if found["error"]:
        raise build_images.BuildError(f"the engine could not start {run.image}: {found['error']}")
    return found, guard.verdict


# --- the end -------------------------------------------------------------------------------------------------------


def decide(run: Run, work: Path, account: dict[str, Any], stopped: Verdict | None) -> tuple[Verdict, list[str]]:
    """The verdict of a run, and warnings that don't change it."""
    problems, warnings = check_outputs(str(work / "output"), run.definition)
    if stopped:
        return stopped, warnings
    if account["out_of_memory"]:
        limit = (run.options.memory or physical_memory() * 3 // 4) >> 20
        return Verdict("over limit", f"out of memory, over the limit of {limit} MB (MEMORY)"), warnings
    return judge(account["exit_code"], str(work / "status.json"), problems), warnings


def publish(run: Run, staging: Path, verdict: Verdict, seconds: float, image_id: str) -> Path:
    """Moves what the task left to its place in one step, with status.json and a record of the run beside it."""
    work, result = staging / "work", staging / "work" / "output"
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
    if verdict.state == "success":
        destination = run.output
        if destination.is_dir():
            destination.rmdir()
    else:
        names = (run.output.name + ".failed" + suffix for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
        destination = next(path for name in names if not (path := run.output.with_name(name)).exists())
    result.rename(destination)
    latest = ROOT / "runs" / run.name / "latest"
    if verdict.state == "success" and destination.parent == latest.parent:
        with contextlib.suppress(FileNotFoundError):
            latest.unlink()
        latest.symlink_to(destination.name)
    return destination


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
        arguments = {"REGISTRY": os.environ.get("REGISTRY") or "localhost", "TAG": os.environ.get("TAG") or "dev"}
        build_images.ensure(engine, build_images_name(run), read_graph(arguments=arguments), arguments)
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
    run.output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{run.output.name}.unfinished-", dir=run.output.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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
        verdict, warnings = decide(run, work, account, stopped)
        destination = publish(run, staging, verdict, seconds, identity)
    for warning in warnings:
        print(f"{run.name}: warning: {printable(warning)}")
    if verdict.state == "success":
        print(f"{run.name}: success in {seconds:.1f} s, outputs in {shown(destination)}")
    else:
        reason = f"{verdict.state} (exit code {verdict.exit_code}) in {seconds:.1f} s: {verdict.reason}"
        print(f"{run.name}: {reason}; what it left is in {shown(destination)}")
    return verdict


def main(arguments: list[str]) -> int:
    """One run; the exit codes are those of the module's docstring."""
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
