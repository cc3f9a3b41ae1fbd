"""label-chips: label images with a model that train-cnn trained.

| port          | type             | content                                                                      |
| ------------- | ---------------- | ---------------------------------------------------------------------------- |
| chips         | directory input  | X.npz: images (n, bands, rows, cols) or (n, rows, cols), as train-cnn's      |
| trained_model | directory input  | what train-cnn wrote: the two model files, and classes.json                  |
| bit_depth     | string input     | bits of a pixel value; optional, the model's own                             |
| batch_size    | string input     | images in one step, optional (128)                                           |
| labels        | directory output | labels.csv: a line for each image; y.npz, certainty.npz: the same as arrays  |

Run it on test_inputs/ with `make run TASK=label-chips DEVICE=cpu`; without DEVICE=cpu it wants an NVIDIA card.
"""

import csv
import json
import os

import compute_device
import numpy as np
from chip_arrays import Problems, as_images, open_array, value_range
from gbdx_task_interface import GbdxTaskInterface

ARCHITECTURE, WEIGHTS, CLASSES = "model_architecture.json", "model_weights.h5", "classes.json"


def whole_number(port, text, low, high):
    """A port's text as an int from low to high, else ValueError."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"input port {port!r}: expected a whole number from {low} to {high:,}, found {text!r}")
    return int(text)


def read_json(folder, name):
    """What a JSON file of the port trained_model holds, None when there is none. ValueError when it is broken."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(f"input port 'trained_model', file {name}: expected JSON, found: {error}") from None


def read_model(folder):
    """{"text", "shape": (bands, rows, cols), "outputs", "classes", "bit_depth"} of a trained model, not yet loaded.

    Without classes.json (the walkthrough's own models) the labels are 0, 1, 2 ... and the bit depth is None.
    ValueError or FileNotFoundError when it is no model of train-cnn's.
    """
    missing = [name for name in (ARCHITECTURE, WEIGHTS) if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        found = ", ".join(sorted(os.listdir(folder))) or "nothing"
        raise FileNotFoundError(f"input port 'trained_model': expected {' and '.join(missing)}, found: {found}")
    text = read_json(folder, ARCHITECTURE)
    try:
        layers = json.loads(text)["config"]["layers"]
        shape = tuple(layers[0]["config"]["batch_input_shape"][1:])
        outputs = next(layer["config"]["units"] for layer in reversed(layers) if layer["class_name"] == "Dense")
    except (TypeError, ValueError, KeyError, IndexError, StopIteration):
        expected = "a JSON string that holds a Sequential model, as train-cnn writes it"
        raise ValueError(
            f"input port 'trained_model', file {ARCHITECTURE}: expected {expected}, found another"
        ) from None
    meaning = read_json(folder, CLASSES)
    if meaning is None:
        meaning = {"classes": list(range(outputs)), "bit_depth": None}
    if not (isinstance(meaning, dict) and isinstance(meaning.get("classes"), list) and "bit_depth" in meaning):
        expected = "an object with classes and bit_depth, as train-cnn writes it"
        raise ValueError(f"input port 'trained_model', file {CLASSES}: expected {expected}, found another")
    if len(meaning["classes"]) != outputs:
        found = f"{len(meaning['classes'])} for a model with {outputs} outputs"
        raise ValueError(f"input port 'trained_model', file {CLASSES}: expected a class for each output, found {found}")
    return {"text": text, "shape": shape, "outputs": outputs, **meaning}


def check_bit_depth(asked, model):
    """The bit depth to scale by, asked for or the model's. ValueError when they differ, or neither is known."""
    known = model["bit_depth"]
    if asked is None and known is None:
        raise ValueError("input port 'bit_depth': expected a value, as the model has no classes.json, found none")
    if asked is not None and known is not None and asked != known:
        raise ValueError(f"input port 'bit_depth': expected {known}, which the model was trained with, found {asked}")
    return known if asked is None else asked


def check_fit(images, model, bit_depth):
    """ValueError when the images have another shape than the model's, or values that don't fit the bit depth.

    bit_depth: None when it isn't known, as that is a problem of its own.
    """
    if images.shape[1:] != model["shape"]:
        expected = f"(bands, rows, cols) = {model['shape']} as the model was trained on"
        raise ValueError(f"input port 'chips', file X.npz: expected {expected}, found {images.shape[1:]}")
    low, high, nans, infinite = value_range(images)
    if nans or infinite:
        raise ValueError(
            f"input port 'chips', file X.npz: expected finite values, found {nans} NaN, {infinite} infinite"
        )
    top = 2**bit_depth - 1 if bit_depth else np.inf
    if low < 0 or high > top:
        found = f"{low:g} to {high:g}"
        raise ValueError(
            f"input port 'chips', file X.npz: expected values from 0 to {top} (bit_depth {bit_depth}), found {found}"
        )


def load_model(folder, model):
    """The Keras model. ValueError when its weights are another architecture's, or damaged."""
    import keras

    loaded = keras.models.model_from_json(model["text"])
    try:
        loaded.load_weights(os.path.join(folder, WEIGHTS))
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"input port 'trained_model', file {WEIGHTS}: expected this model's weights, found: {error}"
        ) from None
    return loaded


def certainties(loaded, images, bit_depth, batch_size):
    """The model's certainty for each image and class, (n, classes) float32; images are cast batch by batch."""
    top = np.float32(2**bit_depth - 1)
    batches = (images[first : first + batch_size] for first in range(0, len(images), batch_size))
    return np.concatenate([np.asarray(loaded.predict_on_batch(batch.astype("float32") / top)) for batch in batches])


def write_labels(folder, classes, certainty):
    """Writes labels.csv (index, label, certainty), y.npz (the labels) and certainty.npz (of each class)."""
    places = certainty.argmax(1)
    labels, best = np.array(classes)[places], certainty.max(1)
    np.savez(os.path.join(folder, "y.npz"), labels)
    np.savez(os.path.join(folder, "certainty.npz"), certainty)
    with open(os.path.join(folder, "labels.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "certainty"])
        writer.writerows([index, label, f"{sure:.4f}"] for index, (label, sure) in enumerate(zip(labels, best)))


class LabelChips(GbdxTaskInterface):
    def invoke(self):
        device = compute_device.choose()
        folder, model, images, bit_depth, batch_size = self.read_inputs()
        output = self.get_output_data_port("labels")
        os.makedirs(output, exist_ok=True)

        framework = compute_device.load_framework(device)
        print(f"label-chips: {compute_device.line(device, framework['framework'])}")
        loaded = load_model(folder, model)
        certainty = certainties(loaded, images, bit_depth, batch_size)
        compute_device.check_used(device, *framework["where"](loaded))

        write_labels(output, model["classes"], certainty)
        counts = zip(model["classes"], np.bincount(certainty.argmax(1), minlength=model["outputs"]))
        print(f"label-chips: {len(images)} images: {', '.join(f'{count} of {label}' for label, count in counts)}")

    def read_inputs(self):
        """(folder of the model, the model, images, bit_depth, batch_size), checked; all problems are raised at once."""
        problems = Problems()
        check = problems.check
        ask = self.get_input_string_port
        folder = check(lambda: self.get_input_data_port("trained_model"))
        model = check(read_model, folder) if folder else None
        asked = ask("bit_depth", default="")
        asked = check(whole_number, "bit_depth", asked, 1, 32) if asked else None
        bit_depth = check(check_bit_depth, asked, model) if model and not problems else asked
        batch_size = check(whole_number, "batch_size", ask("batch_size", default="128"), 1, 65_536)
        images = self.read_images(problems)
        if images is not None and model:
            check(check_fit, images, model, bit_depth)
        problems.stop()
        return folder, model, images, bit_depth, batch_size

    def read_images(self, problems):
        """The images of X.npz, mapped, (n, bands, rows, cols); None when they can't be read, which problems says."""
        folder = problems.check(lambda: self.get_input_data_port("chips"))
        if folder is None:
            return None
        about = "input port 'chips', file X.npz: "
        array = problems.check(open_array, folder, "X.npz", self.output_path, about=about)
        return None if array is None else problems.check(as_images, array, about=about)


if __name__ == "__main__":
    with LabelChips() as task:
        task.invoke()
