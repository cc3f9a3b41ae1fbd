"""rf-pool-classifier: train a random forest that tells polygons with a swimming pool from those without.

| port               | type             | content                                                                    |
| ------------------ | ---------------- | -------------------------------------------------------------------------- |
| image              | directory input  | the strip, 8 bands (WorldView-2): <image_id>.tif                           |
| geojson            | directory input  | train.geojson: polygons with feature_id, image_id and class_name           |
| n_estimators       | string input     | trees in the forest; optional, 100                                         |
| seed ... features  | string inputs    | optional, see the definition                                               |
| trained_classifier | directory output | classifier.pkl (scikit-learn), classifier.onnx, metrics.json, report.html  |

Run it on test_inputs/ with `make run TASK=rf-pool-classifier`.
"""

import hashlib
import json
import os
import pickle
import platform

import mltools
import numpy as np
import rasterio
from gbdx_task_interface import GbdxTaskInterface
from input_checks import BANDS, Problems
from mltools.polygon_features import FEATURE_NAMES, polygon_features
from training_inputs import by_image, check_class_counts, check_training_inputs
from training_report import write_report

MODEL_FORMAT = 1  # of what classifier.onnx says of itself; rf-pool-deployer expects this one
ONNX_OPSETS = {"": 17, "ai.onnx.ml": 3}
WHOLE_HASH_BYTES = 250_000_000  # a larger image is hashed in pieces: 15 GB would take longer than the training
HASHED_PIECES, PIECE_BYTES = 64, 1_000_000


def measure(inputs):
    """(features (n, 4) float64, polygons) of all polygons with usable pixels; the others are added to left_out."""
    values, polygons = [], []
    for image_id, group in by_image(inputs.polygons).items():
        geometries = [polygon["geometry"] for polygon in group]
        window_ratios = inputs.settings.features == "pool_basic_whole_window"
        found = polygon_features(
            inputs.images[image_id], geometries, inputs.crs, inputs.settings.all_touched, window_ratios
        )
        keys = [polygon["properties"]["feature_id"] for polygon in group]
        inputs.left_out.extend((keys[number], reason) for number, reason in sorted(found.left_out.items()))
        kept = [number for number in range(len(group)) if number not in found.left_out]
        values.append(found.values[kept])
        polygons += [group[number] for number in kept]
    return np.concatenate(values), polygons


def train(values, labels, settings):
    """A fitted random forest, which also knows how it fares on the polygons that each tree has not seen."""
    # Imported here: it takes a second, and bad inputs are refused in less.
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(settings.n_estimators, oob_score=True, random_state=settings.seed, n_jobs=-1)
    forest.fit(values, labels)
    return forest.set_params(n_jobs=None)  # so that the pickle does not depend on the number of cores


def out_of_bag(forest, labels):
    """Probabilities (n, classes) by the trees that have not seen a polygon, nan where all have; and the metrics."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    with np.errstate(invalid="ignore"):
        votes = forest.oob_decision_function_ / forest.oob_decision_function_.sum(axis=1, keepdims=True)
    scored = np.isfinite(votes).all(axis=1)
    truth, guess = labels[scored], forest.classes_[votes[scored].argmax(axis=1)]
    names = list(forest.classes_)
    precision, recall, _, counts = precision_recall_fscore_support(truth, guess, labels=names, zero_division=0)
    return votes, {
        "polygons": int(scored.sum()),
        "accuracy": float((truth == guess).mean()),
        "majority_baseline": float(counts.max() / counts.sum()),
        "precision": dict(zip(names, precision.tolist())),
        "recall": dict(zip(names, recall.tolist())),
        "confusion_matrix": confusion_matrix(truth, guess, labels=names).tolist(),
        "confusion_matrix_axes": "rows: class as given, columns: class as found; both in the order of classes",
    }


def describe(inputs, forest, labels, scores):
    """The content of metrics.json."""
    import sklearn

    names = [str(name) for name in forest.classes_]
    return {
        "task": "rf-pool-classifier",
        "settings": {**inputs.settings._asdict(), "class_names": list(inputs.settings.class_names)},
        "seed": inputs.settings.seed,
        "classes": names,
        "counts": {name: int((labels == name).sum()) for name in names},
        "features": list(FEATURE_NAMES),
        "importances": dict(zip(FEATURE_NAMES, forest.feature_importances_.tolist())),
        "out_of_bag": scores,
        "left_out": [{"feature_id": key, "reason": reason} for key, reason in inputs.left_out],
        "versions": {
            **{"python": platform.python_version(), "numpy": np.__version__, "scikit-learn": sklearn.__version__},
            **{"mltools": mltools.__version__, "rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__},
        },
        "inputs": [fingerprint(path) for path in [inputs.geojson, *sorted(inputs.images.values())]],
    }


def fingerprint(path):
    """Name, size and SHA-256 of a file; of a large one, of its size and of pieces spread evenly over it."""
    size, digest = os.path.getsize(path), hashlib.sha256()
    pieces = None if size <= WHOLE_HASH_BYTES else HASHED_PIECES
    with open(path, "rb") as file:
        if pieces:
            digest.update(str(size).encode())
            for start in np.linspace(0, size - PIECE_BYTES, pieces).astype(int).tolist():
                file.seek(start)
                digest.update(file.read(PIECE_BYTES))
        else:
            while block := file.read(PIECE_BYTES):
                digest.update(block)
    covers = f"the size as text and {pieces} pieces of {PIECE_BYTES} bytes, evenly spread" if pieces else "all bytes"
    return {"name": os.path.basename(path), "bytes": size, "sha256": digest.hexdigest(), "sha256_covers": covers}


def to_onnx(forest, metrics):
    """The forest as ONNX: features (n, 4) float32 in, label and probabilities out; it says what it expects."""
    from onnx.helper import make_opsetid, set_model_props
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    inputs = [("features", FloatTensorType([None, len(FEATURE_NAMES)]))]
    model = convert_sklearn(forest, metrics["task"], inputs, options={"zipmap": False}, target_opset=ONNX_OPSETS)
    count_votes(model.graph, forest)
    del model.opset_import[:]
    model.opset_import.extend(make_opsetid(domain, version) for domain, version in ONNX_OPSETS.items())
    facts = {
        **{"format": MODEL_FORMAT, "task": metrics["task"], "bands": BANDS, "mltools": mltools.__version__},
        **{name: metrics[name] for name in ("classes", "features")},
        **{"feature_set": metrics["settings"]["features"], "all_touched": metrics["settings"]["all_touched"]},
    }
    set_model_props(model, {"gbdx_model": json.dumps(facts)})
    return model.SerializeToString(deterministic=True)


def count_votes(graph, forest):
    """Let the converted forest count votes, one a tree, for each class; the largest is the label, its share the score.

    As converted, two classes share one weight, and runtimes differ in how they read that: ONNX Runtime 1.26 gives other
    labels than 1.32. And a hundred times 0.01 is not 1 in float32, which decides ties. A sum of votes has one reading.
    """
    from onnx.helper import get_attribute_value, make_attribute, make_node
    from onnx.numpy_helper import from_array

    (node,) = graph.node
    given = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    votes = np.round(np.array(given["class_weights"]) * len(forest.estimators_), 6)
    ids, nodes, trees = (np.array(given[f"class_{name}"]) for name in ("ids", "nodeids", "treeids"))
    if len(forest.classes_) == 2:  # one entry a leaf, the votes for the second class
        votes, ids = np.stack([1 - votes, votes], axis=1).ravel(), np.tile([0, 1], len(votes))
        nodes, trees = np.repeat(nodes, 2), np.repeat(trees, 2)
    targets = {"target_ids": ids, "target_nodeids": nodes, "target_treeids": trees, "target_weights": votes}
    kept = {name: value for name, value in given.items() if name.startswith("nodes_")}
    kept.update({name: values.tolist() for name, values in targets.items()}, n_targets=len(forest.classes_))
    label, probabilities = node.output
    del graph.node[:]
    graph.initializer.append(from_array(np.float32(len(forest.estimators_)), "trees"))
    counted = make_node("TreeEnsembleRegressor", list(node.input), ["votes"], domain="ai.onnx.ml")
    counted.attribute.extend(make_attribute(name, value) for name, value in kept.items())
    names = {"keys_int64s": list(range(len(forest.classes_))), "values_strings": forest.classes_.tolist()}
    graph.node.extend(
        [
            counted,
            make_node("Div", ["votes", "trees"], [probabilities]),
            make_node("ArgMax", ["votes"], ["largest"], axis=1, keepdims=0),
            make_node("LabelEncoder", ["largest"], [label], domain="ai.onnx.ml", **names),
        ]
    )


class RfPoolClassifier(GbdxTaskInterface):
    def invoke(self):
        image = self.get_input_data_port("image", default="")
        geojson = self.get_input_data_port("geojson", default="")
        texts = {
            "n_estimators": self.get_input_string_port("n_estimators", default="100"),
            "seed": self.get_input_string_port("seed", default="0"),
            "class_names": self.get_input_string_port("class_names", default="No swimming pool,Swimming pool"),
            "all_touched": self.get_input_string_port("all_touched", default="false"),
            "features": self.get_input_string_port("features", default="pool_basic"),
        }

        inputs = check_training_inputs(image, geojson, texts)
        print(f"inputs checked: {len(inputs.polygons)} polygons, {len(inputs.left_out)} left out")
        values, polygons = measure(inputs)
        refused = Problems()
        check_class_counts(polygons, inputs.settings.class_names, inputs.left_out, refused)
        refused.refuse()
        print(f"features measured: {len(polygons)} polygons, {len(inputs.left_out)} left out")

        labels = np.array([polygon["properties"]["class_name"] for polygon in polygons])
        forest = train(values, labels, inputs.settings)
        votes, scores = out_of_bag(forest, labels)
        metrics = describe(inputs, forest, labels, scores)
        print(f"forest of {inputs.settings.n_estimators} trees: out-of-bag accuracy {scores['accuracy']:.3f}")

        folder = self.get_output_data_port("trained_classifier")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "classifier.pkl"), "wb") as file:
            pickle.dump(forest, file)
        with open(os.path.join(folder, "classifier.onnx"), "wb") as file:
            file.write(to_onnx(forest, metrics))
        with open(os.path.join(folder, "metrics.json"), "w", encoding="utf-8") as file:
            json.dump(metrics, file, indent=2, ensure_ascii=False)
        write_report(os.path.join(folder, "report.html"), metrics, inputs, values, polygons, votes)
        print("written: classifier.pkl, classifier.onnx, metrics.json, report.html")


if __name__ == "__main__":
    with RfPoolClassifier() as task:
        task.invoke()
