"""A workflow with finished tasks: which others run now, what they get from the finished ones, and which can't run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from gbdx_platform.cwl_tool import input_ports
from gbdx_platform.cwl_workflow import source_of
from gbdx_platform.database import Row


def sources(task: Row) -> list[tuple[str, str]]:
    """(task name, output port) of each input of a task that another task feeds."""
    return [source for entry in task["body"]["request"]["inputs"] if (source := source_of(entry))]


def work_of(task: Row) -> Path:
    """The folder that a finished task has worked in."""
    return Path(task["body"].get("work") or "/nowhere")


def made(task: Row, port: str) -> Any:
    """What a finished task left in a port: a string, or the file:// URL of a folder; None when it is not there (any
    more)."""
    folder = work_of(task) / "output" / port
    return folder.as_uri() if folder.is_dir() else task["body"].get("strings", {}).get(port)


def runnable(tasks: dict[str, Row]) -> list[str]:
    """The tasks that are to run: unfinished ones, but for those that wait for a failed one, or for an output that was
    never left; and finished ones of which an unfinished one needs an output that is not there any more."""
    unfinished = {name for name, task in tasks.items() if task["state"] != "complete"}
    hopeless = {name for name in tasks if name not in unfinished and tasks[name]["event"] != "succeeded"}
    hopeless |= {name for name in unfinished if unfed(tasks[name], tasks)}
    while more := {name for name in unfinished - hopeless if {task for task, _ in sources(tasks[name])} & hopeless}:
        hopeless |= more
    found = unfinished - hopeless
    while lost := {
        task
        for name in found
        for task, port in sources(tasks[name])
        if task not in found and made(tasks[task], port) is None and not work_of(tasks[task]).is_dir()
    }:
        found |= lost
    return [name for name in tasks if name in found]


def unfed(task: Row, tasks: dict[str, Row]) -> list[str]:
    """A sentence for each input that a task requires, and that a finished task whose folder is there never left."""
    required = {port["name"] for port in input_ports(task["body"]["definition"]) if port.get("required")}
    return [
        f"input port {entry['name']!r}: task {source[0]!r} left no output {source[1]!r}"
        for entry in task["body"]["request"]["inputs"]
        if (source := source_of(entry)) and entry["name"] in required
        if made(tasks[source[0]], source[1]) is None and work_of(tasks[source[0]]).is_dir()
    ]


def passed_over(tasks: dict[str, Row]) -> dict[str, str]:
    """The tasks that have not run though all that they wait for succeeded, each with a note that says why."""
    return {
        name: "; ".join(unfed(task, tasks)) or "the engine did not run it"
        for name, task in tasks.items()
        if task["state"] != "complete" and all(tasks[source]["event"] == "succeeded" for source, _ in sources(task))
    }


def handed_on(task: Row, tasks: dict[str, Row], running: list[str]) -> dict[str, Any]:
    """A task's request with the outputs of tasks that don't run again as values, but for those that were never left;
    `made` marks such an input."""
    request = task["body"]["request"]
    inputs = [
        {"name": entry["name"], "value": made(tasks[source[0]], source[1]), "made": True}
        if (source := source_of(entry)) and source[0] not in running
        else entry
        for entry in request["inputs"]
    ]
    return {**request, "inputs": [entry for entry in inputs if not entry.get("made") or entry["value"] is not None]}


def made_inputs(request: dict[str, Any]) -> set[str]:
    """The names of the inputs that a task gets from finished ones."""
    return {entry["name"] for entry in request["inputs"] if entry.get("made")}


def remove_folder(folder: Path) -> None:
    """Removes what tasks wrote, folders among it that are too deep for Python's own tools."""
    if os.path.lexists(folder):
        subprocess.run(["rm", "-rf", "--", folder], check=False, capture_output=True)


def remove_all_but(kept: list[str], folder: Path) -> None:
    """Empties a folder, but for what holds one of the folders that are kept."""
    for path in folder.glob("*"):
        if not any(Path(one).is_relative_to(path) for one in kept):
            remove_folder(path)
