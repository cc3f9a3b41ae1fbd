"""Compiles the kernels of the walkthrough's network, so that the image carries them: about a minute, once.

One and four bands, training and prediction, as train-cnn and the walkthrough's own script do them.
"""

import numpy as np
from keras.layers import Activation, Conv2D, Dense, Dropout, Flatten, InputLayer, MaxPooling2D
from keras.models import Sequential
from keras.optimizers import SGD, Adadelta, Adam


def network(bands, fused):
    """The walkthrough's network, its activations as layers of their own or (`fused`) as arguments."""

    def activated(layer, **arguments):
        return [layer(**arguments, activation="relu")] if fused else [layer(**arguments), Activation("relu")]

    layers = [InputLayer(batch_input_shape=(None, bands, 16, 16))]
    layers += activated(Conv2D, filters=32, kernel_size=3) + activated(Conv2D, filters=32, kernel_size=3)
    layers += [MaxPooling2D(), Dropout(0.25), Flatten(), *activated(Dense, units=128), Dropout(0.5)]
    return Sequential([*layers, Dense(3), Activation("softmax")])


for number, bands in enumerate((1, 4)):
    images, labels = (
        np.random.rand(256, bands, 16, 16).astype("float32"),
        np.eye(3, dtype="float32")[np.arange(256) % 3],
    )
    for fused in (True, False):
        for optimizer in (Adadelta(1.0, rho=0.95, epsilon=1e-7), *((SGD(), Adam()) if number == 0 else ())):
            model = network(bands, fused)
            model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
            model.fit(images, labels, batch_size=128, epochs=1, verbose=0, validation_split=0.5)
            model.train_on_batch(images, labels)
            model.predict(images, batch_size=128)
            model.get_weights(), model.optimizer.get_weights()
