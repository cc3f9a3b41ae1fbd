"""This task in its container, as `make run` starts it, on the sample. Tests of its parts are in tests/.

Nothing here is spelled twice: the task is the folder that this file lies in, so that a renamed copy tests the copy.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.container

FOLDER = Path(__file__).resolve().parent
WORKER = FOLDER.parent / "ci" / "run_task.py"
MAKE_SETTINGS = ("TASK", "INPUT", "OUTPUT", "PORTS", "NETWORK", "MEMORY", "DISK")


def run(output, ports):
    environment = {name: value for name, value in os.environ.items() if name not in MAKE_SETTINGS}
    command = [sys.executable, WORKER, FOLDER.name, "--output", output, "--ports", ports]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_sample_trains_a_forest_that_beats_its_floor_and_the_majority(tmp_path):
    done = run(tmp_path / "outputs", "n_estimators=50 seed=7")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "outputs" / "trained_classifier"
    names = ["classifier.onnx", "classifier.pkl", "metrics.json", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == names
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["settings"]["n_estimators"] == 50
    assert metrics["seed"] == 7
    assert metrics["counts"] == {"No swimming pool": 90, "Swimming pool": 90}
    assert metrics["out_of_bag"]["majority_baseline"] == 0.5
    assert metrics["out_of_bag"]["accuracy"] >= 0.94


def test_a_wrong_port_fails_with_its_sentence(tmp_path):
    done = run(tmp_path / "outputs", "n_estimators=ten")
    assert done.returncode == 1, done.stdout + done.stderr
    reason = json.loads((tmp_path / "outputs.failed" / "status.json").read_text())["reason"]
    sentence = "[n-estimators] input port 'n_estimators': expected a whole number from 1 to 10000, found 'ten'"
    assert reason == f"ValueError: 1 problem with the inputs, nothing was done:\n{sentence}"
