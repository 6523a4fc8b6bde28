"""Keras' mnist_mlp.py as it is, on the backend that KERAS_BACKEND names; prints seconds per epoch as JSON."""

import gzip
import json
import os
import sys
import time

import keras
import numpy as np

EPOCHS = int(sys.argv[1])
FOLDER = os.environ["MNIST_DIR"]


def read(name, offset):
    with gzip.open(f"{FOLDER}/{name}.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


class Clock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seconds, self.accuracy = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.began)
        self.accuracy.append(float(logs["val_accuracy"]))


x_train = read("train-images-idx3-ubyte", 16).reshape(60000, 784).astype("float32") / 255
x_test = read("t10k-images-idx3-ubyte", 16).reshape(10000, 784).astype("float32") / 255
y_train = keras.utils.to_categorical(read("train-labels-idx1-ubyte", 8), 10)
y_test = keras.utils.to_categorical(read("t10k-labels-idx1-ubyte", 8), 10)

model = keras.Sequential(
    [
        keras.layers.Input((784,)),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(), metrics=["accuracy"])
clock = Clock()
model.fit(
    x_train, y_train, batch_size=128, epochs=EPOCHS, verbose=0, validation_data=(x_test, y_test), callbacks=[clock]
)
score = model.evaluate(x_test, y_test, verbose=0)
print(json.dumps({"epoch_seconds": clock.seconds, "test_accuracy": float(score[1])}))
