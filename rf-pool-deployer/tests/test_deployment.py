"""The script as the platform runs it: what it writes, which models it refuses, and that a pickle stays shut."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import rasterio
import trained_model
from input_checks import Problems
from polygon_file import read_crs

MODEL = "input/trained_classifier/classifier.onnx"


def run(work):
    """One run: the finished process, the content of status.json, and the features written (None without)."""
    shutil.rmtree(work / "output")
    (work / "output").mkdir()
    environment = {**os.environ, "GBDX_WORK_DIR": str(work)}
    command = [sys.executable, "/rf_pool_deployer.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    path = work / "output" / "classified_geojson" / "classified.geojson"
    written = json.loads(path.read_text()) if path.exists() else None
    return done, json.loads((work / "status.json").read_text()), written


def polygons(work):
    return json.loads((work / "input/geojson/parcels.geojson").read_text())


def put_polygons(work, collection):
    (work / "input/geojson/parcels.geojson").write_text(json.dumps(collection))


def refusal(work):
    done, status, written = run(work)
    assert (done.returncode, status["status"], written) == (1, "failed", None), done.stderr
    return status["reason"]


def test_every_polygon_gets_a_class_and_a_score_and_keeps_its_place_and_properties(work):
    done, status, written = run(work)
    assert (done.returncode, status["status"], done.stderr) == (0, "success", "")
    given = polygons(work)["features"]
    assert len(written["features"]) == len(given) == 60
    for before, after in zip(given, written["features"]):
        assert after["geometry"] == before["geometry"]
        assert after["properties"].items() >= before["properties"].items()
        assert after["properties"]["class_name"] in ("No swimming pool", "Swimming pool")
        assert 0.5 <= after["properties"]["score"] <= 1


def test_the_classes_are_those_that_the_forest_was_trained_with(work):
    """The sample's polygons were trained on, and the generator put 2 wrong labels in 100 into them."""
    labels = json.loads((work / "input/trained_classifier/metrics.json").read_text())["counts"]
    assert labels == {"No swimming pool": 90, "Swimming pool": 90}
    _, _, written = run(work)
    pools = sum(feature["properties"]["class_name"] == "Swimming pool" for feature in written["features"])
    assert 28 <= pools <= 36  # 32 of the 60 were labelled so


def test_scores_are_the_share_of_votes_and_labels_the_largest(work):
    model = trained_model.load_model(str(work / "input/trained_classifier"), Problems())
    values = np.random.default_rng(0).uniform(-1, 1.5, (300, 4))
    labels, scores = trained_model.classify(model, values)
    votes = model.session.run(None, {"features": values.astype(np.float32)})[1]
    assert votes.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
    assert scores == pytest.approx(votes.max(axis=1))
    assert labels.tolist() == [model.classes[number] for number in votes.argmax(axis=1)]


def test_polygons_that_cannot_be_classified_are_written_with_the_reason(work):
    collection = polygons(work)
    features = collection["features"]
    features[3]["geometry"] = None
    features[5]["geometry"]["coordinates"][0] = [[x + 1, y] for x, y in features[5]["geometry"]["coordinates"][0]]
    features[7] = "no feature"
    put_polygons(work, collection)
    assert "[feature-malformed]" in refusal(work)
    features[7] = {"type": "Feature", "properties": None, "geometry": {"type": "Point", "coordinates": [138.5, -35]}}
    put_polygons(work, collection)
    done, _, written = run(work)
    assert done.returncode == 0, done.stderr
    found = {n: f["properties"] for n, f in enumerate(written["features"]) if f["properties"]["class_name"] is None}
    assert list(found) == [3, 5, 7]
    assert all(properties["score"] is None for properties in found.values())
    assert [found[number]["left_out"] for number in (3, 5, 7)] == ["no geometry", "outside the image", "no geometry"]


def test_a_file_that_ends_in_the_middle_fails_and_writes_nothing(work):
    path = work / "input/geojson/parcels.geojson"
    path.write_text(path.read_text()[:-500])
    assert "expected a feature or the end of the list" in refusal(work)


@pytest.mark.parametrize("after", [False, True], ids=["before the features", "after the features"])
def test_the_crs_member_counts_wherever_it_stands(work, after):
    crs = {"type": "name", "properties": {"name": "EPSG:32754"}}
    features = [{"geometry": {"coordinates": [[[1, 2]]]}}]
    collection = {"features": features, "crs": crs} if after else {"crs": crs, "features": features}
    put_polygons(work, collection)
    path = work / "input/geojson/parcels.geojson"
    assert read_crs(str(path), Problems()) == ("EPSG:32754", crs)


def test_without_a_crs_member_coordinates_are_longitude_and_latitude(work):
    assert read_crs(str(work / "input/geojson/parcels.geojson"), Problems()) == ("OGC:CRS84", None)


# --- models ----------------------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_bomb_is_inert(work):
    content = pickle.dumps(Bomb(work / "exploded"))
    (work / "input/trained_classifier/classifier.pkl").write_bytes(content)
    assert run(work)[0].returncode == 0
    (work / MODEL).unlink()
    reason = refusal(work)
    assert "[model-missing] input port 'trained_classifier': expected a directory with classifier.onnx" in reason
    (work / MODEL).write_bytes(content)
    assert "[model-unreadable] trained_classifier/classifier.onnx: expected an ONNX model" in refusal(work)
    assert not (work / "exploded").exists()
    pickle.loads(content)  # it is a bomb
    assert (work / "exploded").exists()


def changed_facts(work, old, new):
    """The model with some bytes of its metadata changed to as many others."""
    content = (work / MODEL).read_bytes()
    assert content.count(old) == 1
    assert len(new) == len(old)
    (work / MODEL).write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b'"bands": 8', b'"bands": 4', "[model-bands] trained_classifier/classifier.onnx: expected 8 bands, found 4"),
        (b'"format": 1', b'"format": 2', "[model-format] trained_classifier/classifier.onnx: expected format 1, fo"),
        (b'"mltools": "2.', b'"mltools": "1.', "expected features of mltools 2.x, found mltools 1."),
        (b'["max_ratio_2_6', b'["max_ratio_2_5', "[model-features] trained_classifier/classifier.onnx: expected"),
        (b'"pool_basic"', b'"pool_crazy"', "expected pool_basic or pool_basic_whole_window, found pool_crazy"),
        (b'"task": "rf-pool', b'"task": "rf-cars', "expected a model of rf-pool-classifier, found"),
        (b'{"format"', b'["format"', "[model-unknown] "),
        (b'["No swimming pool", ', b"[" + b" " * 20, "expected probabilities of 1 classes, found 2"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(work, old, new, sentence):
    changed_facts(work, old, new)
    assert sentence in refusal(work)


def test_bad_inputs_are_all_reported_at_once(work):
    changed_facts(work, b'"bands": 8', b'"bands": 4')
    (image,) = (work / "input/image").iterdir()
    with rasterio.open(image) as source:
        profile, pixels = source.profile, source.read([1, 2, 3])
    with rasterio.open(image, "w", **{**profile, "count": 3}) as target:
        target.write(pixels)
    put_polygons(work, {"type": "FeatureCollection", "features": []})
    codes = re.findall(r"^\[([a-z0-9-]+)\]", refusal(work), re.MULTILINE)
    assert codes == ["model-bands", "image-bands", "geojson-empty"]


def test_polygons_elsewhere_and_swapped_ones_are_refused(work):
    collection = polygons(work)
    for feature in collection["features"]:
        feature["geometry"]["coordinates"] = [[p[::-1] for p in feature["geometry"]["coordinates"][0]]]
    put_polygons(work, collection)
    assert "[coordinates-swapped] geojson: expected longitude before latitude" in refusal(work)


def test_the_runtime_is_one_that_reports_to_nobody():
    assert onnxruntime.__version__ == "1.26.0"
