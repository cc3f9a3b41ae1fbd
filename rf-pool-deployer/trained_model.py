"""The forest of classifier.onnx: loaded, held against what this task can do, and run. No pickle is ever opened."""

import json
import os
from typing import NamedTuple

import mltools
import numpy as np
import onnxruntime
from input_checks import BANDS, names_of, visible_files
from mltools.polygon_features import FEATURE_NAMES

MODEL_NAME = "classifier.onnx"
FORMAT = 1  # rf-pool-classifier's MODEL_FORMAT
FEATURE_SETS = ("pool_basic", "pool_basic_whole_window")
BATCH = 100_000  # polygons that are classified at once


class Model(NamedTuple):
    """A model that fits. session: onnxruntime's, features (n, 4) float32 in, labels and probabilities out."""

    session: object
    classes: list
    feature_set: str
    all_touched: bool
    made_with: str


def load_model(folder, problems):
    """The Model of a port, or None; problems say why it does not fit."""
    paths = {os.path.basename(path): path for path in visible_files("trained_classifier", folder, problems)}
    if MODEL_NAME not in paths:
        expected = f"a directory with {MODEL_NAME} (pickles are not read)"
        problems.add("model-missing", "input port 'trained_classifier'", expected, names_of(list(paths.values())))
        return None
    place = f"trained_classifier/{MODEL_NAME}"
    session = open_session(place, paths[MODEL_NAME], problems)
    facts = read_facts(place, session, problems) if session else None
    if facts is None:
        return None
    check_facts(place, session, facts, problems)
    made_with = f"mltools {facts.get('mltools')}"
    return Model(session, facts.get("classes"), facts.get("feature_set"), bool(facts.get("all_touched")), made_with)


def open_session(place, path, problems):
    """onnxruntime's session of a file, or None. From bytes, so that the file can name no other file beside it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    with open(path, "rb") as file:
        content = file.read()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        problems.add("model-unreadable", place, "an ONNX model", str(error)[:300])
        return None


def read_facts(place, session, problems):
    """What rf-pool-classifier wrote into the model: a dict, or None."""
    text = session.get_modelmeta().custom_metadata_map.get("gbdx_model", "")
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("task") != "rf-pool-classifier":
        problems.add("model-unknown", place, "a model of rf-pool-classifier", f"gbdx_model = {text[:100]!r}")
        return None
    return facts


def check_facts(place, session, facts, problems):
    """Hold what a model says of itself, and its inputs and outputs, against what is there."""
    if facts.get("format") != FORMAT:
        problems.add("model-format", place, f"format {FORMAT}", facts.get("format"))
    if facts.get("bands") != BANDS:
        problems.add("model-bands", place, f"{BANDS} bands", facts.get("bands"))
    if facts.get("features") != list(FEATURE_NAMES):
        problems.add("model-features", place, f"features {', '.join(FEATURE_NAMES)}", facts.get("features"))
    if facts.get("feature_set") not in FEATURE_SETS:
        problems.add("model-feature-set", place, " or ".join(FEATURE_SETS), facts.get("feature_set"))
    ours, theirs = mltools.__version__.partition(".")[0], str(facts.get("mltools"))
    if theirs.partition(".")[0] != ours:
        problems.add("model-version", place, f"features of mltools {ours}.x", f"mltools {theirs}")
    check_signature(place, session, facts, problems)


def check_signature(place, session, facts, problems):
    """That the model takes four floats a polygon and gives a label and a probability of each class."""
    taken = [(entry.name, entry.type, len(entry.shape), entry.shape[-1:]) for entry in session.get_inputs()]
    wanted = [("features", "tensor(float)", 2, [len(FEATURE_NAMES)])]
    given = [entry.type for entry in session.get_outputs()]
    classes = facts.get("classes")
    if taken != wanted or given != ["tensor(string)", "tensor(float)"]:
        problems.add("model-signature", place, f"inputs {wanted}, outputs of text and float", f"{taken} and {given}")
    elif not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        problems.add("model-classes", place, "a list of class names", classes)
    else:
        _, shares = session.run(None, {"features": np.zeros((1, len(FEATURE_NAMES)), np.float32)})
        if shares.shape != (1, len(classes)):
            problems.add("model-classes", place, f"probabilities of {len(classes)} classes", shares.shape[-1])


def classify(model, values):
    """(labels (n,) of text, scores (n,): the share of the trees' votes for the label) of features (n, 4).

    Rows of nan get a label that means nothing.
    """
    labels, scores = [], []
    for start in range(0, len(values), BATCH):
        features = np.nan_to_num(values[start : start + BATCH]).astype(np.float32)
        found, shares = model.session.run(None, {"features": features})
        labels.append(np.asarray(found, dtype=object))
        scores.append(shares.max(axis=1))
    return np.concatenate(labels), np.concatenate(scores)
