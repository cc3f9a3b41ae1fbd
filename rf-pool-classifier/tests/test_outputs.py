"""The script as the platform runs it, on folders made here: what it writes, and that it is the same every time."""

import importlib
import json
import os
import pickle
import random
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from sound_inputs import Inputs, in_degrees, ring_of, sample_pixels
from training_inputs import Settings

task = importlib.import_module("rf_pool_classifier")

FILES = ["classifier.onnx", "classifier.pkl", "metrics.json", "report.html"]
REPRODUCIBLE = ["classifier.onnx", "classifier.pkl"]


def run(inputs, **environment):
    """One run of the script; its folder of outputs, the finished process and the content of status.json."""
    work = inputs.image.parent.parent
    (work / "output").mkdir(exist_ok=True)
    (work / "input" / "ports.json").write_text(json.dumps(inputs.texts))
    command = [sys.executable, "/rf_pool_classifier.py"]
    done = subprocess.run(
        command,
        env={**os.environ, "GBDX_WORK_DIR": str(work), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return work / "output" / "trained_classifier", done, json.loads((work / "status.json").read_text())


def metrics_of(inputs):
    folder, done, _ = run(inputs)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "metrics.json").read_text())


def written(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory):
    """One run on the sound inputs."""
    return run(Inputs(tmp_path_factory.mktemp("sound") / "input"))


def test_a_run_writes_the_four_files_and_says_what_it_does(sound_run):
    folder, done, status = sound_run
    assert (done.returncode, status, done.stderr) == (0, {"status": "success", "reason": ""}, "")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    stages = ["inputs checked: 24 polygons", "features measured: 24 polygons", "forest of 100 trees", "written: "]
    assert [line[: len(stage)] for line, stage in zip(done.stdout.splitlines(), stages)] == stages


def test_the_metrics_say_what_was_trained_on_and_how_well(sound_run):
    metrics = json.loads((sound_run[0] / "metrics.json").read_text())
    assert metrics["classes"] == ["No swimming pool", "Swimming pool"]
    assert metrics["counts"] == {"No swimming pool": 12, "Swimming pool": 12}
    assert metrics["features"] == ["max_ratio_2_6", "max_ratio_3_6", "min_angle_pool", "min_angle_covered_pool"]
    assert metrics["seed"] == 0
    assert metrics["left_out"] == []
    scores = metrics["out_of_bag"]
    matrix = np.array(scores["confusion_matrix"])
    assert matrix.sum() == scores["polygons"] == 24
    assert scores["accuracy"] == pytest.approx(matrix.trace() / 24)
    assert scores["recall"]["Swimming pool"] == pytest.approx(matrix[1, 1] / matrix[1].sum())
    assert scores["precision"]["Swimming pool"] == pytest.approx(matrix[1, 1] / matrix[:, 1].sum())
    assert set(metrics["versions"]) == {"python", "numpy", "scikit-learn", "mltools", "rasterio", "gdal"}
    assert [entry["name"] for entry in metrics["inputs"]] == ["train.geojson", "strip.tif"]
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in metrics["inputs"])


def test_the_same_seed_gives_the_same_bytes_in_any_order_of_the_features_and_on_one_core(sound_run, inputs):
    first = written(sound_run[0], REPRODUCIBLE)
    random.Random(4).shuffle(inputs.features)
    inputs.write_geojson()
    folder, *_ = run(inputs, OMP_NUM_THREADS="1", LOKY_MAX_CPU_COUNT="1")
    assert written(folder, REPRODUCIBLE) == first
    inputs.texts["seed"] = "1"
    folder, *_ = run(inputs)
    assert all(content != first[name] for name, content in written(folder, REPRODUCIBLE).items())


@pytest.mark.parametrize("names", [("No swimming pool", "Swimming pool"), ("grass", "roof", "water")])
@pytest.mark.parametrize("trees", [1, 10])
def test_pickle_onnx_runtime_and_onnx_reference_agree(names, trees):
    random_numbers = np.random.default_rng(2)
    labels = np.array(names)[random_numbers.integers(0, len(names), 60)]
    settings = Settings(n_estimators=trees, seed=0, class_names=names, all_touched=False, features="pool_basic")
    forest = task.train(random_numbers.uniform(-1, 1.5, (60, 4)), labels, settings)
    metrics = {"task": "t", "classes": names, "features": [], "settings": settings._asdict()}
    content = task.to_onnx(pickle.loads(pickle.dumps(forest)), metrics)
    values = random_numbers.uniform(-1, 1.5, (500, 4)).astype(np.float32)
    for session in (onnxruntime.InferenceSession(content), ReferenceEvaluator(content)):
        labels, shares = session.run(None, {"features": values})
        assert np.asarray(labels).tolist() == forest.predict(values).tolist()
        assert np.abs(shares - forest.predict_proba(values)).max() < 1e-6


def test_the_onnx_file_says_what_it_expects(sound_run):
    facts = json.loads(onnx.load(sound_run[0] / "classifier.onnx").metadata_props[0].value)
    assert facts["task"] == "rf-pool-classifier"
    assert facts["bands"] == 8
    assert facts["classes"] == ["No swimming pool", "Swimming pool"]
    assert facts["feature_set"] == "pool_basic"
    assert facts["format"] == 1


def test_one_tree_is_scored_on_the_polygons_that_it_has_not_seen(inputs):
    inputs.texts["n_estimators"] = "1"
    assert 0 < metrics_of(inputs)["out_of_bag"]["polygons"] < 24


def test_polygons_without_usable_pixels_are_left_out_and_reported(inputs):
    pixels = sample_pixels().astype(np.float32)
    pixels[:, 0:10, 0:10] = np.nan  # the first square
    pixels[:, 0:10, 10:20] = 0  # the second, nodata
    inputs.write_image(pixels, nodata=0)
    metrics = metrics_of(inputs)
    assert [entry["feature_id"] for entry in metrics["left_out"]] == [100, 101]
    assert all(entry["reason"].startswith("no usable pixel: all 16 inside") for entry in metrics["left_out"])
    assert metrics["counts"] == {"No swimming pool": 11, "Swimming pool": 11}


def test_a_class_whose_polygons_all_lie_on_nodata_is_refused(inputs):
    pixels = sample_pixels()
    pixels[:, :, [col for col in range(64) if (col // 10) % 2]] = 0
    inputs.write_image(pixels, nodata=0)
    _, done, status = run(inputs)
    assert done.returncode == 1
    assert "[class-missing] geojson/train.geojson: expected at least 5 usable polygons" in status["reason"]


def test_bad_inputs_write_nothing_and_the_reason_has_all_problems(inputs):
    inputs.texts["n_estimators"] = "ten"
    inputs.write_image(sample_pixels()[:3])
    folder, done, status = run(inputs)
    assert (done.returncode, status["status"], folder.exists()) == (1, "failed", False)
    assert status["reason"].startswith("ValueError: 2 problems with the inputs, nothing was done:")
    assert "[n-estimators] " in status["reason"]
    assert "[image-bands] " in status["reason"]


def test_other_classes_three_of_them(inputs):
    for number, feature in enumerate(inputs.features):
        feature["properties"]["class_name"] = ("roof", "grass", "<water>")[number % 3]
    inputs.write_geojson()
    inputs.texts["class_names"] = "roof, grass, <water>"
    metrics = metrics_of(inputs)
    assert metrics["counts"] == {"<water>": 8, "grass": 8, "roof": 8}
    assert np.array(metrics["out_of_bag"]["confusion_matrix"]).shape == (3, 3)


def test_the_report_is_one_page_without_anything_from_elsewhere(inputs):
    inputs.features[0]["properties"]["feature_id"] = "<script>alert(1)</script>"
    inputs.write_geojson()
    folder, *_ = run(inputs)
    page = (folder / "report.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert page.count("<figure>") == 16
    assert page.count("data:image/png;base64,iVBOR") == 16
    for heading in (
        "Confusion matrix",
        "Importance of the features",
        "Features of each class",
        "Most doubtful polygons",
    ):
        assert f"<h2>{heading}" in page


# --- which pixels count ----------------------------------------------------------------------------------------------


def three_by_three(tmp_path, name):
    """A polygon around the middle of 3 x 3 pixels: it holds the middle's centre, and touches all nine.

    Band 2 is 400 in the middle and 1000 elsewhere; band 6 is 600 everywhere. The ratio (2, 6) is -0.2 in the middle,
    and 0.25 in its neighbours.
    """
    inputs = Inputs(tmp_path / name)
    pixels = np.full((8, 64, 64), 600, np.uint16)
    pixels[1] = 1000
    for number, feature in enumerate(inputs.features):
        col, row = 3 + 10 * (number % 6), 3 + 10 * (number // 6)
        pixels[1, row, col] = 400
        feature["geometry"]["coordinates"] = [in_degrees(ring_of(col - 0.2, row - 0.2, 1.4, 1.4))]
    inputs.write_image(pixels)
    inputs.write_geojson()
    return inputs


@pytest.mark.parametrize(
    ("texts", "ratio"),
    [
        ({}, -0.2),
        ({"all_touched": "true"}, 0.25),
        ({"features": "pool_basic_whole_window"}, 0.25),
    ],
    ids=["centres", "all touched", "whole window"],
)
def test_a_polygon_has_the_pixels_whose_centre_it_holds_unless_asked_otherwise(tmp_path, texts, ratio):
    inputs = three_by_three(tmp_path, "input")
    inputs.texts.update(texts)
    values, polygons = task.measure(inputs.check())
    assert len(polygons) == 24
    assert values[:, 0] == pytest.approx(np.full(24, ratio), abs=1e-6)


def test_features_are_those_of_rasterio_mask_polygon_by_polygon(inputs):
    import rasterio.mask
    from mltools.features import pool_basic
    from rasterio.warp import transform_geom

    values, polygons = task.measure(inputs.check())
    with rasterio.open(inputs.image / "strip.tif") as source:
        for found, polygon in zip(values, polygons):
            shape = transform_geom("OGC:CRS84", source.crs, polygon["geometry"])
            chip, _ = rasterio.mask.mask(source, [shape], crop=True, filled=False)
            assert found == pytest.approx(pool_basic(chip), abs=1e-12)
