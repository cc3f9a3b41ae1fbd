"""The same task on base-images/theano: Keras 2.3.1 on Theano 1.0.5.

These alone: .venv/bin/python -m pytest -m theano train-cnn
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT

pytestmark = [pytest.mark.container, pytest.mark.theano]

FOLDER = Path(__file__).resolve().parent
HARDENED = ["--read-only", "--network", "none", "--cap-drop", "ALL", "--tmpfs", "/tmp:exec", "--env", "HOME=/tmp"]
PREDICT = """
import json, keras, numpy as np
model = keras.models.model_from_json(json.load(open("/model/model_architecture.json")))
model.load_weights("/model/model_weights.h5")
images = np.load("/data/X.npz")["arr_0"].astype("float32") / np.float32(255)
print(keras.__version__)
print(json.dumps(np.asarray(model.predict(images, verbose=0), "float64").tolist()))
"""


def run_task(base, output):
    """A run on test_inputs/ on one of the bases, on the processor; builds what is missing."""
    command = [sys.executable, ROOT / "ci" / "run_task.py", FOLDER.name, "--output", output]
    environment = {**os.environ, "DEVICE": "cpu", "BASE": base}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """{base: (what the run printed, its outputs)} for both bases."""
    folder = tmp_path_factory.mktemp("outputs")
    return {base: (run_task(base, folder / base).stdout, folder / base) for base in ("cuda", "theano")}


def in_image(base, volumes, *words, **environment):
    """What a command prints in a container of train-cnn on one of the bases, as uid 54321."""
    engine, tag = build_images.find_engine(), f"{os.environ.get('TAG') or 'dev'}-{base}"
    options = [word for pair in volumes.items() for word in ("--volume", f"{pair[0]}:{pair[1]}")]
    options += [word for pair in environment.items() for word in ("--env", "=".join(pair))]
    image = build_images.reference(FOLDER.name, tag)
    command = [engine, "run", "--rm", "--init", *HARDENED, "--user", "54321:54321", *options, image, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def answers(base, model):
    """(version of Keras, certainties) that a base computes for the sample chips with the model in a folder."""
    volumes = {f"{model}": "/model:ro", f"{FOLDER}/test_inputs/train_data": "/data:ro"}
    version, certainty = in_image(base, volumes, "python", "-c", PREDICT).splitlines()[-2:]
    return version, json.loads(certainty)


def test_the_sample_inputs_are_learned_on_theano(outputs):
    printed, folder = outputs["theano"]
    assert "Keras 2.3.1 on theano 1.0.5" in printed
    metrics = json.loads((folder / "trained_model" / "metrics.json").read_text())
    assert metrics["final"]["validation_accuracy"] > 0.8
    assert (folder / "trained_model" / "training.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("writer", ["cuda", "theano"])
def test_the_files_load_in_both_worlds_with_the_same_answers(outputs, writer):
    model = outputs[writer][1] / "trained_model"
    (old, by_old), (new, by_new) = answers("theano", model), answers("cuda", model)
    assert (old, new.split(".")[0]) == ("2.3.1", "3")
    differences = [abs(a - b) for row, other in zip(by_old, by_new) for a, b in zip(row, other)]
    assert len(differences) == 420 * 3
    assert max(differences) < 1e-5


def test_a_script_in_the_walkthroughs_spelling_runs(outputs, tmp_path):
    shutil.copytree(FOLDER / "test_inputs" / "train_data", tmp_path / "input" / "train_data")
    # It takes labels for positions: 0, 1, 2.
    y = "/mnt/work/input/train_data/y.npz"
    places = f"import numpy as np; np.savez('{y}', np.searchsorted([2, 5, 9], np.load('{y}')['arr_0']))"
    (tmp_path / "input" / "ports.json").write_text('{"nb_epoch": "2"}')
    (tmp_path / "output").mkdir()
    shutil.copy(FOLDER / "tests" / "keras_1_script.py", tmp_path / "train_cnn.py")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    volumes = {str(tmp_path): "/mnt/work"}
    in_image("theano", volumes, "python", "-c", places)
    in_image("theano", volumes, "python", "/mnt/work/train_cnn.py", PYTHONPATH="/")
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "success"
    names = {path.name for path in (tmp_path / "output" / "trained_model").iterdir()}
    assert names == {"model_architecture.json", "model_weights.h5"}
