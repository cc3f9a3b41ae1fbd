"""The examples, run in each way that there is: `make run`, the service with an engine, and cwltool's own command.

Each way gives the same kind of outcome: task -> {"state", "strings", "files"}, files as `<port>/<path>` -> SHA-256.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cwl_runner
from gbdx_platform import containers
from live_service import API, IMAGE, PLATFORM, ROOT, Session, port, script
from live_service import definition as new_definition
from live_service import task as new_task

Outcome = dict[str, dict[str, Any]]
# Where an example's own inputs lie in the repository; the others lie at <task>/test_inputs/<port>.
PLACES = {"hello/in": "hello-gbdx/test_inputs/data_in"}
UPLOADED = "s3://gbdx-customer-data/gbdx/"
# No task of the repository has a string output: one of the tests' own joins its inputs, in hello-gbdx's image.
JOIN = new_definition(
    "join",
    [port("left", "string"), port("right", "string")],
    [port("joined", "string")],
    script("given = json.load(open(work + 'input/ports.json')); strings['joined'] = given['left'] + given['right']"),
)
# What a shell, JSON, JavaScript and a template might take for their own.
ODD = 'grün "$(inputs) ${x}" \\ {y}'
STRING_CHAIN = {
    "name": "string-chain",
    "tasks": [
        new_task("first", "join", {"left": "a", "right": ODD}),
        new_task("second", "join", {"left": ("first:joined",), "right": "c"}),
    ],
}


def example(name: str) -> dict[str, Any]:
    """An example's request. All directories are persisted where ids tell."""
    if name == "string_chain":
        return copy.deepcopy(STRING_CHAIN)
    found: dict[str, Any] = json.loads((PLATFORM / "examples" / f"{name}.json").read_text("utf-8"))
    for task in found["tasks"]:
        for output in task["outputs"]:
            output.pop("persistLocation", None)
    return found


def items(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The workflows that a request stands for: itself, or one for each index of its lists."""
    lists = {values["name"]: values["values"] for values in request.get("batch_values", [])}
    found = []
    for values in zip(*lists.values(), strict=True) if lists else [()]:
        text = json.dumps({key: value for key, value in request.items() if key != "batch_values"})
        for name, value in zip(lists, values, strict=True):
            text = text.replace(f"{{{{{name}}}}}", value)
        found.append(json.loads(text))
    return found


def definition_of(task_type: str) -> dict[str, Any]:
    """A task's definition, with our tag of its image."""
    if task_type == JOIN["name"]:
        return JOIN
    found: dict[str, Any] = json.loads((ROOT / task_type / f"{task_type}_definition.json").read_text("utf-8"))
    found["containerDescriptors"][0]["properties"]["image"] = tagged(task_type)
    return found


def local(url: str) -> Path:
    """The folder in the repository that an example's URL stands for."""
    key = url.removeprefix(UPLOADED)
    task, port = key.split("/")
    return ROOT / PLACES.get(key, f"{task}/test_inputs/{port}")


def values_of(task: dict[str, Any]) -> dict[str, str]:
    """The inputs of a task that are given by value: port -> string or URL."""
    return {entry["name"]: entry["value"] for entry in task["inputs"] if "value" in entry}


def tagged(task_type: str) -> str:
    """A tag of the tests' own, which no build beside them moves."""
    return IMAGE if task_type == "hello-gbdx" else f"localhost/gbdx-platform-test-{task_type}:{os.getpid()}"


def build(names: list[str]) -> None:
    """Builds the images of tasks for the processor, and gives them tags of our own."""
    line = [sys.executable, ROOT / "ci" / "build_images.py", *names]
    built = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "DEVICE": "cpu"})
    assert built.returncode == 0, built.stderr
    for name in names:
        assert containers.call("tag", f"localhost/{name}:dev", tagged(name)).returncode == 0


def file_hashes(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of each file below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def local_worker(task_type: str, folder: Path) -> list[str | Path]:
    """The words that run a task under the local worker; one of the tests' own has its definition in `folder`."""
    line: list[str | Path] = [sys.executable, ROOT / "ci" / "run_task.py"]
    if task_type != JOIN["name"]:
        return [*line, task_type]
    place = folder / task_type
    place.mkdir(exist_ok=True)
    (place / f"{task_type}_definition.json").write_text(json.dumps(JOIN))
    return [*line, place, "--image", IMAGE]


def by_make_run(request: dict[str, Any], folder: Path) -> Outcome:
    """Each task by itself under the local worker; a source is the folder that the task before it left."""
    found: Outcome = {}
    for task in request["tasks"]:
        inputs, output = folder / f"{task['name']}-in", folder / task["name"]
        inputs.mkdir(parents=True)
        strings = {}
        for name, value in values_of(task).items():
            if value.startswith("s3:"):
                shutil.copytree(local(value), inputs / name)
            else:
                strings[name] = value
        for entry in task["inputs"]:
            source, _, made = entry.get("source", "").partition(":")
            if made in found.get(source, {}).get("strings", {}):
                strings[entry["name"]] = found[source]["strings"][made]
            elif source:
                shutil.copytree(folder / source / made, inputs / entry["name"])
        (inputs / "ports.json").write_text(json.dumps(strings))
        line = [*local_worker(task["taskType"], folder), "--input", inputs, "--output", output]
        ran = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "DEVICE": "cpu"})
        state = "success" if ran.returncode == 0 else f"{ran.stdout}{ran.stderr}"
        strings_file = output / "ports.json"
        written = json.loads(strings_file.read_text()) if strings_file.exists() else {}
        files = {key: value for key, value in file_hashes(output).items() if "/" in key}
        found[task["name"]] = {"state": state, "strings": written, "files": files}
    return found


def register(session: Session, request: dict[str, Any]) -> None:
    """Registers the tasks of an example, with our tags, and uploads its inputs."""
    for task in request["tasks"]:
        answer = session.http.post(f"{API}/tasks", json=definition_of(task["taskType"]))
        assert answer.status_code in (200, 409), answer.text
        for value in values_of(task).values():
            if value.startswith("s3:"):
                session.storage.keep(local(value), value.removeprefix("s3://gbdx-customer-data/"))


def launch(session: Session, request: dict[str, Any]) -> str:
    """Launches an example, returns the workflow's id."""
    register(session, request)
    return session.launch(*request["tasks"])


def launch_all(session: Session, request: dict[str, Any]) -> list[str]:
    """Launches an example, as a batch where it is one; returns the ids of its workflows, in the order of the items."""
    if "batch_values" not in request:
        return [launch(session, request)]
    register(session, request)
    answer = session.http.post(f"{API}/batch_workflows", json=request)
    assert answer.status_code == 200, answer.text
    return [one["workflow_id"] for one in answer.json()["workflows"]]


def outcome(session: Session, workflow: str) -> Outcome:
    """What became of a workflow, out of the service and its storage."""
    found: Outcome = {}
    for task in session.wait(workflow, 900)["tasks"]:
        succeeded = task["state"] == {"state": "complete", "event": "succeeded"}
        strings = {output["name"]: output["value"] for output in task["outputs"] if output["type"] == "string"}
        below = f"workflow_output/{workflow}/{task['name']}"
        objects = {name: f"{session.prefix}/{below}/{name}" for name in session.names(below)}
        bodies = {
            name: session.storage.client.get_object(Bucket=session.bucket, Key=key)["Body"].read()
            for name, key in objects.items()
        }
        files = {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
        found[task["name"]] = {"state": "success" if succeeded else task, "strings": strings, "files": files}
    return found


def by_cwltool(session: Session, workflow: str, request: dict[str, Any], folder: Path) -> Outcome:
    """The exported workflow in cwltool's own command, without the platform."""
    document = session.http.get(f"{API}/workflows/{workflow}", params={"format": "cwl"}).json()
    inputs: dict[str, Any] = {}
    for task in request["tasks"]:
        for name, value in values_of(task).items():
            inputs[f"{task['name']}.{name}"] = local(value) if value.startswith("s3:") else value
    folder.mkdir()
    outputs = cwl_runner.run(document, "", inputs, folder)
    found: Outcome = {}
    for task in request["tasks"]:
        step, ports = task["name"], [output["name"] for output in task["outputs"]]
        strings_file = folder / "out" / f"{step}.ports.json"
        found[step] = {
            "state": outputs[f"{step}.gbdx_status"],
            "strings": json.loads(strings_file.read_text()) if strings_file.exists() else {},
            "files": {
                f"{port}/{name}": value
                for port in ports
                for name, value in file_hashes(folder / "out" / f"{step}.{port}").items()
            },
        }
    return found


def without(found: Outcome, changing: tuple[str, ...]) -> Outcome:
    """An outcome in which of some files only the names count."""
    found = copy.deepcopy(found)
    for task in found.values():
        task["files"] = {path: "" if path.endswith(changing) else value for path, value in task["files"].items()}
    return found
