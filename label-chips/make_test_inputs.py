"""Writes test_inputs/: 90 chips of train-cnn's sample, cut to 8 x 8 pixels, and a model that train-cnn trained.

python3 make_test_inputs.py        from anywhere; needs NumPy, and a container engine for the training
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODEL_FILES = ("model_architecture.json", "model_weights.h5", "classes.json")


def chips():
    """(images (420, 4, 8, 8) uint8, labels (420,)): train-cnn's sample inputs, their upper left quarter."""
    folder = ROOT / "train-cnn" / "test_inputs" / "train_data"
    return np.load(folder / "X.npz")["arr_0"][:, :, :8, :8], np.load(folder / "y.npz")["arr_0"]


def train(images, labels, workspace):
    """The folder of a model that train-cnn trained, in its container, on the processor."""
    (workspace / "input" / "train_data").mkdir(parents=True)
    np.savez(workspace / "input" / "train_data" / "X.npz", images)
    np.savez(workspace / "input" / "train_data" / "y.npz", labels)
    options = ["--input", workspace / "input", "--output", workspace / "output", "--ports", "nb_epoch=60"]
    environment = {**os.environ, "DEVICE": "cpu"}
    subprocess.run([sys.executable, ROOT / "ci" / "run_task.py", "train-cnn", *options], env=environment, check=True)
    return workspace / "output" / "trained_model"


def main():
    """Writes chips/X.npz, trained_model/ and ports.json."""
    images, labels = chips()
    for name in ("chips", "trained_model"):
        (HERE / "test_inputs" / name).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(HERE / "test_inputs" / "chips" / "X.npz", images[:90])
    (HERE / "tests").mkdir(exist_ok=True)
    (HERE / "tests" / "true_labels.json").write_text(f"{labels[:90].tolist()}\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as workspace:
        Path(workspace).chmod(0o755)
        model = train(images[90:], labels[90:], Path(workspace))
        for name in MODEL_FILES:
            shutil.copyfile(model / name, HERE / "test_inputs" / "trained_model" / name)
    (HERE / "test_inputs" / "ports.json").write_text("{}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
