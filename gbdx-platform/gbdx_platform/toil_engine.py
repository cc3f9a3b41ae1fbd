"""Runs a CWL workflow with Toil: on one machine, or on a cluster by the arguments that are passed to it.

Toil is a program of its own here. Where its workers share the service's folder of state, the folders that tasks leave
in it tell what has begun and what has ended, and a task is judged there as it is with cwltool. With a job store
elsewhere (`--jobStore`) only the end of the workflow tells it, and what came back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbdx_platform import containers
from gbdx_platform.cwl_tool import (
    EXIT_CODE,
    EXIT_FILE,
    MARGIN,
    STATUS,
    STATUS_FILE,
    STDERR,
    STDERR_FILE,
    STDOUT,
    STDOUT_FILE,
    STRINGS_FILE,
    TIMED_OUT,
    is_string,
    output_ports,
    port_ids,
)
from gbdx_platform.cwl_workflow import Step, source_of
from gbdx_platform.settings import Settings
from gbdx_platform.task_verdict import HALF_PAIR, Verdict, judge, port_problems, printable
from gbdx_platform.verdicts import Watch, left, work_verdict

STOP_SECONDS = 30
# Stands for a workflow's id in --jobStore.
WORKFLOW_ID = "{workflow}"
# What a batch system's own client is called, and those whose nodes share no folder with the service.
CLIENTS = {"slurm": "sbatch", "grid_engine": "qsub", "torque": "qsub", "lsf": "bsub"}
UNSHARED = {"aws_batch": "aws:<region>:<name>", "kubernetes": "aws:<region>:<name>"}


class ToilError(RuntimeError):
    """Toil can't be used as asked, or could not run a workflow; the message is a sentence, or the end of its log."""


# --- what it is asked


def asked(arguments: tuple[str, ...]) -> argparse.Namespace:
    """batchSystem and jobStore out of the arguments for Toil."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--batchSystem", default="single_machine")
    parser.add_argument("--jobStore")
    return parser.parse_known_args(arguments)[0]


def program() -> str:
    """Toil's runner, in the environment of this Python.

    Raises:
        ToilError: it isn't installed.
    """
    found = Path(sys.executable).with_name("toil-cwl-runner")
    if not found.exists():
        raise ToilError("engine: expected the program toil-cwl-runner (gbdx-platform/install.sh --toil), found none")
    return str(found)


def check(arguments: tuple[str, ...], state: Path) -> None:
    """Refuses arguments, and a folder of state, with which no workflow could run.

    Raises:
        ToilError: no Toil; an unknown batch system, or one without its client; a job store or a folder that can't be
            used.
    """
    program()
    if odd := re.search(r"[^\w./,+@=~-]", str(state)):  # in places it takes paths for URLs, and quotes no blanks
        raise ToilError(
            f"state: expected letters, digits and ./,+@=~- in the path for Toil, found {odd[0]!r} in {state}"
        )
    from toil.batchSystems.registry import get_batch_system, get_batch_systems

    wanted = asked(arguments)
    name, store = wanted.batchSystem, wanted.jobStore
    if name not in get_batch_systems():
        raise ToilError(f"--batchSystem: expected one of {', '.join(sorted(get_batch_systems()))}, found {name!r}")
    try:
        get_batch_system(name)
    except ImportError as error:
        raise ToilError(f"--batchSystem={name}: expected the Python package {error.name}, found none") from None
    if name in CLIENTS and not shutil.which(CLIENTS[name]):
        raise ToilError(f"--batchSystem={name}: expected the program {CLIENTS[name]} on PATH, found none")
    if store is None and name in UNSHARED:
        example = f"--jobStore={UNSHARED[name]}-{WORKFLOW_ID}"
        raise ToilError(f"--batchSystem={name}: expected {example}, as its nodes share no folder, found no --jobStore")
    if store is not None and WORKFLOW_ID not in store:
        raise ToilError(f"--jobStore: expected {WORKFLOW_ID} in it, as each workflow needs its own, found {store!r}")


def no_gpu(settings: Settings) -> str | None:
    """Where no GPU was found, None when there is one or only the cluster knows."""
    system = asked(settings.engine_arguments).batchSystem
    if system == "single_machine" and not containers.has_gpu():
        return "on this machine"
    if system == "slurm":
        offered = subprocess.run(["sinfo", "--noheader", "--format=%G"], capture_output=True, text=True, check=False)
        return None if "gpu" in offered.stdout else "in Slurm's partitions (sinfo)"
    return None


def command(folder: Path, arguments: tuple[str, ...]) -> list[str]:
    """Toil's whole command line for one workflow; everything that it writes here stays below the workflow's folder."""
    for name in ("work", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shared = asked(arguments).jobStore is None
    # Files stay where the tasks write them, instead of being copied to a job store and back.
    in_place = ["--jobStore", str(folder / "store"), "--bypass-file-store", "--leave-tmpdir"] if shared else []
    # Ends with this service, even when that is killed.
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    return [
        *(*tied, program(), *in_place, "--workDir", str(folder / "work"), "--outdir", str(folder / "results")),
        *("--tmpdir-prefix", f"{folder / 'tmp'}/", "--tmp-outdir-prefix", str(folder / "step-"), "--no-prepull"),
        *("--publishWorkflowMetrics", "no", "--disableProgress", "--clean", "always", "--retryCount", "0"),
        # Without --relax-path-checks a blank in the name of a task's file ends the workflow.
        *("--enable-ext", "--relax-path-checks"),
        *(argument.replace(WORKFLOW_ID, folder.name) for argument in arguments),
        *(str(folder / "workflow.cwl.json"), str(folder / "job.json")),
    ]


def environment() -> dict[str, str]:
    """Toil's: its own programs, node and the container engine on PATH."""
    folders = [str(Path(sys.executable).parent), str(Path(containers.engine()).parent)]
    return {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}


# --- one workflow


@dataclass
class Begun:
    """A task that was seen to have begun.

    work: its folder; since: when that was seen, as time.monotonic has it; streams: what the names of its streams begin
    with; exited: whether its record was seen; state: what became of it, empty as long as that wasn't told.
    """

    work: Path
    since: float
    streams: str = ""
    exited: bool = False
    state: str = ""

    @property
    def seconds(self) -> float:
        """How long ago it was seen."""
        return time.monotonic() - self.since


def run(watch: Watch, settings: Settings) -> None:
    """Runs a plan to its end and tells the watch what became of each task."""
    hide_names(watch.plan.document)
    (watch.folder / "workflow.cwl.json").write_text(json.dumps(watch.plan.document), encoding="utf-8")
    (watch.folder / "job.json").write_text(json.dumps(watch.plan.job), encoding="utf-8")
    line = command(watch.folder, settings.engine_arguments)
    progress: dict[str, Begun] = {}
    with (watch.folder / "toil.out").open("wb") as out, (watch.folder / "toil.log").open("wb") as log:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env=environment(),
            cwd=watch.folder,
            start_new_session=True,
        )
        try:
            follow(process, watch, progress)
        finally:
            stop(process, watch.folder)
    if watch.canceled():
        return
    # Twice, as the first look only finds that a task has left its record, and the next one tells.
    look(watch, progress)
    look(watch, progress)
    try:
        outputs, trouble = json.loads((watch.folder / "toil.out").read_text("utf-8")), ""
    except ValueError:
        outputs, trouble = {}, last_words(watch.folder / "toil.log", process.returncode)
    for step_id, step in watch.plan.steps.items():
        begun = progress.get(step_id)
        if begun and begun.state:
            continue
        if trouble:
            fail(watch, step, begun, progress, trouble)
        else:
            finish(watch, step_id, begun, outputs)


def hide_names(document: dict[str, Any]) -> None:
    """Gives each step's streams names that no other task knows, as a step's folder is found by them."""
    for step in document["steps"].values():
        tool, streams = step["run"], secrets.token_hex(16)
        tool["stdout"] = tool["outputs"][STDOUT]["outputBinding"]["glob"] = f"{streams}.{STDOUT_FILE}"
        tool["stderr"] = tool["outputs"][STDERR]["outputBinding"]["glob"] = f"{streams}.{STDERR_FILE}"


def last_words(log: Path, exit_code: int) -> str:
    """Why Toil gave up, out of its log: the last exception of a worker, else its own last error, else the log's end."""
    said = log.read_text("utf-8", "replace")
    exceptions = re.findall(r"^[ \t]*[\w.]+(?:Error|Exception|Requirement): (.+)$", said, re.MULTILINE)
    errors = exceptions or re.findall(r"\[E\] \[[\w.]+\] (.+)", said) or [said[-500:]]
    return f"Toil ended with exit code {exit_code}: {printable(errors[-1])}"


def follow(process: subprocess.Popen[bytes], watch: Watch, progress: dict[str, Begun]) -> None:
    """Until Toil ends by itself or the workflow is canceled."""
    while not watch.canceled():
        try:
            process.wait(0.5)
            return
        except subprocess.TimeoutExpired:
            look(watch, progress)


def stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Ends Toil if it runs, and the containers that it left on this machine, which it does not end itself.

    They are known by their mounts: Toil 9.6 fails each job when it is asked to record container ids (--cidfile-dir).
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        containers.remove_mounting(folder)


# --- what tasks leave in a folder that is shared with them


def look(watch: Watch, progress: dict[str, Begun]) -> None:
    """Tells the watch which tasks have begun and which have ended since the last look. progress: by step id."""
    names = {step["run"]["stdout"]: step_id for step_id, step in watch.plan.document["steps"].items()}
    for path in watch.folder.glob(f"step-*/*.{STDOUT_FILE}"):
        step_id = names.get(path.name)
        if step_id and step_id not in progress:
            progress[step_id] = Begun(path.parent, time.monotonic(), path.name.removesuffix(f".{STDOUT_FILE}"))
            watch.started(watch.plan.steps[step_id], "toil")
    for step_id, begun in progress.items():
        if begun.state:
            continue
        step = watch.plan.steps[step_id]
        link_logs(begun.work, begun.streams, watch.logs / step_id)
        # A command that had to be killed leaves no record.
        code = TIMED_OUT if begun.seconds > step.timeout + MARGIN else recorded_exit(begun.work)
        # The record is the command's last act; by the next look its container is gone.
        if code is not None and begun.exited:
            begun.state = watch.finished(step, verdict_of(step, code, begun.work), begun.work).state
        begun.exited = code is not None


def link_logs(work: Path, streams: str, logs: Path) -> None:
    """Makes a task's streams readable while it runs; what the task put there in place of them is not followed."""
    logs.mkdir(parents=True, exist_ok=True)
    for name, log in ((STDOUT_FILE, logs / "stdout.txt"), (STDERR_FILE, logs / "stderr.txt")):
        source = work / f"{streams}.{name}"
        if not os.path.exists(source) or (log.exists() and log.samefile(source)):
            continue
        linked = log.with_suffix(".new")
        linked.unlink(missing_ok=True)  # which a killed service has left
        with contextlib.suppress(OSError):  # a folder has no links; and it may be gone meanwhile
            os.link(source, linked, follow_symlinks=False)
            if stat.S_ISREG(linked.lstat().st_mode):
                linked.replace(log)
            else:
                linked.unlink()


def recorded_exit(work: Path) -> int | None:
    """The exit code that a command's recorder left, None while there is none."""
    code = left(work / EXIT_FILE).get("exit_code")
    return code if isinstance(code, int) else None


def verdict_of(step: Step, code: int, work: Path) -> Verdict:
    """The verdict on a task whose work folder is at hand."""
    return late(step) if code == TIMED_OUT else work_verdict(step, code, work)


def late(step: Step) -> Verdict:
    """The verdict on a task that took too long."""
    return Verdict("timedout", f"over its timeout of {step.timeout} s")


# --- what came back at the end


def fail(watch: Watch, step: Step, begun: Begun | None, progress: dict[str, Begun], trouble: str) -> None:
    """Tells the failure of a task that Toil could not run, or not to its end, once it was its turn."""
    succeeded = {
        watch.plan.steps[step_id].name: one.work for step_id, one in progress.items() if one.state == "success"
    }
    sources = {entry["name"]: source for entry in step.request["inputs"] if (source := source_of(entry))}
    if not {task for task, _ in sources.values()} <= succeeded.keys():
        return
    for name, (task, output) in sources.items():
        below = (succeeded[task] / "output" / output).rglob("*")
        if odd := [path.name for path in below if HALF_PAIR.search(path.name)]:
            trouble = f"input port {name!r}: expected names of files in UTF-8, as Toil needs them, found {odd[0]!r}"
    overdue = begun and begun.seconds > step.timeout
    watch.finished(step, late(step) if overdue else Verdict("failed", trouble), None)


def finish(watch: Watch, step_id: str, begun: Begun | None, outputs: dict[str, Any]) -> None:
    """Judges a task by what came back of it; a skipped one not."""
    step = watch.plan.steps[step_id]
    state, code = outputs.get(f"{step_id}.{STATUS}"), outputs.get(f"{step_id}.{EXIT_CODE}") or 0
    if state is None:
        return
    if begun:
        work, verdict = begun.work, verdict_of(step, code, begun.work)
    else:
        watch.started(step, "toil")
        work = watch.folder / "back" / step_id
        problems = lay_out(step, step_id, work, watch.logs / step_id, outputs)
        if state == "broken contract" and not problems:
            problems = ["the declared outputs were not all there"]
        verdict = judge(code, str(work / "status.json"), problems)
    watch.finished(step, late(step) if state == "timedout" else verdict, work)


def lay_out(step: Step, step_id: str, work: Path, logs: Path, outputs: dict[str, Any]) -> list[str]:
    """Lays out what came back of a task as the task left it; returns what is wrong with its directories."""
    (work / "output").mkdir(parents=True)
    logs.mkdir(parents=True, exist_ok=True)
    places = {STATUS_FILE: work / "status.json", STRINGS_FILE: work / "output" / "ports.json"}
    places |= {STDOUT: logs / "stdout.txt", STDERR: logs / "stderr.txt"}
    _, ids = port_ids(step.special)
    ports = [port["name"] for port in output_ports(step.special) if not is_string(port)]
    places |= {ids[name]: work / "output" / name for name in ports}
    for name, place in places.items():
        found = outputs.get(f"{step_id}.{name}")
        if isinstance(found, dict) and found.get("path"):
            shutil.move(found["path"], place)
    here = [name for name in ports if os.path.lexists(work / "output" / name)]
    return [problem for name in here for problem in port_problems(str(work / "output"), name)]
