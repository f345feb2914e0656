"""The other libraries on the same work, each as its documentation shows, and the floor."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.work import FIRST, WEIGHTS, Given, Work, batches
from sumrnn.config import TrainConfig
from sumrnn.devices import processor

MATRIX = 3_000
"""Rows and columns of the product that measures the machine."""
PRODUCTS = 8
"""How many are timed in a row: the first alone is slowed by cores and memory at rest."""
ADAM = TrainConfig()


class Peer(NamedTuple):
    """A program with the work before it."""

    epoch: Callable[[], float]
    """Trains for an epoch from where it is; the mean loss of its steps."""
    losses: Callable[[], list[float]]
    """Trains for the first steps; their losses."""


def matrix() -> Peer:
    """The floor: large products, with nothing around them."""
    jax: Any = importlib.import_module("jax")
    dot = jax.jit(jax.numpy.dot)
    a = jax.random.uniform(jax.random.key(0), (MATRIX, MATRIX))

    def epoch() -> float:
        for _ in range(PRODUCTS):
            jax.block_until_ready(dot(a, a))
        return 0.0

    return Peer(epoch, list)


def keras(work: Work, given: Given, backend: Literal["tensorflow", "jax"]) -> Peer:
    """`model.fit` with the defaults of Keras."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    keras: Any = importlib.import_module("keras")
    x = given["digits"][..., None].astype(np.float32)
    y = given["labels"][:, None].astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input((work.length, 1)),
            keras.layers.LSTM(work.cells),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(ADAM.learning_rate, ADAM.beta1, ADAM.beta2, ADAM.epsilon),
        loss=keras.losses.BinaryCrossentropy(),
    )
    model.set_weights([given[name] for name in WEIGHTS])

    def epoch() -> float:
        done = model.fit(x, y, batch_size=work.batch_size, epochs=1, shuffle=False, verbose=0)
        return float(done.history["loss"][0])

    def loss(x: np.ndarray, y: np.ndarray) -> float:
        model.reset_metrics()  # Or it would be a running mean.
        return float(model.train_on_batch(x, y))

    first = itertools.islice(batches(x, y, work.batch_size), FIRST)
    return Peer(epoch, lambda: [loss(*batch) for batch in first])


def pytorch(work: Work, given: Given) -> Peer:
    """A plain loop over batches, on all cores."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(processor.cores())
    x = torch.from_numpy(given["digits"][..., None].astype(np.float32))
    y = torch.from_numpy(given["labels"].astype(np.float32))
    lstm = torch.nn.LSTM(1, work.cells, batch_first=True)
    output = torch.nn.Linear(work.cells, 1)
    # It has two biases; were both to learn, Adam would move their sum twice as far.
    lstm.bias_hh_l0.requires_grad_(False)
    values = {
        lstm.weight_ih_l0: given["inputs"].T,
        lstm.weight_hh_l0: given["recurrent"].T,
        lstm.bias_ih_l0: given["bias"],
        lstm.bias_hh_l0: np.zeros(lstm.bias_hh_l0.shape, np.float32),
        output.weight: given["output"].T,
        output.bias: given["output_bias"],
    }
    with torch.no_grad():
        for parameter, value in values.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    adam = torch.optim.Adam(
        [parameter for parameter in values if parameter.requires_grad],
        lr=ADAM.learning_rate,
        betas=(ADAM.beta1, ADAM.beta2),
        eps=ADAM.epsilon,
    )
    bce = torch.nn.BCEWithLogitsLoss()

    def step(x: Any, y: Any) -> float:
        adam.zero_grad()
        hidden, _ = lstm(x)
        loss = bce(output(hidden[:, -1])[:, 0], y)
        loss.backward()
        adam.step()
        return float(loss.item())

    steps = list(batches(x, y, work.batch_size))
    return Peer(
        lambda: sum(step(x, y) * len(y) for x, y in steps) / len(y),
        lambda: [step(x, y) for x, y in steps[:FIRST]],
    )


def create(name: str, work: Work, given: Given, settings: dict[str, Any]) -> Peer:
    """The program of this name (see `speed.NAMES`); only its own library is imported."""
    if name == "matrix":
        return matrix()
    if name.startswith("keras"):
        return keras(work, given, **settings)
    if name == "pytorch":
        return pytorch(work, given)
    from benchmarks import product
    from sumrnn.devices import mesh

    mesh.use_cores()
    return product.sumrnn(work, given, **settings)
