"""A task in the manner of 2016: every call that the walkthrough's train_cnn.py makes, spelled as Keras 1 spelled it.

test_train_cnn_on_theano.py runs it on base-images/theano, where it has to work; on Keras 3 it doesn't.
"""

import json
import os

import numpy as np
from gbdx_task_interface import GbdxTaskInterface
from keras.layers import Activation, Convolution2D, Dense, Dropout, Flatten, MaxPooling2D
from keras.models import Sequential
from keras.utils import np_utils

with GbdxTaskInterface() as task:
    epochs = int(task.get_input_string_port("nb_epoch", default="10"))
    bits = int(task.get_input_string_port("bit_depth", default="8"))
    folder = task.get_input_data_port("train_data")
    images, labels = (np.load(os.path.join(folder, name))["arr_0"] for name in ("X.npz", "y.npz"))
    classes = len(np.unique(labels))
    images = images.astype("float32")
    images /= float(2**bits - 1)

    model = Sequential()
    model.add(Convolution2D(32, 3, 3, border_mode="valid", input_shape=images.shape[1:]))
    for layer in (Activation("relu"), Convolution2D(32, 3, 3), Activation("relu"), MaxPooling2D(pool_size=(2, 2))):
        model.add(layer)
    for layer in (Dropout(0.25), Flatten(), Dense(128), Activation("relu"), Dropout(0.5)):
        model.add(layer)
    model.add(Dense(classes))
    model.add(Activation("softmax"))
    model.compile(loss="categorical_crossentropy", optimizer="adadelta", metrics=["accuracy"])
    model.fit(images, np_utils.to_categorical(labels, classes), batch_size=128, nb_epoch=epochs, verbose=1)

    output = task.get_output_data_port("trained_model")
    os.makedirs(output)
    model.save_weights(os.path.join(output, "model_weights.h5"))
    with open(os.path.join(output, "model_architecture.json"), "w") as file:
        json.dump(model.to_json(), file)
