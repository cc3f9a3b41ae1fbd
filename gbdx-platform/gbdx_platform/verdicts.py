"""What an engine and the service tell each other about a run, and the verdict on a task that has ended."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbdx_platform import containers
from gbdx_platform.cwl_tool import is_string, output_ports
from gbdx_platform.cwl_workflow import Plan, Step
from gbdx_platform.hardened_container import over_disk
from gbdx_platform.task_verdict import BrokenContractError, Verdict, check_outputs, judge, read_json_object


@dataclass
class Watch:
    """What the service lends a run and hears from it. `finished` may return another verdict, when persisting failed.

    started: (step, container name) -> None
    finished: (step, verdict, work folder or None) -> verdict
    canceled: () -> why the run is to end, empty as long as it is not
    """

    started: Callable[[Step, str], None]
    finished: Callable[[Step, Verdict, Path | None], Verdict]
    canceled: Callable[[], str]
    slots: threading.Semaphore
    service: str
    plan: Plan
    folder: Path
    logs: Path


def work_verdict(step: Step, exit_code: int, work: Path) -> Verdict:
    """Exit code, status.json and declared outputs of a task that ended by itself, together."""
    problems, _ = check_outputs(str(work / "output"), step.definition)
    return judge(exit_code, str(work / "status.json"), problems)


def left(path: Path) -> dict[str, Any]:
    """A JSON object that a task wrote, empty when there is none or it is none."""
    try:
        return read_json_object(str(path)) or {}
    except BrokenContractError:
        return {}


def string_outputs(step: Step, work: Path) -> dict[str, Any]:
    """The declared string outputs that a task wrote: port name -> string or boolean."""
    found = left(work / "output" / "ports.json")
    names = {port["name"] for port in output_ports(step.special) if is_string(port)}
    # A number is no string, but spelled as the task wrote it. The interface writes none. A null is none.
    return {
        key: value if isinstance(value, (str, bool)) else json.dumps(value, ensure_ascii=False)
        for key, value in found.items()
        if key in names and value is not None
    }


def end_of(
    step: Step, account: subprocess.CompletedProcess[str], stopped: tuple[str, str] | None, work: Path, logs: Path
) -> Verdict:
    """The verdict of a run, in the order of the local worker: stopped, out of memory, judged."""
    if stopped:
        return Verdict(*stopped)
    # The engine has no account of a container that it could not make.
    end: dict[str, Any] = json.loads(account.stdout) if account.returncode == 0 else {"error": "", "running": True}
    if end["error"] or end["running"]:
        said = end["error"] or (logs / "stderr.txt").read_text("utf-8", "replace").strip()[-300:]
        return Verdict("failed", f"the engine could not run {step.image[:19]}: {said or 'its client ended too early'}")
    verdict, limits = work_verdict(step, end["exit_code"], work), containers.limits()
    # The guard looks at times: a quick task may be over the limit and gone before that, or fail on a full disk.
    if (limits.disk or verdict.state != "success") and (full := over_disk(work, limits.disk)):
        return Verdict("over limit", full)
    if end["out_of_memory"] and verdict.state != "success":
        return Verdict("over limit", f"out of memory, over the limit of {limits.memory >> 20} MB (MEMORY)")
    return verdict
