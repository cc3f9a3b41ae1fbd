"""base-images/theano: its kernels serve every user and shape, and its answers are TensorFlow's."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT

pytestmark = [pytest.mark.container, pytest.mark.theano]

# Trains one step on each network and predicts; prints the uid and the kernels that had to be compiled.
TRAIN = """
import os, sys
import numpy as np
import model_files, theano
from trainers import keras_trainer, optimizer_of

def kernels():
    return {name for name in os.listdir(theano.config.compiledir) if name.startswith("tmp")}

print("uid", os.getuid(), "with", len(kernels()) > 50)
for bands, rows, cols, classes, name in eval(sys.argv[1]):
    before = kernels()
    model = model_files.build(bands, rows, cols, classes, bands_last=False)
    settings = {"batch_size": 4, "classes": range(classes), "top": 255, "bands_last": False}
    train = keras_trainer(model, optimizer_of(model_files.keras, name, 0.01), settings)
    train(np.zeros((4, bands, rows, cols), "uint8"), np.arange(4) % classes)
    model.predict_on_batch(np.zeros((4, bands, rows, cols), "float32"))
    print("compiled", len(kernels() - before))
"""
# (bands, rows, cols, classes, optimizer): none is the network that warm_compile_cache.py trains.
NETWORKS = {
    54321: [(1, 28, 28, 10, "adadelta"), (5, 33, 47, 2, "adam")],
    65534: [(3, 20, 31, 7, "sgd"), (1, 6, 6, 2, "adadelta"), (8, 12, 9, 1000, "rmsprop")],
}


@pytest.fixture(scope="module")
def image(engine: str) -> str:
    """train-cnn on Theano, built."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BASE", "theano")
        assert build_images.main(["train-cnn"]) == 0
        return build_images.reference("train-cnn")


@pytest.mark.parametrize("uid", NETWORKS)
def test_any_user_on_a_read_only_root_trains_on_the_compiled_kernels(engine: str, image: str, uid: int) -> None:
    command = [engine, "run", "--rm", "--init", "--read-only", "--network", "none", "--cap-drop", "ALL"]
    command += ["--tmpfs", "/tmp:exec", "--user", f"{uid}:{uid}", "--env", "DEVICE=cpu", "--env", "PYTHONPATH=/"]
    command += [image, "python", "-c", TRAIN, repr(NETWORKS[uid])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *compiled = done.stdout.splitlines()
    assert first == f"uid {uid} with True"
    assert len(compiled) == len(NETWORKS[uid])
    # Of about 80 that a network needs: a single band and odd sizes want one or two of their own.
    assert max(int(line.split()[1]) for line in compiled) <= 3


def labels(base: str, output: Path) -> list[dict[str, str]]:
    """The lines of labels.csv that label-chips writes for its sample inputs on a base."""
    command = [sys.executable, ROOT / "ci" / "run_task.py", "label-chips", "--output", output]
    environment = {**os.environ, "DEVICE": "cpu", "BASE": base}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (output / "labels" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_label_chips_gives_the_same_labels_on_both_layers(engine: str, tmp_path: Path) -> None:
    new, old = (labels(base, tmp_path / base) for base in ("cuda", "theano"))
    assert len(new) == 90
    assert [line["label"] for line in old] == [line["label"] for line in new]
    # Four decimals are written.
    assert max(abs(float(a["certainty"]) - float(b["certainty"])) for a, b in zip(old, new)) < 2e-4
