"""The other libraries on the same work, each as its documentation shows, and the floor."""

from __future__ import annotations

import importlib
import os
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.work import FIRST, Given, Work
from sumrnn.config import TrainConfig

MATRIX = 3_000
"""Rows and columns of the product that measures the machine."""
PRODUCTS = 8
"""How many are timed in a row: the first alone is slowed by cores and memory at rest."""


class Peer(Protocol):
    """A program with the work before it."""

    def epoch(self) -> float:
        """Trains for an epoch from where it is; the mean loss of its steps."""

    def losses(self) -> list[float]:
        """Losses of the first steps from the initial parameters, to which it returns."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Matrix:
    """The floor: large products, with nothing around them."""

    def __init__(self) -> None:
        self._jax: Any = importlib.import_module("jax")
        self._dot = self._jax.jit(self._jax.numpy.dot)
        self._a = self._jax.random.uniform(self._jax.random.key(0), (MATRIX, MATRIX))

    def epoch(self) -> float:
        """The products, whose time is what is asked for."""
        for _ in range(PRODUCTS):
            self._jax.block_until_ready(self._dot(self._a, self._a))
        return 0.0

    def losses(self) -> list[float]:
        """None: it learns nothing."""
        return []


class Keras:
    """`model.fit` with the defaults of Keras."""

    def __init__(self, work: Work, given: Given, backend: Literal["tensorflow", "jax"]) -> None:
        os.environ["KERAS_BACKEND"] = backend
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        keras: Any = importlib.import_module("keras")
        self._batch_size = work.batch_size
        self._x = given.digits[..., None].astype(np.float32)
        self._y = given.labels[:, None].astype(np.float32)
        adam = TrainConfig()
        self._model = keras.Sequential(
            [
                keras.Input((work.length, 1)),
                keras.layers.LSTM(work.cells),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )
        self._model.compile(
            optimizer=keras.optimizers.Adam(
                adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon
            ),
            loss=keras.losses.BinaryCrossentropy(),
        )
        output = given.params["output"]["dense"]
        self._weights = [
            given.side_by_side("i", "kernel"),
            given.side_by_side("h", "kernel"),
            given.side_by_side("h", "bias"),
            output["kernel"],
            output["bias"],
        ]
        self._model.optimizer.build(self._model.trainable_variables)
        self._moments = [np.asarray(x) for x in self._model.optimizer.variables]
        self._reset()

    def _reset(self) -> None:
        self._model.set_weights(self._weights)
        for variable, value in zip(self._model.optimizer.variables, self._moments, strict=True):
            variable.assign(value)

    def epoch(self) -> float:
        """`fit` of one epoch."""
        fitted = self._model.fit(
            self._x, self._y, batch_size=self._batch_size, epochs=1, shuffle=False, verbose=0
        )
        return float(fitted.history["loss"][0])

    def losses(self) -> list[float]:
        """By `train_on_batch`, whose loss is a running mean unless it is reset."""
        self._reset()
        size, found = self._batch_size, []
        for first in range(0, min(FIRST * size, len(self._y)), size):
            self._model.reset_metrics()
            rows = slice(first, first + size)
            found.append(float(self._model.train_on_batch(self._x[rows], self._y[rows])))
        self._reset()
        return found


class PyTorch:
    """A plain loop over batches, on all cores."""

    def __init__(self, work: Work, given: Given) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(cores())
        self._batch_size, self._given = work.batch_size, given
        self._x = self._torch.from_numpy(given.digits[..., None].astype(np.float32))
        self._y = self._torch.from_numpy(given.labels.astype(np.float32))
        self._lstm = self._torch.nn.LSTM(1, work.cells, batch_first=True)
        self._output = self._torch.nn.Linear(work.cells, 1)
        self._loss = self._torch.nn.BCEWithLogitsLoss()
        # It has two biases; were both to learn, Adam would move their sum twice as far.
        self._lstm.bias_hh_l0.requires_grad_(False)
        self._reset()

    def _reset(self) -> None:
        output = self._given.params["output"]["dense"]
        values = {
            self._lstm.weight_ih_l0: self._given.side_by_side("i", "kernel").T,
            self._lstm.weight_hh_l0: self._given.side_by_side("h", "kernel").T,
            self._lstm.bias_ih_l0: self._given.side_by_side("h", "bias"),
            self._lstm.bias_hh_l0: np.zeros(self._lstm.bias_hh_l0.shape, np.float32),
            self._output.weight: output["kernel"].T,
            self._output.bias: output["bias"],
        }
        with self._torch.no_grad():
            for parameter, value in values.items():
                parameter.copy_(self._torch.from_numpy(np.ascontiguousarray(value)))
        adam = TrainConfig()
        self._adam = self._torch.optim.Adam(
            [parameter for parameter in values if parameter.requires_grad],
            lr=adam.learning_rate,
            betas=(adam.beta1, adam.beta2),
            eps=adam.epsilon,
        )

    def _step(self, first: int) -> float:
        x = self._x[first : first + self._batch_size]
        y = self._y[first : first + self._batch_size]
        self._adam.zero_grad()
        hidden, _ = self._lstm(x)
        loss = self._loss(self._output(hidden[:, -1])[:, 0], y)
        loss.backward()
        self._adam.step()
        return float(loss.item())

    def epoch(self) -> float:
        """A step for every batch."""
        size = len(self._y)
        steps = range(0, size, self._batch_size)
        return sum(self._step(i) * min(self._batch_size, size - i) for i in steps) / size

    def losses(self) -> list[float]:
        """Of the same steps."""
        self._reset()
        size = self._batch_size
        found = [self._step(i) for i in range(0, min(FIRST * size, len(self._y)), size)]
        self._reset()
        return found


def create(name: str, work: Work, given: Given, settings: dict[str, Any]) -> Peer:
    """The program of this name; only its own library is imported."""
    if name == "matrix":
        return Matrix()
    if name == "keras":
        return Keras(work, given, **settings)
    if name == "pytorch":
        return PyTorch(work, given)
    from benchmarks.product import Sumrnn

    return Sumrnn(work, given, **settings)
