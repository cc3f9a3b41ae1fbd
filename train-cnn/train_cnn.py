"""train-cnn: train a convolutional neural network to tell classes of images apart.

| port                          | type             | content                                                   |
| ----------------------------- | ---------------- | --------------------------------------------------------- |
| train_data                    | directory input  | X.npz: images (n, bands, rows, cols); y.npz: their labels |
| checkpoint                    | directory input  | optional: the trained_model folder of a run that was cut  |
| nb_epoch, bit_depth           | string input     | how often to go through the images (10); bits a value (8) |
| seed, validation_split, ...   | string input     | optional, see read_strings and the README                 |
| trained_model                 | directory output | the model, and how the training went                      |

Run it on test_inputs/ with `make run TASK=train-cnn DEVICE=cpu`; without DEVICE=cpu it wants an NVIDIA card.
It runs on both base images: Keras 3 on TensorFlow (base-images/cuda), Keras 2.3.1 on Theano (base-images/theano).
"""

import hashlib
import os

import compute_device
import numpy as np
from chip_arrays import Problems, as_images, as_labels, check_values, open_array
from gbdx_task_interface import GbdxTaskInterface
from trainers import LEARNING_RATES
from training import CHECKPOINT, train


def whole_number(port, text, low, high):
    """A port's text as an int from low to high, else ValueError."""
    if not (isinstance(text, str) and text.strip().isascii() and text.strip().lstrip("+").isdigit()):
        raise ValueError(f"input port {port!r}: expected a whole number from {low} to {high:,}, found {text!r}")
    if not low <= int(text) <= high:
        raise ValueError(f"input port {port!r}: expected a whole number from {low} to {high:,}, found {text}")
    return int(text)


def fraction(port, text, low, below):
    """A port's text as a float from low to less than below, else ValueError."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(text, bool) or not low <= number < below:
        raise ValueError(f"input port {port!r}: expected a number from {low:g} to less than {below:g}, found {text!r}")
    return number


def one_of(port, text, choices):
    """A port's text when it is among the choices, else ValueError."""
    if text not in choices:
        raise ValueError(f"input port {port!r}: expected one of {', '.join(choices)}, found {text!r}")
    return text


def check_memory(settings):
    """ValueError when the network and a batch of images of this size can't fit the memory. An estimate from below."""
    bands, rows, cols = settings["images"].shape[1:]
    flat = 32 * ((rows - 4) // 2) * ((cols - 4) // 2)
    weights = flat * 128 * 4  # bytes; the other layers are small beside the first dense one
    activations = settings["batch_size"] * 4 * (32 * (rows - 2) * (cols - 2) * 2 + bands * rows * cols)
    needed, available = 4 * weights + 2 * activations, compute_device.memory()
    if settings["device"]["kind"] == "cpu" and needed > available:
        size = f"{bands} x {rows} x {cols}"
        raise ValueError(
            f"input port 'train_data', file X.npz: expected images that train within "
            f"{available / 1e9:.1f} GB of memory, found {size} pixels, which need {needed / 1e9:.1f} GB "
            f"at batch_size {settings['batch_size']}"
        )


def data_line(settings):
    """The sentence that says what is trained on."""
    counts = np.bincount(settings["labels"])
    shape = " x ".join(str(side) for side in settings["images"].shape[1:])
    classes = ", ".join(f"{label}: {count}" for label, count in list(zip(settings["classes"], counts))[:10])
    return f"{len(settings['images'])} images of {shape}, {len(counts)} classes ({classes})"


def fingerprint(settings):
    """What has to be the same for a checkpoint to be gone on from."""
    ports = ("bit_depth", "seed", "validation_split", "batch_size", "optimizer", "learning_rate")
    found = {port: settings[port] for port in ports}
    return {
        **found,
        "framework": settings["framework"],
        **{name: sha256(path) for name, path in settings["files"].items()},
    }


def sha256(path):
    """The hash of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_held_back(settings):
    """ValueError when validation_split and early_stopping don't fit each other or the number of images."""
    part, labels = settings["validation_split"], settings["labels"]
    if settings["early_stopping"] and part == 0:
        raise ValueError("input port 'early_stopping': expected a validation_split above 0 to watch, found 0")
    if part and labels is not None and int(len(labels) * part) == 0:
        found = f"{part:g} of {len(labels)} images"
        raise ValueError(f"input port 'validation_split': expected at least one image to hold back, found {found}")


def make_output(folder):
    """Makes the output folder, before any training. ValueError when it can't be made or written."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output port 'trained_model': expected a folder that can be made, found: {error}") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(
            f"output port 'trained_model': expected a folder that can be written, found {folder} read-only"
        )


def find_checkpoint(given, output, resume):
    """The path of the checkpoint to go on from, None for a start from the beginning.

    With resume "yes" it is looked for in the folder of the input port (given), and in the output folder, for a worker
    that starts a killed task again on the same folders. ValueError when the port is given and holds none.
    """
    if given and resume == "no":
        raise ValueError("input port 'checkpoint': expected it with resume 'yes', found resume 'no'")
    for folder in (given, output):
        if folder and resume == "yes" and os.path.isfile(os.path.join(folder, CHECKPOINT)):
            return os.path.join(folder, CHECKPOINT)
    if given:
        found = ", ".join(sorted(os.listdir(given))) or "nothing"
        raise ValueError(f"input port 'checkpoint': expected {CHECKPOINT}, found: {found}")
    return None


class TrainCnn(GbdxTaskInterface):
    def invoke(self):
        settings = self.read_settings()
        settings.update(compute_device.load_framework(settings["device"]))
        settings["fingerprint"] = fingerprint(settings)
        print(f"train-cnn: {compute_device.line(settings['device'], settings['framework'])}")
        print(f"train-cnn: {data_line(settings)}")

        trained = train(settings)

        from training_report import write_model, write_report  # loads Keras, which takes seconds

        write_model(trained, settings)
        write_report(trained, settings)

    def read_settings(self):
        """Everything about the run, checked; the problems are raised all at once, before Keras is loaded.

        A missing card comes first: it is known in milliseconds, where the images may take minutes to look at.
        """
        problems = Problems()
        settings = self.read_strings(problems)
        settings["device"] = problems.check(compute_device.choose)
        if settings["device"] is None:
            problems.stop()
        settings.update(self.read_data(problems, settings["bit_depth"]))
        settings["output"] = self.get_output_data_port("trained_model")
        problems.check(make_output, settings["output"])
        problems.check(check_held_back, settings)
        given = self.get_input_data_port("checkpoint", default=None)
        settings["checkpoint"] = problems.check(find_checkpoint, given, settings["output"], settings["resume"])
        if settings["images"] is not None and settings["batch_size"]:
            problems.check(check_memory, settings)
        problems.stop()
        settings["top"] = 2 ** settings["bit_depth"] - 1  # the value that becomes 1.0
        return settings

    def read_strings(self, problems):
        """The string ports; None for each that is wrong."""
        ask = self.get_input_string_port
        check = problems.check
        optimizer = check(one_of, "optimizer", ask("optimizer", default="adadelta"), LEARNING_RATES)
        rate = ask("learning_rate", default="") or str(LEARNING_RATES.get(optimizer, 1.0))
        return {
            "nb_epoch": check(whole_number, "nb_epoch", ask("nb_epoch", default="10"), 1, 1_000_000),
            "bit_depth": check(whole_number, "bit_depth", ask("bit_depth", default="8"), 1, 32),
            "seed": check(whole_number, "seed", ask("seed", default="0"), 0, 2**32 - 1),
            "validation_split": check(fraction, "validation_split", ask("validation_split", default="0"), 0, 1),
            "batch_size": check(whole_number, "batch_size", ask("batch_size", default="128"), 1, 65_536),
            "optimizer": optimizer,
            "learning_rate": check(fraction, "learning_rate", rate, 1e-12, 1e6),
            "early_stopping": check(whole_number, "early_stopping", ask("early_stopping", default="0"), 0, 1_000_000),
            "resume": check(one_of, "resume", ask("resume", default="no"), ("no", "yes")),
        }

    def read_data(self, problems, bit_depth):
        """{"images", "labels" (places in classes), "classes", "files"}: mapped, not loaded; None for what is wrong."""
        found = dict.fromkeys(("images", "labels", "classes", "files"))
        folder = problems.check(lambda: self.get_input_data_port("train_data"))
        if folder is None:
            return found
        names = ("X.npz", "y.npz")
        about = {name: f"input port 'train_data', file {name}: " for name in names}
        x, y = (problems.check(open_array, folder, name, self.output_path, about=about[name]) for name in names)
        if x is not None:
            found["images"] = problems.check(as_images, x, about=about["X.npz"])
        if found["images"] is not None:
            problems += [about["X.npz"] + problem for problem in check_values(found["images"], bit_depth)]
        if y is not None:
            count = None if x is None else x.shape[:1]
            labels = problems.check(as_labels, y, count, about=about["y.npz"])
            if labels is not None:
                found["classes"], found["labels"] = np.unique(labels, return_inverse=True)
        return {**found, "files": {name: os.path.join(folder, name) for name in names}}


if __name__ == "__main__":
    with TrainCnn() as task:
        task.invoke()
