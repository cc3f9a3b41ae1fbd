"""Runs a CWL workflow with Toil: on one machine, or on a cluster by the arguments that are passed to it.

Toil is a program of its own here. It tells little while it runs: the tasks that wait for nothing are shown as running
from its start, the others become complete at its end. The verdicts are read from what came back: the state that CWL
computed, with exit code and status.json for the note.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gbdx_platform import containers
from gbdx_platform.cwl_tool import (
    EXIT_CODE,
    STATUS,
    STATUS_FILE,
    STDERR,
    STDOUT,
    STRINGS_FILE,
    is_string,
    output_ports,
    port_ids,
)
from gbdx_platform.cwl_workflow import Step, source_of
from gbdx_platform.settings import Settings
from gbdx_platform.task_verdict import Verdict, judge, port_problems, printable
from gbdx_platform.verdicts import Watch, string_outputs

STOP_SECONDS = 30


class ToilError(RuntimeError):
    """Toil could not run the workflow; the message is the end of what it said."""


def program() -> str:
    """Toil's runner, from the environment of this Python or from PATH.

    Raises:
        ToilError: it isn't installed.
    """
    beside = Path(sys.executable).with_name("toil-cwl-runner")
    found = str(beside) if beside.exists() else shutil.which("toil-cwl-runner")
    if not found:
        raise ToilError("engine: expected the program toil-cwl-runner (gbdx-platform/install.sh --toil), found none")
    return found


def environment() -> dict[str, str]:
    """Toil's: its own programs, node and the container engine on PATH."""
    folders = [str(Path(sys.executable).parent), str(Path(program()).parent), str(Path(containers.engine()).parent)]
    return {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}


def command(folder: Path, arguments: tuple[str, ...]) -> list[str]:
    """Toil's whole command line; everything that it writes stays below the run's folder."""
    for name in ("work", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return [
        *(program(), "--jobStore", str(folder / "store"), "--workDir", str(folder / "work")),
        *("--outdir", str(folder / "results"), "--tmpdir-prefix", f"{folder / 'tmp'}/", "--no-prepull"),
        *("--publishWorkflowMetrics", "no", "--disableProgress", "--clean", "always", "--retryCount", "0"),
        *("--enable-ext", *arguments),
        *(str(folder / "workflow.cwl.json"), str(folder / "job.json")),
    ]


def run(watch: Watch, settings: Settings) -> None:
    """Runs a plan to its end and tells the watch what became of each task.

    Raises:
        ToilError: it ended without results.
    """
    watch.folder.mkdir(parents=True, exist_ok=True)
    for step in watch.plan.steps.values():
        if not any(source_of(entry) for entry in step.request.get("inputs") or []):
            watch.started(step.name, "toil")
    (watch.folder / "workflow.cwl.json").write_text(json.dumps(watch.plan.document), encoding="utf-8")
    (watch.folder / "job.json").write_text(json.dumps(watch.plan.job), encoding="utf-8")
    with (watch.folder / "toil.out").open("wb") as out, (watch.folder / "toil.log").open("wb") as log:
        line = command(watch.folder, settings.engine_arguments)
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
            wait(process, watch)
        finally:
            stop(process, watch.folder)
    if watch.canceled():
        return
    try:
        outputs = json.loads((watch.folder / "toil.out").read_text("utf-8"))
    except ValueError:
        said = (watch.folder / "toil.log").read_text("utf-8", "replace").strip()[-600:]
        raise ToilError(f"Toil ended with exit code {process.returncode}: {printable(said)}") from None
    for step_id, step in watch.plan.steps.items():
        finish(watch, step_id, step, outputs)


def wait(process: subprocess.Popen[bytes], watch: Watch) -> None:
    """Until Toil ends by itself or the workflow is canceled."""
    while not watch.canceled():
        try:
            process.wait(0.5)
            return
        except subprocess.TimeoutExpired:
            continue


def stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Ends Toil if it runs, then the containers that it left on this machine, which it does not end itself.

    They are known by their mounts: Toil 9.6 fails each job when it is asked to record container ids (--cidfile-dir).
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        containers.remove_mounting(folder)


def path_of(value: Any) -> Path | None:
    """The path of a File or Directory that came back."""
    return Path(value["path"]) if isinstance(value, dict) and value.get("path") else None


def finish(watch: Watch, step_id: str, step: Step, outputs: dict[str, Any]) -> None:
    """Lays out what came back of one task as the task left it, judges it, and tells the watch; skipped ones not."""
    state = outputs.get(f"{step_id}.{STATUS}")
    if state is None:
        return
    work = watch.folder / "back" / step_id
    (work / "output").mkdir(parents=True)
    places = {STATUS_FILE: work / "status.json", STRINGS_FILE: work / "output" / "ports.json"}
    logs = watch.logs / step_id
    logs.mkdir(parents=True, exist_ok=True)
    places |= {STDOUT: logs / "stdout.txt", STDERR: logs / "stderr.txt"}
    for name, place in places.items():
        if found := path_of(outputs.get(f"{step_id}.{name}")):
            shutil.move(found, place)
    problems: list[str] = []
    _, ids = port_ids(step.special)
    for port in output_ports(step.special):
        found = path_of(outputs.get(f"{step_id}.{ids[port['name']]}"))
        if found and not is_string(port):
            shutil.move(found, work / "output" / port["name"])
            problems += port_problems(str(work / "output"), port["name"])
    verdict = verdict_of(step, str(state), outputs.get(f"{step_id}.{EXIT_CODE}") or 0, work, problems)
    watch.finished(step.name, verdict, work, string_outputs(step, work) if verdict.state == "success" else {})


def verdict_of(step: Step, state: str, exit_code: int, work: Path, problems: list[str]) -> Verdict:
    """CWL's state with the sentence that goes with it; ours where it is stricter."""
    if state == "timedout":
        return Verdict("timedout", f"over its timeout of {step.timeout} s")
    if state == "broken contract" and not problems:
        problems = ["the declared outputs were not all there"]
    return judge(exit_code, str(work / "status.json"), problems)
