"""The course of a training: epochs, early stopping, checkpoints; the same for every framework."""

import json
import os
import time
import zipfile

import compute_device
import numpy as np
from trainers import keras_trainer, optimizer_of, reproducible, scaled, tensorflow_trainer

BATCHES_AT_ONCE = 16  # that go to the device in one piece, in the images' own type ...
PIECE = 2**25  # ... and fewer of them where they would have more bytes than this
CHECKPOINT = "checkpoint.npz"


def train(settings):
    """Trains, epoch by epoch.

    Returns {"model", "history": [a line for each epoch], "held_back" and "rows": which images, "best": the epoch kept}.
    """
    import model_files

    reproducible(settings["seed"], settings["framework_name"])
    images = settings["images"]
    model = model_files.build(*images.shape[1:], len(settings["classes"]), settings["bands_last"])
    optimizer = optimizer_of(model_files.keras, settings["optimizer"], settings["learning_rate"])
    trainer = tensorflow_trainer if settings["framework_name"] == "tensorflow" else keras_trainer
    train = trainer(model, optimizer, settings)
    held_back, rows = split(len(images), settings)
    history, best = go_on(model, optimizer, settings)
    for epoch in range(len(history) + 1, settings["nb_epoch"] + 1):
        if stops_early(history, settings["early_stopping"]):
            break
        history.append(run_epoch(epoch, train, model, rows, held_back, settings))
        if settings["early_stopping"] and history[-1] is min(history, key=lambda e: e["validation_loss"]):
            best = {"epoch": epoch, "weights": model.get_weights()}
        path = os.path.join(settings["output"], CHECKPOINT)
        save_checkpoint(path, history, best, state_of(model, optimizer), settings["fingerprint"])
    if best:
        model.set_weights(best["weights"])
    return {"model": model, "history": history, "held_back": held_back, "rows": rows, "best": best}


def go_on(model, optimizer, settings):
    """(history, best) to go on from: a checkpoint's, or empty ones."""
    if settings["checkpoint"] is None:
        return [], None
    history, best, state = load_checkpoint(settings["checkpoint"], settings["fingerprint"])
    restore(model, optimizer, state)
    print(f"train-cnn: goes on after epoch {len(history)} of {settings['nb_epoch']}")
    return history, best


def split(images, settings):
    """(rows held back, rows to train on), drawn with the seed."""
    order = np.random.default_rng(settings["seed"]).permutation(images)
    held_back = int(images * settings["validation_split"])
    return np.sort(order[:held_back]), np.sort(order[held_back:])


def stops_early(history, patience):
    """Whether the loss on the held-back images has had no new minimum for `patience` epochs."""
    losses = [epoch["validation_loss"] for epoch in history] if patience else []
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def run_epoch(epoch, train, model, rows, held_back, settings):
    """One epoch; returns its line of history.csv and prints it."""
    images, labels, start = settings["images"], settings["labels"], time.perf_counter()
    # A generator of its own for each epoch, so that a resumed training sees the same order.
    order = np.random.default_rng([settings["seed"], epoch]).permutation(rows)
    loss, accuracy = train_epoch(train, images, labels, order, settings["batch_size"])
    seconds = time.perf_counter() - start
    line = {"epoch": epoch, "loss": float(loss), "accuracy": float(accuracy)}
    if len(held_back):
        found = judge(answers(model, images, held_back, settings), labels[held_back])
        line.update(validation_loss=found[0], validation_accuracy=found[1])
    line.update(seconds=round(seconds, 3), images_per_second=round(len(rows) / max(seconds, 1e-9), 1))
    compute_device.check_used(settings["device"], *settings["where"](model))
    shown = ", ".join(f"{key.replace('_', ' ')} {line[key]:.4f}" for key in line if "loss" in key or "acc" in key)
    print(f"train-cnn: epoch {epoch}/{settings['nb_epoch']}: {shown}; {line['images_per_second']:.0f} images/s")
    return line


def train_epoch(train, images, labels, order, batch_size):
    """One pass over the images in the given order; returns (mean loss, accuracy)."""
    sums, pending = np.zeros(2), np.zeros(2)
    at_once = batch_size * max(1, min(BATCHES_AT_ONCE, PIECE // (batch_size * images[0].nbytes)))
    for first in range(0, len(order), at_once):
        rows = order[first : first + at_once]
        # The last piece's sums are read when the next piece is on its way, so that a card never waits for this loop.
        finished, pending = pending, train(images[rows], labels[rows])
        sums += finite(finished)
    return (sums + finite(pending)) / len(order)


def finite(sums):
    """A trainer's sums as numbers. FloatingPointError when the loss is NaN or infinite."""
    numbers = np.array([float(value) for value in sums])
    if not np.isfinite(numbers[0]):
        raise FloatingPointError(f"expected a finite loss, found {numbers[0]}; a smaller learning_rate may help")
    return numbers


def answers(model, images, rows, settings):
    """The model's certainty for each class, (rows, classes) float32, batch by batch."""
    size = settings["batch_size"]
    batches = [rows[first : first + size] for first in range(0, len(rows), size)]
    return np.concatenate([np.asarray(model.predict_on_batch(scaled(images[batch], settings))) for batch in batches])


def judge(certainty, labels):
    """(mean loss, accuracy) of answers, (n, classes), to labels, (n,)."""
    right = certainty[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(right, 1e-7, 1)).mean()), float((certainty.argmax(1) == labels).mean())


def state_of(model, optimizer):
    """Every number that training changes, as a list of arrays: weights, random state, the optimizer's memory."""
    if hasattr(model, "variables") and hasattr(optimizer, "variables"):
        return [np.asarray(variable) for variable in [*model.variables, *optimizer.variables]]
    return [*model.get_weights(), *optimizer.get_weights()]


def restore(model, optimizer, state):
    """Puts back what state_of returned."""
    if hasattr(model, "variables") and hasattr(optimizer, "variables"):
        for variable, value in zip([*model.variables, *optimizer.variables], state):
            variable.assign(value)
        return
    model._make_train_function()  # only then Keras 2 makes the optimizer's memory
    weights = len(model.get_weights())
    model.set_weights(state[:weights])
    optimizer.set_weights(state[weights:])


def save_checkpoint(path, history, best, state, fingerprint):
    """Writes everything that the next epoch needs, in one step: a kill leaves the old checkpoint or the new one."""
    record = json.dumps({"history": history, "fingerprint": fingerprint, "best": best["epoch"] if best else None})
    arrays = {f"state_{number:03}": array for number, array in enumerate(state)}
    arrays.update({f"best_{number:03}": array for number, array in enumerate(best["weights"] if best else [])})
    with open(path + ".part", "wb") as file:
        np.savez(file, record=np.array(record), **arrays)
    os.replace(path + ".part", path)


def load_checkpoint(path, fingerprint):
    """(history, best, state) of a checkpoint. ValueError when it is damaged or another training's."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(str(arrays["record"]))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{CHECKPOINT}: expected a checkpoint that train-cnn wrote, found: {error}") from None
    return parts_of(arrays, record, fingerprint)


def parts_of(arrays, record, fingerprint):
    """(history, best, state) out of a checkpoint's arrays and its record."""
    differing = sorted(key for key in fingerprint if record["fingerprint"].get(key) != fingerprint[key])
    if differing:
        raise ValueError(f"{CHECKPOINT}: expected a checkpoint of this training, found other {', '.join(differing)}")
    state, best = ([arrays[name] for name in sorted(arrays) if name.startswith(kind)] for kind in ("state_", "best_"))
    return record["history"], {"epoch": record["best"], "weights": best} if best else None, state
