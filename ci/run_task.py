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
import errno
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_images
from card_options import asked_device, card_problem
from hardened_container import CONTAINER_UID, default_memory, give, over_disk, size
from image_graph import ROOT, GraphError, image_name, task_folders
from task_container import Run, container_command, lay_out, open_up, run_container, user
from task_inputs import RefusedError, prepare, read_definition, unreadable
from task_verdict import EXIT_CODES, BrokenContractError, Verdict, check_outputs, judge, printable, read_status

MAX_WARNINGS = 20


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
        limit = f"the limit of {(run.options.memory or default_memory()) >> 20} MB (MEMORY)"
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
        build_images.bring_up_to_date(engine, [image_name(run.image)])
    found = build_images.image_ids(engine, run.image)[0]
    if found is None:
        raise build_images.BuildError(f"expected the image {run.image} in the engine's store, found none")
    return found


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
