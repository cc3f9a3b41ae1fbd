"""GPU tasks on a card. Without one these are skipped, with the reason; REQUIRE_GPU=1, for a runner that has one, fails.

`REQUIRE_GPU=1 make container-test TASK=train-cnn DEVICE=gpu` is what such a runner calls.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from card_options import card_problem
from image_graph import ROOT
from task_inputs import read_definition

pytestmark = [pytest.mark.container, pytest.mark.gpu]

TRAIN_CNN = ROOT / "train-cnn"


@pytest.fixture
def card() -> None:
    """A card, its driver and the NVIDIA Container Toolkit: skips, or fails when REQUIRE_GPU asks for them."""
    if problem := card_problem(read_definition(TRAIN_CNN), "gpu"):
        (pytest.fail if os.environ.get("REQUIRE_GPU") else pytest.skip)(problem)


def test_train_cnn_trains_on_the_card_and_proves_it(engine: str, card: None, tmp_path: Path) -> None:
    environment = {**os.environ, "DEVICE": "gpu"}
    command = [sys.executable, ROOT / "ci" / "run_task.py", "train-cnn", "--output", tmp_path / "outputs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    device = json.loads((tmp_path / "outputs/trained_model/metrics.json").read_text())["device"]
    assert device["kind"] == "gpu"


@pytest.mark.skipif(card_problem(read_definition(TRAIN_CNN), "gpu") == "", reason="this machine has a card")
def test_a_required_card_that_is_missing_is_a_failure_with_a_sentence(engine: str) -> None:
    environment = {**os.environ, "REQUIRE_GPU": "1"}
    command = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "trains_on_the_card"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "train-cnn wants an NVIDIA card: expected" in done.stdout


@pytest.mark.skipif(card_problem(read_definition(TRAIN_CNN), "gpu") == "", reason="this machine has a card")
def test_a_gpu_task_without_a_card_is_refused_before_anything_starts(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DEVICE"}
    command = [sys.executable, ROOT / "ci" / "run_task.py", "train-cnn", "--output", tmp_path / "outputs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "refused: train-cnn wants an NVIDIA card: expected" in done.stderr
    assert "make run TASK=train-cnn DEVICE=cpu" in done.stderr
    assert not (tmp_path / "outputs").exists()
