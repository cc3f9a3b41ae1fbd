"""From a checkout to a run elsewhere: push, register, and a workflow that runs the pushed images by their digests on an
engine that never built them. With hello-gbdx always, with the three tasks by `pytest -m publish` (minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from image_graph import ROOT
from publishing import ask_platform, copy_of_the_repository, describe
from task_inputs import read_definition

pytestmark = pytest.mark.container


@pytest.fixture
def whole_checkout(tmp_path: Path) -> Path:
    """The whole repository, all of it committed, with the tools that are installed here."""
    folder = copy_of_the_repository(tmp_path / "checkout", ".")
    for tools in (".venv", "gbdx-platform/.venv"):
        (folder / tools).symlink_to(ROOT / tools)
    return folder


def make(checkout: Path, verb: str, task: str, environment: dict[str, str]) -> list[str]:
    """What a make verb prints for a task, the processor's variant."""
    command = ["make", "--no-print-directory", "-C", checkout, verb, f"TASK={task}", "DEVICE=cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def task_of_a_workflow(task: str, environment: dict[str, str]) -> dict[str, Any]:
    """A task of a workflow on the task's own test inputs, which are uploaded; all its outputs are kept."""
    folder = ROOT / task
    definition, strings = read_definition(folder), folder / "test_inputs" / "ports.json"
    values = json.loads(strings.read_text()) if strings.is_file() else {}
    for port in definition["inputPortDescriptors"]:
        if port["type"] == "directory" and (folder / "test_inputs" / port["name"]).is_dir():
            below = f"{task}/in/{port['name']}"
            uploaded = ask_platform(environment, "upload", folder / "test_inputs" / port["name"], below)
            values[port["name"]] = uploaded.strip()
    outputs = [port["name"] for port in definition["outputPortDescriptors"] if port["type"] == "directory"]
    return {
        "name": task,
        "taskType": task,
        "inputs": [{"name": name, "value": value} for name, value in values.items()],
        "outputs": [{"name": name, "persist": True, "persistLocation": f"{task}/out/{name}"} for name in outputs],
    }


@pytest.mark.parametrize(
    "tasks",
    [
        pytest.param(["hello-gbdx"], id="hello-gbdx"),
        pytest.param(["hello-gbdx", "rf-pool-classifier", "train-cnn"], id="three tasks", marks=pytest.mark.publish),
    ],
)
def test_pushed_and_registered_images_run_by_digest_where_they_were_never_built(
    engine: str, platform: dict[str, str], other_engine: str, whole_checkout: Path, tmp_path: Path, tasks: list[str]
) -> None:
    digests = {task: make(whole_checkout, "push", task, platform)[-1] for task in tasks}
    for task, digest in digests.items():
        assert digest.startswith(f"{platform['REGISTRY']}/{task}@sha256:")
        printed = make(whole_checkout, "register", task, platform)
        assert printed[-1] == f"{task}:{read_definition(ROOT / task)['version']} is {digest}"
        registered = describe(platform, task)
        assert registered["containerDescriptors"][0]["properties"]["image"] == digest

    workflow = {"name": "published", "tasks": [task_of_a_workflow(task, platform) for task in tasks]}
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    ask_platform(platform, "launch", tmp_path / "workflow.json", "--watch")
    for task in tasks:
        ask_platform(platform, "download", f"{task}/out", tmp_path / task)
    out = (tmp_path / "hello-gbdx" / "data_out" / "out.txt").read_text()
    assert out == "data_file.txt\nThis is my message!"
    if "train-cnn" in tasks:
        assert (tmp_path / "rf-pool-classifier" / "trained_classifier" / "classifier.pkl").stat().st_size > 0
        metrics = json.loads((tmp_path / "train-cnn" / "trained_model" / "metrics.json").read_text())
        assert metrics["device"]["kind"] == "cpu"

    # The engine of the platform has the images by their digests alone: it pulled them, nobody built or tagged them.
    template = "{{.Repository}}@{{.Digest}} {{.Tag}}"
    command = [engine, "--host", other_engine, "images", "--digests", "--format", template]
    listed = subprocess.check_output(command, env=os.environ, text=True).splitlines()
    assert {f"{digest} <none>" for digest in digests.values()} <= set(listed)

    # Version and commit are tags of the same image.
    record = json.loads((whole_checkout / ".make" / "pushed" / "hello-gbdx.json").read_text())
    names = [f"{platform['REGISTRY']}/hello-gbdx:{tag}" for tag in ("0.1.0", record["revision"][:12])]
    for name in names:
        pull = [engine, "--host", other_engine, "pull", "--quiet", name]
        subprocess.run(pull, env=platform, capture_output=True, check=True)
    inspect = [engine, "--host", other_engine, "image", "inspect", "--format", "{{.Id}}", *names, digests["hello-gbdx"]]
    assert len(set(subprocess.check_output(inspect, text=True).split())) == 1
