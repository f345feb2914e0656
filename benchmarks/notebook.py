"""The exercise as it is usually solved, in Keras: data, fit, accuracy, confusion matrix."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

SERIES, LENGTH, THRESHOLD, CELLS = 10_000, 30, 100, 200


def load(backend: str = "tensorflow") -> Any:
    """Keras with a backend, which a process can only choose once."""
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return importlib.import_module("keras")


def split() -> Any:
    """Digits and labels: training, test; training, test."""
    from sklearn.model_selection import train_test_split

    digits = np.random.default_rng(12).integers(0, 9, (SERIES, LENGTH, 1))
    labels = (digits.sum(axis=(1, 2)) >= THRESHOLD).astype(int)
    return train_test_split(digits, labels, test_size=0.2, random_state=12)


def network(keras: Any, length: int = LENGTH, cells: int = CELLS) -> Any:
    """The network, not compiled."""
    return keras.Sequential(
        [
            keras.Input((length, 1)),
            keras.layers.LSTM(cells),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def train(model: Any, x: Any, y: Any, epochs: int, callbacks: Sequence[Any] = ()) -> None:
    """Compiles and fits the network; a line per epoch."""
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
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
    from sklearn.metrics import ConfusionMatrixDisplay

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    model = network(load())
    x, x_test, y, y_test = split()
    train(model, x, y, arguments.epochs)
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test loss {loss:.4f}  test accuracy {accuracy:.4f}")
    predicted = model.predict(x_test, verbose=0)[:, 0] > 0.5
    ConfusionMatrixDisplay.from_predictions(y_test, predicted).figure_.savefig("confusion.png")


if __name__ == "__main__":
    main()
