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
from live_service import API, IMAGE, PLATFORM, ROOT, Session

Outcome = dict[str, dict[str, Any]]
# Where an example's own inputs lie in the repository; the others lie at <task>/test_inputs/<port>.
PLACES = {"hello/in": "hello-gbdx/test_inputs/data_in"}
UPLOADED = "s3://gbdx-customer-data/gbdx/"


def example(name: str) -> dict[str, Any]:
    """An example's workflow; of a batch, that of its first item. All directories are persisted where ids tell."""
    found: dict[str, Any] = json.loads((PLATFORM / "examples" / f"{name}.json").read_text("utf-8"))
    for values in found.pop("batch_values", []):
        found = json.loads(json.dumps(found).replace(f"{{{{{values['name']}}}}}", values["values"][0]))
    for task in found["tasks"]:
        for output in task["outputs"]:
            output.pop("persistLocation", None)
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
            if "source" in entry:
                shutil.copytree(folder.joinpath(*entry["source"].split(":")), inputs / entry["name"])
        (inputs / "ports.json").write_text(json.dumps(strings))
        line = [sys.executable, ROOT / "ci" / "run_task.py", task["taskType"], "--input", inputs, "--output", output]
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
        name = task["taskType"]
        definition = json.loads((ROOT / name / f"{name}_definition.json").read_text("utf-8"))
        definition["containerDescriptors"][0]["properties"]["image"] = tagged(name)
        answer = session.http.post(f"{API}/tasks", json=definition)
        assert answer.status_code in (200, 409), answer.text
        for value in values_of(task).values():
            if value.startswith("s3:"):
                session.storage.keep(local(value), value.removeprefix("s3://gbdx-customer-data/"))


def launch(session: Session, request: dict[str, Any]) -> str:
    """Launches an example, returns the workflow's id."""
    register(session, request)
    return session.launch(*request["tasks"])


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
