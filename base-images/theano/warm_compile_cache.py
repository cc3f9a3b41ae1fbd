"""Compiles the kernels of the walkthrough's network, so that the image carries them: about a minute, once.

Kernels know types and dimensions, not sizes: one size of image does for all but those so small that a side becomes 1.
"""

import contextlib
import os
import subprocess
import sysconfig
import tempfile

import numpy as np
from keras.layers import Activation, Conv2D, Dense, Dropout, Flatten, InputLayer, MaxPooling2D
from keras.models import Sequential
from keras.optimizers import SGD, Adadelta, Adam, RMSprop
from theano.gof.cmodule import GCC_compiler

HEADERS = """\
#include "Python.h"
#include <algorithm>
#include <iostream>
#include <math.h>
#include <vector>
#include <numpy/arrayobject.h>
"""


@contextlib.contextmanager
def precompiled_headers():
    """Compiles once, meanwhile, the headers that every kernel starts with: a third of the time of each.

    g++ takes Python.h.gch for Python.h where it was compiled with the same options.
    """
    include = sysconfig.get_path("platinclude")
    precompiled = os.path.join(include, "Python.h.gch")
    options = ["-g", "-O3", "-fno-math-errno", *GCC_compiler.compile_args(), "-fvisibility=hidden"]
    with tempfile.NamedTemporaryFile("w", suffix=".h") as headers:
        headers.write(HEADERS)
        headers.flush()
        folders = [f"-I{np.get_include()}", f"-I{include}"]
        subprocess.run(["g++", *options, *folders, "-o", precompiled, headers.name], check=True)
    try:
        yield
    finally:
        os.remove(precompiled)


def network(side):
    """The walkthrough's network, for images of four bands and side x side pixels."""
    convolutions = [Conv2D(32, 3), Activation("relu"), Conv2D(32, 3), Activation("relu"), MaxPooling2D(), Dropout(0.25)]
    dense = [Flatten(), Dense(128), Activation("relu"), Dropout(0.5), Dense(3), Activation("softmax")]
    return Sequential([InputLayer(batch_input_shape=(None, 4, side, side)), *convolutions, *dense])


def compile_kernels(side, optimizer):
    """Trains, tests and predicts once."""
    images, labels = np.zeros((3, 4, side, side), "float32"), np.eye(3, dtype="float32")
    model = network(side)
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    model.train_on_batch(images, labels)
    model.test_on_batch(images, labels)
    model.predict_on_batch(images)


if __name__ == "__main__":
    with precompiled_headers():
        for chosen in (Adadelta(), SGD(), Adam(), RMSprop()):
            compile_kernels(16, chosen)
        compile_kernels(6, Adadelta())
