"""The network, and its two files, which Keras 2.3.1 (on Theano or TensorFlow) and Keras 3 both load.

    model_architecture.json   the architecture in the manner of Keras 2.3.1, a JSON string inside JSON as the
                              walkthrough wrote it: model_from_json(json.load(file))
    model_weights.h5          the weights in the HDF5 layout of Keras 2

Images are (bands, rows, cols) in both. Theano convolves where TensorFlow correlates, so that its kernels are stored
turned by 180 degrees, as TensorFlow's; the file says `backend: tensorflow`, and Keras 2.3.1 on Theano turns them back.
"""

import json

import h5py
import keras
import numpy as np

IS_KERAS_2 = keras.__version__.startswith("2.")
BACKEND = keras.backend.backend()


def network(bands, rows, cols, classes):
    """The walkthrough's layers, [(class name, arguments)], for images of (bands, rows, cols)."""
    first = {"data_format": "channels_first"}
    convolution = {"filters": 32, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid", **first}
    return [
        ("InputLayer", {"batch_input_shape": [None, bands, rows, cols], "dtype": "float32", "name": "input_1"}),
        ("Conv2D", {"name": "conv2d_1", **convolution}),
        ("Activation", {"name": "activation_1", "activation": "relu"}),
        ("Conv2D", {"name": "conv2d_2", **convolution}),
        ("Activation", {"name": "activation_2", "activation": "relu"}),
        (
            "MaxPooling2D",
            {"name": "max_pooling2d_1", "pool_size": [2, 2], "strides": [2, 2], "padding": "valid", **first},
        ),
        ("Dropout", {"name": "dropout_1", "rate": 0.25}),
        ("Flatten", {"name": "flatten_1", **first}),
        ("Dense", {"name": "dense_1", "units": 128}),
        ("Activation", {"name": "activation_3", "activation": "relu"}),
        ("Dropout", {"name": "dropout_2", "rate": 0.5}),
        ("Dense", {"name": "dense_2", "units": classes}),
        ("Activation", {"name": "activation_4", "activation": "softmax"}),
    ]


def count_weights(bands, rows, cols, classes):
    """How many numbers the network learns."""
    flat = 32 * ((rows - 4) // 2) * ((cols - 4) // 2)
    return (9 * bands + 1) * 32 + (9 * 32 + 1) * 32 + (flat + 1) * 128 + 129 * classes


def build(bands, rows, cols, classes, bands_last):
    """The network with fresh weights. bands_last: images come as (rows, cols, bands), which TensorFlow trains faster.

    The weights are the same either way: kernels are (rows, cols, in, out) in both, and Flatten puts the bands last.
    """
    model = keras.models.Sequential()
    for kind, arguments in network(bands, rows, cols, classes):
        if kind == "InputLayer":
            shape = (rows, cols, bands) if bands_last else (bands, rows, cols)
            model.add(keras.layers.InputLayer(**{"input_shape" if IS_KERAS_2 else "shape": shape}))
            continue
        order = {"data_format": "channels_last"} if bands_last and "data_format" in arguments else {}
        model.add(getattr(keras.layers, kind)(**{**arguments, **order}))
    return model


def architecture(bands, rows, cols, classes):
    """The text that model_from_json of either Keras takes. Only the top level may carry Keras 3's `module`."""
    layers = [{"class_name": kind, "config": arguments} for kind, arguments in network(bands, rows, cols, classes)]
    config = {"name": "sequential_1", "layers": layers}
    both = {"class_name": "Sequential", "keras_version": "2.3.1", "backend": "tensorflow"}
    return json.dumps({"module": "keras", "registered_name": None, **both, "config": config})


def save_architecture(path, *shape_and_classes):
    """Writes model_architecture.json."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(architecture(*shape_and_classes), file)


def save_weights(path, model):
    """Writes model_weights.h5."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([layer.name.encode() for layer in layers])
        file.attrs["backend"] = np.bytes_(b"tensorflow")
        file.attrs["keras_version"] = np.bytes_(b"2.3.1")
        for layer in layers:
            names = [f"{layer.name}/{part}:0" for part in ("kernel", "bias")] if layer.get_weights() else []
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = np.array([name.encode() for name in names], dtype="S32")
            for name, values in zip(names, layer.get_weights()):
                group.create_dataset(name, data=turned(values) if values.ndim == 4 else values)


def turned(kernel):
    """A convolution kernel as TensorFlow has it, from this back end's."""
    return kernel[::-1, ::-1] if BACKEND == "theano" else kernel


def load(architecture_file, weights_file):
    """The model of the two files."""
    with open(architecture_file, encoding="utf-8") as file:
        model = keras.models.model_from_json(json.load(file))
    model.load_weights(weights_file)
    return model
