"""The exercise as it is usually solved, in Keras: data, fit, accuracy, confusion matrix."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

SERIES, LENGTH, THRESHOLD = 10_000, 30, 100


def draw(counts: np.ndarray, path: str) -> None:
    """A heat map of the confusion matrix."""
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    figure.colorbar(ax.imshow(counts, cmap="Blues"))
    for (row, column), count in np.ndenumerate(counts):
        ax.text(column, row, str(count), ha="center", va="center")
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="predicted", ylabel="true")
    figure.savefig(path)


def load() -> Any:
    """Keras on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return importlib.import_module("keras")


def split() -> Any:
    """Digits and labels: training, test; training, test."""
    digits = np.random.default_rng(12).integers(0, 9, (SERIES, LENGTH, 1))
    labels = (digits.sum(axis=(1, 2)) >= THRESHOLD).astype(int)
    return train_test_split(digits, labels, test_size=0.2, random_state=12)


def compiled(keras: Any) -> Any:
    """The network."""
    model = keras.Sequential(
        [
            keras.Input((LENGTH, 1)),
            keras.layers.LSTM(200),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def train(model: Any, x: Any, y: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
    """Fits the network; a line per epoch."""
    model.fit(
        x,
        y,
        batch_size=50,
        epochs=epochs,
        validation_split=0.1,
        shuffle=True,
        verbose=2,
        callbacks=list(callbacks),
    )


def main() -> None:
    """Solves it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", default="confusion.png", help="the confusion matrix's picture")
    arguments = parser.parse_args()
    model = compiled(load())
    x, x_test, y, y_test = split()
    train(model, x, y, arguments.epochs)
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test loss {loss:.4f}  test accuracy {accuracy:.4f}")
    answers = model.predict(x_test, verbose=0)[:, 0] > 0.5
    draw(confusion_matrix(y_test, answers), arguments.out)


if __name__ == "__main__":
    main()
