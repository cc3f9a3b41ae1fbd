"""Writes test_inputs/: 420 small chips of three land covers that a network learns to tell apart. No data of anyone's.

    python3 make_test_inputs.py

Four bands (blue, green, red, near infrared) of 16 x 16 pixels, 8 bits. Fields are bright in the near infrared with rows
across them, water is dark with a soft swell, roofs are bright blocks with edges. The labels are 2, 5 and 9, so that a
network that takes labels for positions is found out. The brightness of each chip varies, so that one pixel says little.
"""

import os

import numpy as np

SIDE, CHIPS, LABELS = 16, 140, (2, 5, 9)
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_inputs", "train_data")


def field(random, rows, cols):
    """Crop rows at a random angle, (rows, cols) from 0 to 1."""
    angle, phase = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    return 0.5 + 0.4 * np.sin((rows * np.cos(angle) + cols * np.sin(angle)) * 2.2 + phase)


def water(random, rows, cols):
    """A soft swell."""
    return 0.4 + 0.15 * np.sin(rows / 6 + random.uniform(0, 6)) * np.cos(cols / 7 + random.uniform(0, 6))


def roofs(random, rows, cols):
    """Two bright blocks on a dim ground."""
    found = np.full(rows.shape, 0.3)
    for _ in range(2):
        top, left = random.integers(0, SIDE - 6, 2)
        found[top : top + random.integers(4, 8), left : left + random.integers(4, 8)] = random.uniform(0.7, 0.95)
    return found


BANDS = {field: (0.25, 0.4, 0.3, 0.7), water: (0.45, 0.4, 0.3, 0.25), roofs: (0.5, 0.5, 0.55, 0.5)}


def chip(random, kind):
    """One chip of a kind, (bands, rows, cols) of uint8."""
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    pattern = kind(random, rows, cols) * random.uniform(0.5, 1.1)
    bands = np.array(BANDS[kind])[:, None, None] * random.uniform(0.6, 1.4, (4, 1, 1)) * pattern
    return np.clip(bands * 255 + random.normal(0, 8, bands.shape), 0, 255).astype("uint8")


def main():
    """Writes X.npz, y.npz and ports.json."""
    random = np.random.default_rng(20261123)
    images = np.array([chip(random, kind) for kind in BANDS for _ in range(CHIPS)])
    labels = np.repeat(LABELS, CHIPS)
    order = random.permutation(len(images))
    os.makedirs(FOLDER, exist_ok=True)
    np.savez_compressed(os.path.join(FOLDER, "X.npz"), images[order])
    np.savez_compressed(os.path.join(FOLDER, "y.npz"), labels[order].astype("int64"))
    with open(os.path.join(FOLDER, "..", "ports.json"), "w", encoding="utf-8") as file:
        file.write('{\n    "nb_epoch": "20",\n    "validation_split": "0.2"\n}\n')


if __name__ == "__main__":
    main()
