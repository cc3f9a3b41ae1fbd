"""The part of training that depends on the framework: TensorFlow under Keras 3, Theano under Keras 2.3.1.

A trainer is a function (images, labels) -> [sum of losses, correct answers]. It trains on several batches in one call;
images are (n, bands, rows, cols) in their own type and labels (n,) int64. Casting and scaling happen batch by batch.
"""

import numpy as np

# The learning rate of each optimizer when none is given. 'adadelta' alone means 1.0 in Keras 2 and 0.001 in Keras 3,
# with which the network learns nothing in ten epochs; 1.0 is what the walkthrough had.
LEARNING_RATES = {"adadelta": 1.0, "adam": 0.001, "rmsprop": 0.001, "sgd": 0.01}


def optimizer_of(keras, name, learning_rate):
    """The optimizer, with the same numbers in every version of Keras."""
    kinds = {"adadelta": "Adadelta", "adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}
    more = {"adadelta": {"rho": 0.95, "epsilon": 1e-7}, "adam": {"epsilon": 1e-7}, "rmsprop": {"epsilon": 1e-7}}
    return getattr(keras.optimizers, kinds[name])(learning_rate, **more.get(name, {}))


def reproducible(seed, framework):
    """Fixes all random numbers, and with TensorFlow the order of every sum."""
    np.random.seed(seed)
    if framework == "tensorflow":
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()


def tensorflow_trainer(model, optimizer, settings):
    """A trainer whose loop over the batches is compiled, since Python would be slower than a card.

    Its sums are still being computed when it returns; reading them waits.
    """
    import keras
    import tensorflow as tf

    weights, size = model.trainable_variables, settings["batch_size"]
    optimizer.build(weights)
    on_card = settings["device"]["kind"] == "gpu"
    bands, rows, cols = settings["images"].shape[1:]
    images_type = tf.TensorSpec((None, None, rows, cols, bands), settings["images"].dtype)

    def step(images, labels):
        images = tf.cast(images, tf.float32) / settings["top"]
        with tf.GradientTape() as tape:
            answers = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, answers)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        correct = tf.argmax(answers, 1, labels.dtype) == labels
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(correct, tf.float32))

    @tf.function(input_signature=[images_type, tf.TensorSpec((None, None), "int64")], jit_compile=on_card)
    def steps(images, labels):
        """images: (batches, size, rows, cols, bands), labels: (batches, size)."""
        loss, correct = tf.zeros(()), tf.zeros(())
        for number in tf.range(tf.shape(images)[0]):
            more_loss, more_correct = step(images[number], labels[number])
            loss, correct = loss + more_loss, correct + more_correct
        return loss, correct

    def train(images, labels):
        images = np.ascontiguousarray(np.moveaxis(images, 1, 3))
        whole = len(images) // size * size
        parts = [(slice(0, whole), size), (slice(whole, None), len(images) - whole)]
        sums = [
            steps(images[part].reshape(-1, length, *images.shape[1:]), labels[part].reshape(-1, length))
            for part, length in parts
            if length and len(images[part])
        ]
        return [sum(parts) for parts in zip(*sums)]

    return train


def keras_trainer(model, optimizer, settings):
    """A trainer for any back end of any Keras, a batch at a time: what Theano gets."""
    size, classes = settings["batch_size"], len(settings["classes"])
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])

    def train(images, labels):
        sums = np.zeros(2)
        for first in range(0, len(images), size):
            batch = scaled(images[first : first + size], settings)
            sums += len(batch) * np.array(model.train_on_batch(batch, np.eye(classes)[labels[first : first + size]]))
        return sums

    return train


def scaled(images, settings):
    """A batch of images as the model takes them: float32 from 0 to 1, bands last where the model has them last."""
    images = images.astype("float32") / np.float32(settings["top"])
    return np.ascontiguousarray(np.moveaxis(images, 1, 3)) if settings["bands_last"] else images
