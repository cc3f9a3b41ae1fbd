"""Writes tests/model_from_theano/: a small model that Keras 2.3.1 on Theano trained and saved, and what it answers.

Run in the Theano image, from the repository's root:

    docker run --rm -e DEVICE=cpu -u "$(id -u)" -v "$PWD/train-cnn:/task" --tmpfs /tmp:exec localhost/theano:dev \
        python /task/tests/make_model_from_theano.py

test_train_cnn.py loads the model in Keras 3 and compares its answers with these.
"""

import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.dont_write_bytecode = True

import model_files  # noqa: E402
from trainers import keras_trainer, optimizer_of, reproducible  # noqa: E402


def main():
    """Trains on vertical against horizontal edges, 2 bands of 7 x 9 pixels, so that a turned kernel shows."""
    reproducible(1, "theano")
    images = np.random.randint(0, 100, (256, 2, 7, 9)).astype("uint8")
    labels = np.arange(256) % 2
    images[labels == 0, :, 3:] += 120
    images[labels == 1, :, :, 4:] += 120
    settings = {"batch_size": 32, "classes": [0, 1], "top": 255, "bands_last": False}
    model = model_files.build(2, 7, 9, 2, bands_last=False)
    train = keras_trainer(model, optimizer_of(model_files.keras, "adadelta", 1.0), settings)
    for _ in range(2):  # so that its answers are not yet all 0 or 1
        print(train(images, labels) / len(images))
    folder = os.path.join(HERE, "model_from_theano")
    model_files.save_architecture(os.path.join(folder, "model_architecture.json"), 2, 7, 9, 2)
    model_files.save_weights(os.path.join(folder, "model_weights.h5"), model)
    answers = model.predict(images[:8].astype("float32") / np.float32(255))
    with open(os.path.join(folder, "answers.json"), "w", encoding="utf-8") as file:
        json.dump({"images": images[:8].tolist(), "answers": answers.astype("float64").tolist()}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
