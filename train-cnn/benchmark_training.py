"""Images per second of train-cnn's training against other ways to train the same network, as ratios in one run.

    python train-cnn/benchmark_training.py                    in an environment with what is to be compared
    python train-cnn/benchmark_training.py --images 60000 --rounds 5 --ways task,fit

Ways: `task` is this task's own loop; `fit` is the walkthrough's model.fit on float32 arrays in memory, `batch` is
train_on_batch; `hand` is a loop by hand in the back end's own functions, without Keras, as the limit. KERAS_BACKEND
chooses the back end (tensorflow, jax, torch), and Theano's Keras has its own. Rounds are interleaved, so that a machine
that grows slow is slow for all; each way runs in a process of its own, and says when its first step is done.
MNIST-shaped images (1 x 28 x 28, 8 bits, 10 classes) of random numbers: speed alone is measured, learning is not.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

START = time.perf_counter()
BATCH, CLASSES = 128, 10


def make_data(images):
    """(images of uint8 (n, 1, 28, 28), labels (n,))."""
    import numpy as np

    random = np.random.default_rng(0)
    return random.integers(0, 256, (images, 1, 28, 28), dtype="uint8"), random.integers(0, CLASSES, images)


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


def compiled_model(images, labels):
    """(the walkthrough's model compiled as then, X float32, Y one-hot): data as the walkthrough held them in memory."""
    import keras
    import model_files
    import numpy as np
    from trainers import optimizer_of

    bands_last = model_files.BACKEND in ("tensorflow", "jax")
    model = model_files.build(1, 28, 28, CLASSES, bands_last)
    optimizer = optimizer_of(keras, "adadelta", 1.0)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    scaled = images.astype("float32") / np.float32(255)
    return model, scaled.reshape(-1, 28, 28, 1) if bands_last else scaled, np.eye(CLASSES, dtype="float32")[labels]


def prepare_fit(images, labels):
    """model.fit, shuffled, as the walkthrough calls it."""
    model, x, y = compiled_model(images, labels)
    return lambda rows: model.fit(x[: len(rows)], y[: len(rows)], batch_size=BATCH, epochs=1, verbose=0)


def prepare_batch(images, labels):
    """model.train_on_batch in a Python loop."""
    model, x, y = compiled_model(images, labels)

    def epoch(rows):
        for first in range(0, len(rows), BATCH):
            model.train_on_batch(x[rows[first : first + BATCH]], y[rows[first : first + BATCH]])

    return epoch


def prepare_hand(images, labels):
    """TensorFlow alone: variables, tf.nn and Adadelta by hand, the whole epoch over arrays in memory in one graph."""
    import numpy as np
    import tensorflow as tf

    x = tf.constant(images.reshape(-1, 28, 28, 1), tf.float32) / 255
    y = tf.one_hot(labels, CLASSES)
    shapes = [(3, 3, 1, 32), (32,), (3, 3, 32, 32), (32,), (4608, 128), (128,), (128, CLASSES), (CLASSES,)]
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in shapes]
    squares, steps = ([tf.Variable(tf.zeros(shape)) for shape in shapes] for _ in range(2))

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


WAYS = {"task": prepare_task, "fit": prepare_fit, "batch": prepare_batch, "hand": prepare_hand}


def child(way, count):
    """Prepares a way, trains one batch, then an epoch for each line on standard input; answers each with JSON."""
    import numpy as np

    images, labels = make_data(count)
    epoch = WAYS[way](images, labels)
    epoch(np.arange(BATCH))
    print(json.dumps({"first_step": time.perf_counter() - START}), flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        epoch(np.arange(count))
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"rate": count / seconds, "cpu": 1e6 * cpu / count, "peak": peak}), flush=True)


def ask(process):
    """The next line of JSON from a child; a framework's own words are passed over."""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit("a way to train ended early; its last words stand above")


def main():
    """Runs the rounds and prints a table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6016)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", default="task,fit,batch,hand")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child, options.images)
    ways = options.ways.split(",")
    command = [sys.executable, __file__, "--images", str(options.images), "--child"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started, found = {}, {way: [] for way in ways}
    for way in ways:
        process = subprocess.Popen([*command, way], **pipes)
        started[way] = process, ask(process)
    for _ in range(options.rounds):
        for way, (process, _) in started.items():
            process.stdin.write("\n")
            process.stdin.flush()
            found[way].append(ask(process))
    report(options, started, found)
    return None


def report(options, started, found):
    """Prints medians: images per second, the ratio to the first way, CPU seconds, first step, peak memory."""
    medians = {w: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]} for w, rounds in found.items()}
    first = next(iter(medians.values()))
    where = f"{platform.machine()}, {os.cpu_count()} cores, KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')}"
    print(f"{options.images} images, median of {options.rounds} interleaved rounds; {where}\n")
    print("| way | images/s | ratio | CPU s / 1000 images | first step s | peak MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way, values in medians.items():
        process, begun = started[way]
        process.stdin.close()
        process.wait()
        ratio, cpu, peak = values["rate"] / first["rate"], values["cpu"] / 1000, values["peak"] / 1e6
        print(f"| {way} | {values['rate']:.0f} | {ratio:.2f} | {cpu:.2f} | {begun['first_step']:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
