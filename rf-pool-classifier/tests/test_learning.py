"""The forest learns: on five strips of the generator it tells pools in parcels that it has not been trained on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sound_inputs import TEXTS
from training_inputs import check_training_inputs

GENERATOR = Path(__file__).parent.parent / "make_test_inputs.py"
PARCELS, TRAINED = 400, 250
# Measured over these seeds: accuracy 0.956 to 0.984 out of bag, 0.967 to 0.987 held back; precision from 0.960, recall
# from 0.973. Two in a hundred labels of a strip are wrong on purpose.
FLOORS = {"accuracy": 0.94, "precision": 0.92, "recall": 0.93}


@pytest.fixture(scope="module", params=range(5), ids="seed {}".format)
def scores(request, tmp_path_factory):
    """Out-of-bag metrics of the training parcels, and accuracy, precision and recall of the others."""
    from rf_pool_classifier import measure, out_of_bag, train

    folder = tmp_path_factory.mktemp(f"strip{request.param}")
    command = [sys.executable, str(GENERATOR), str(folder), "--parcels", str(PARCELS), "--seed", str(request.param)]
    subprocess.run(command, check=True, capture_output=True)
    inputs = check_training_inputs(folder / "image", folder / "geojson", {**TEXTS, "seed": str(request.param)})
    values, polygons = measure(inputs)
    labels = np.array([polygon["properties"]["class_name"] for polygon in polygons])
    chosen = np.random.default_rng(request.param).permutation(len(labels))
    seen, unseen = chosen[:TRAINED], chosen[TRAINED:]
    forest = train(values[seen], labels[seen], inputs.settings)
    _, out_of_bag_scores = out_of_bag(forest, labels[seen])
    found, pool = forest.predict(values[unseen]) == "Swimming pool", labels[unseen] == "Swimming pool"
    held_back = {
        "accuracy": (found == pool).mean(),
        "precision": (found & pool).sum() / found.sum(),
        "recall": (found & pool).sum() / pool.sum(),
        "majority_baseline": max(pool.mean(), 1 - pool.mean()),
    }
    print(json.dumps({"out of bag": out_of_bag_scores["accuracy"], **{k: float(v) for k, v in held_back.items()}}))
    return out_of_bag_scores, held_back


def test_out_of_bag_it_beats_its_floor_and_the_majority(scores):
    found, _ = scores
    assert found["accuracy"] >= FLOORS["accuracy"]
    assert found["accuracy"] >= found["majority_baseline"] + 0.3


@pytest.mark.parametrize("measure", ["accuracy", "precision", "recall"])
def test_on_parcels_held_back_it_beats_its_floor(scores, measure):
    _, found = scores
    assert found[measure] >= FLOORS[measure]


def test_on_parcels_held_back_it_beats_the_majority(scores):
    _, found = scores
    assert found["accuracy"] >= found["majority_baseline"] + 0.3
