"""Equal work for this package and for other libraries, each used as its documentation shows."""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness, notebook
from benchmarks.harness import Row
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import machine

MATRIX = 3_000
"""Rows and columns of the product that measures the machine."""
PRODUCTS = 8
"""How many are timed in a row: the first alone is slowed by cores and memory at rest."""
TOLERANCE = 2e-3
"""Share by which the mean loss of a first epoch may differ between programs of equal work."""
ADAM = TrainConfig()
START = "start.npz"

Start = Mapping[str, np.ndarray]
"""What training starts from: digits uint8 [size, length] and labels uint8 [size] in the order of
the first epoch; the initial weights, float32, by the names of `exchange.arrays.Arrays`; and the
mean loss of the first epoch, float32 []."""


Watch = Callable[[float, tuple[int, ...]], None]
"""What a program calls after each epoch: with its mean loss, and the seeds of the wave."""


class Work(NamedTuple):
    """What is trained; there is one series more for each of validation and test."""

    size: int = 7_200
    """Training series."""
    length: int = 30
    """Digits per series."""
    cells: int = 200
    batch_size: int = 50
    seed: int = 12
    seeds: int = 1
    """How many runs, with seeds from `seed` on."""
    batch_shards: int = TrainConfig.batch_shards
    recurrence: str = ModelConfig.recurrence

    def config(self, epochs: int = 1) -> Config:
        """The config of each run; raises `UserError` if there is none."""
        task = TaskConfig(
            size=self.size + 2,
            length=self.length,
            threshold=TaskConfig.threshold * self.length // TaskConfig.length,
            test_fraction=1 / (self.size + 2),
            validation_fraction=1 / (self.size + 1),
        )
        recurrence: Any = self.recurrence
        train = TrainConfig(epochs, self.batch_size, self.batch_shards)
        return Config(task, ModelConfig(self.cells, recurrence=recurrence), train)

    @property
    def flops(self) -> int:
        """Additions and multiplications of the recurrent matrix products of an epoch of a run.

        A step has three, of four gates each: forward, and backward to the hidden state and the
        weights.
        """
        return 3 * 2 * self.size * self.length * self.cells * 4 * self.cells


def make_start(sizes: Row) -> Row:
    """Writes the `Start` of a run to the file `START`."""
    import jax

    import sumrnn
    from sumrnn.devices import compiler
    from sumrnn.exchange import arrays
    from sumrnn.models import network
    from sumrnn.train import run

    work = Work(**sizes)
    config = work.config()
    data, state, shuffle = compiler.compiled_functions(config).begin(
        run.purpose_seeds(config, work.seed)
    )
    order = np.asarray(jax.random.permutation(jax.random.fold_in(shuffle, 0), work.size))
    params = network.to_flax(jax.device_get(state.params))
    np.savez(
        START,
        digits=np.asarray(data.train.digits)[order],
        labels=np.asarray(data.train.labels)[order],
        loss=np.asarray(sumrnn.fit(config, work.seed).history.loss[0]),
        **arrays.from_params(params, config.model)._asdict(),
    )
    return {}


def train(program: str, sizes: Row, epochs: int, start: str | None = None) -> Row:
    """Trains for an epoch that compiles and so many more, with a program of `PROGRAMS`.

    Returns the `seconds` of a later epoch, the median, of one run; the `first_epoch`, in seconds
    from the start of the process to its end; and its mean `loss`.  Raises `ValueError` unless that
    is the loss of the start, a file, if any is given.
    """
    work, ends, losses = Work(**sizes), dict[tuple[int, ...], list[float]](), list[float]()

    def watch(loss: float, seeds: tuple[int, ...]) -> None:
        ends.setdefault(seeds, []).append(time.time())
        losses.append(float(loss))

    arrays: Start = {}
    if start is not None:
        with np.load(start, allow_pickle=False) as file:
            arrays = dict(file)
    PROGRAMS[program](work, arrays, 1 + epochs, watch)
    if arrays:
        check_loss(losses[0], float(arrays["loss"]))
    together = sum(median(np.diff(times).tolist()) for times in ends.values())
    first, *_ = ends.values()
    return {
        "seconds": together / work.seeds,
        "first_epoch": first[0] - float(os.environ[harness.BEGAN]),
        "loss": losses[0],
    }


def check_loss(loss: float, expected: float) -> None:
    """Raises `ValueError` if a program's first epoch has another mean loss than this package's."""
    if not abs(loss - expected) <= TOLERANCE * expected:
        what = f"its first epoch has the mean loss {loss:.6f}, that of sumrnn {expected:.6f}"
        raise ValueError(f"does other work; {what}")


def matrix() -> Row:
    """The speed of large matrix products with nothing around them, which no program can exceed."""
    import jax

    dot = jax.jit(jax.numpy.dot)
    a = jax.random.uniform(jax.random.key(0), (MATRIX, MATRIX))
    jax.block_until_ready(dot(a, a))
    began = time.time()
    for _ in range(PRODUCTS):
        jax.block_until_ready(dot(a, a))
    seconds = (time.time() - began) / PRODUCTS
    return {"seconds": seconds, "flops_per_second": 2 * MATRIX**3 / seconds}


def sumrnn_seeds(work: Work, start: Start, epochs: int, watch: Watch) -> None:
    """This package: `fit_many`, which draws the start itself."""
    import sumrnn

    sumrnn.use_cores()
    sumrnn.fit_many(
        work.config(epochs),
        range(work.seed, work.seed + work.seeds),
        watch=lambda moment: watch(float(moment.metrics.loss[0]), moment.seeds),
    )


def keras(backend: str, work: Work, start: Start, epochs: int, watch: Watch) -> None:
    """Keras with TensorFlow or JAX as its backend: `model.fit` with its defaults."""
    keras: Any = notebook.load(backend)
    model = notebook.network(keras, work.length, work.cells)
    model.compile(
        optimizer=keras.optimizers.Adam(ADAM.learning_rate, ADAM.beta1, ADAM.beta2, ADAM.epsilon),
        loss=keras.losses.BinaryCrossentropy(),
    )
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: watch(logs["loss"], ())
    )
    names = ("inputs", "recurrent", "bias", "output", "output_bias")
    model.set_weights([start[name] for name in names])
    model.fit(
        start["digits"][..., None].astype(np.float32),
        start["labels"][:, None].astype(np.float32),
        batch_size=work.batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )


def pytorch(work: Work, start: Start, epochs: int, watch: Watch) -> None:
    """A plain loop over batches, on all cores."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(machine.core_count())
    x = torch.from_numpy(start["digits"][..., None].astype(np.float32))
    y = torch.from_numpy(start["labels"].astype(np.float32))
    lstm = torch.nn.LSTM(1, work.cells, batch_first=True)
    output = torch.nn.Linear(work.cells, 1)
    model = torch.nn.ModuleDict({"lstm": lstm, "output": output})
    # It has two biases; were both to learn, Adam would move their sum twice as far.
    lstm.bias_hh_l0.requires_grad_(False)
    values = {
        "lstm.weight_ih_l0": start["inputs"].T,
        "lstm.weight_hh_l0": start["recurrent"].T,
        "lstm.bias_ih_l0": start["bias"],
        "lstm.bias_hh_l0": np.zeros_like(start["bias"]),
        "output.weight": start["output"].T,
        "output.bias": start["output_bias"],
    }
    model.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    adam = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=ADAM.learning_rate,
        betas=(ADAM.beta1, ADAM.beta2),
        eps=ADAM.epsilon,
    )
    bce = torch.nn.BCEWithLogitsLoss()

    steps = list(zip(x.split(work.batch_size), y.split(work.batch_size), strict=True))
    for _ in range(epochs):
        summed = 0.0
        for digits, labels in steps:
            adam.zero_grad()
            hidden, _ = lstm(digits)
            loss = bce(output(hidden[:, -1])[:, 0], labels)
            loss.backward()
            adam.step()
            summed += loss.item() * len(labels)
        watch(summed / work.size, ())


PROGRAMS: dict[str, Callable[[Work, Start, int, Watch], None]] = {
    "sumrnn": sumrnn_seeds,
    "keras-tensorflow": functools.partial(keras, "tensorflow"),
    "keras-jax": functools.partial(keras, "jax"),
    "pytorch": pytorch,
}
"""What `train` can be asked for; each imports only its own library."""
