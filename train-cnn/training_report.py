"""What a training leaves behind: the model's files, history.csv, training.png, metrics.json, classes.json."""

import csv
import json
import os
import re
import resource

import compute_device
import model_files
import numpy as np
from training import CHECKPOINT, answers

# What metrics.json repeats of the string ports.
PORTS = (
    "nb_epoch",
    "bit_depth",
    "seed",
    "validation_split",
    "batch_size",
    "optimizer",
    "learning_rate",
    "early_stopping",
)


def in_output(settings, name):
    """The path of a file in the output port."""
    return os.path.join(settings["output"], name)


def write_model(trained, settings):
    """Writes the model's files."""
    shape_and_classes = (*settings["images"].shape[1:], len(settings["classes"]))
    architecture, weights = (in_output(settings, name) for name in ("model_architecture.json", "model_weights.h5"))
    model_files.save_architecture(architecture, *shape_and_classes)
    model_files.save_weights(weights, trained["model"])
    if not model_files.IS_KERAS_2:  # which knows no such file
        model_files.load(architecture, weights).save(in_output(settings, "model.keras"))
    counts = np.bincount(settings["labels"]).tolist()
    classes = {"classes": settings["classes"].tolist(), "counts": counts, "bit_depth": settings["bit_depth"]}
    write_json(in_output(settings, "classes.json"), classes)


def write_report(trained, settings):
    """Writes history.csv, training.png and metrics.json, and removes the checkpoint, which has served its turn."""
    write_history(in_output(settings, "history.csv"), trained["history"])
    plot_history(in_output(settings, "training.png"), trained["history"])
    write_json(in_output(settings, "metrics.json"), metrics(trained, settings))
    if os.path.exists(in_output(settings, CHECKPOINT)):
        os.remove(in_output(settings, CHECKPOINT))
    print("train-cnn: wrote the model, and the plot training.png, to trained_model")


def metrics(trained, settings):
    """What metrics.json holds."""
    arrays_on, peak = settings["where"](trained["model"])
    history, held_back, labels = trained["history"], trained["held_back"], settings["labels"]
    device = {**settings["device"], "weights_on": arrays_on, "peak_device_memory_bytes": peak}
    return {
        "device": device,
        "framework": settings["framework"],
        "versions": settings["versions"],
        "images_per_second": round(len(trained["rows"]) * len(history) / sum(e["seconds"] for e in history), 1),
        "peak_memory_bytes": peak_memory(),
        "own_memory_bytes": own_memory(),
        "settings": {port: settings[port] for port in PORTS},
        "epochs": len(history),
        "best_epoch": trained["best"]["epoch"] if trained["best"] else None,
        "inputs_sha256": {name: settings["fingerprint"][name] for name in settings["files"]},
        "images": {
            "trained_on": len(trained["rows"]),
            "held_back": len(held_back),
            "shape": settings["images"].shape[1:],
        },
        "class_counts": dict(zip(map(str, settings["classes"].tolist()), np.bincount(labels).tolist())),
        "final": {key: history[-1][key] for key in history[-1] if "loss" in key or "accuracy" in key},
        "confusion_matrix": confusion_matrix(trained["model"], held_back, settings),
    }


def confusion_matrix(model, held_back, settings):
    """[true class][answered class] counts of the held-back images, in the order of classes.json; None without any."""
    if not len(held_back):
        return None
    classes = len(settings["classes"])
    answered = answers(model, settings["images"], held_back, settings).argmax(1)
    pairs = settings["labels"][held_back] * classes + answered
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).tolist()


def write_json(path, content):
    """Writes a JSON file that a person can read."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_history(path, history):
    """Writes history.csv, a line for each epoch."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, history[0])
        writer.writeheader()
        writer.writerows(history)


def plot_history(path, history):
    """Draws loss and accuracy of each epoch, of training and of the images held back."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = [epoch["epoch"] for epoch in history]
    for axis, name in zip(axes, ("loss", "accuracy")):
        for key, label in ((name, "training"), (f"validation_{name}", "held back")):
            if key in history[0]:
                axis.plot(epochs, [epoch[key] for epoch in history], marker=".", label=label)
        axis.set(xlabel="epoch", ylabel=name, ylim=(0, 1) if name == "accuracy" else (0, None))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.legend()
    figure.savefig(path)


def peak_memory():
    """The most bytes of memory that this process has had. X.npz counts, as far as it is mapped and memory was free."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_memory():
    """The bytes of memory that this process has now and can't give back: those of no file. None where it isn't told."""
    found = re.search(r"^RssAnon:\s*(\d+) kB", compute_device.text_of("/proc/self/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
