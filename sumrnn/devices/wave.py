"""Waves: runs that are trained at the same time, epoch by epoch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import chex
import jax
import numpy as np

from sumrnn.config import Config
from sumrnn.devices import compiler, mesh
from sumrnn.devices.mesh import CompiledFunctions
from sumrnn.scores.strata import Counts
from sumrnn.seeds import check_seeds
from sumrnn.train import evaluation, predictions
from sumrnn.train import run as algorithm
from sumrnn.train.predictions import Predictions
from sumrnn.train.run import Metrics, Result, State


class Start(NamedTuple):
    """The state and history of runs that are continued, with a leading axis of seeds."""

    state: State
    history: Metrics
    """float32 [seeds, finished epochs] each."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """The runs of a wave just after an epoch."""

    seeds: tuple[int, ...]
    epoch: int
    """The number of finished epochs."""
    metrics: Metrics
    """The metrics of this epoch, float32 [seeds] each."""
    finite: np.ndarray
    """bool [seeds]: whether losses, parameters and optimizer state are all numbers."""
    state: State
    """The state of all seeds on the devices."""

    def fetch(self) -> State:
        """The state on the host, NumPy arrays with a leading axis of seeds."""
        return cast(State, _to_host(self.state, len(self.seeds)))


class Wave:
    """Runs that are trained at the same time, an epoch per `step`.

    Args:
      compiled: the functions of the runs.
      config: of the runs; its `canonical` one is that of the functions.
      seeds: at most `compiled.plan.wave_size`, in [0, 2^32).
      start: the state and history from which the runs go on; None: they begin.
    """

    def __init__(
        self,
        compiled: CompiledFunctions,
        config: Config,
        seeds: Sequence[int],
        *,
        start: Start | None = None,
    ) -> None:
        self.seeds = tuple(seeds)
        self._compiled, self._config = compiled, config
        self._blocks = predictions.blocks(config.task)
        purpose_seeds = np.stack(
            [np.asarray(algorithm.purpose_seeds(config, seed)) for seed in seeds]
        )
        with compiler.one_thread():
            begun = jax.block_until_ready(compiled.begin(self._put(purpose_seeds)))
        self._data, self._state, self._shuffle = begun
        self._history: list[Metrics] = []
        if start is not None:
            self._state = jax.tree.map(self._put, start.state)
            epochs = range(start.history.loss.shape[1])
            self._history = [Metrics(*(x[:, n] for x in start.history)) for n in epochs]

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self._history)

    def step(self) -> Moment:
        """Trains every run for an epoch, and validates it."""
        number = self._put(np.full(len(self.seeds), self.epoch, np.uint32))
        # Numbers that are not finite are reported in the moment.
        with jax.debug_nans(False), jax.debug_infs(False):
            arguments = (self._state, self._shuffle, self._data.train, number)
            self._state, *outcome = self._compiled.epoch(*arguments)
        blocks = self._predict(self._blocks.validation)
        loss, accuracy, finite = self._fetch(outcome)
        metrics = Metrics(loss, accuracy, *predictions.total(blocks))
        finite = finite & np.isfinite(metrics).all(axis=0)
        self._history.append(metrics)
        return Moment(self.seeds, self.epoch, metrics, finite, self._state)

    def result(self) -> Result:
        """The runs as they are now, on the host, with a leading axis of seeds."""
        blocks = [block.logits for block in self._predict(self._blocks.all)]
        logits = predictions.join(self._config.task, blocks)
        state, data = self._fetch((self._state, self._data))
        history = jax.tree.map(lambda *epochs: np.stack(epochs, axis=1), *self._history)
        return Result(state, history, data, logits)

    def count_errors(self) -> Sequence[Counts | None]:
        """The errors of each run in exact evaluation, by stratum; None if the task has none."""
        if not evaluation.is_evaluated(self._config.task):
            return [None] * len(self.seeds)
        runs, log_pmfs = len(self.seeds), self._compiled.replicated_log_pmfs

        def logits_for(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
            numbers = self._put(np.full(runs, number, np.uint32))
            data = self._compiled.draw(log_pmfs, self._put(sums), numbers)
            return np.concatenate([block.logits for block in self._predict(blocks, data)], axis=1)

        return evaluation.count_errors(self._config, runs, logits_for)

    def _predict(self, count: int, data: Any = None) -> list[Predictions]:
        """The host's predictions for the first `count` blocks of data; None: of the runs' data."""
        data = self._data if data is None else data
        numbers = (self._put(np.full(len(self.seeds), n, np.uint32)) for n in range(count))
        with jax.debug_nans(False), jax.debug_infs(False):
            # One after the other: programs that exchange between devices and do not wait for each
            # other may each hold a thread that the other one needs, for ever.
            return [
                self._fetch(self._compiled.predict(self._state.params, data, n)) for n in numbers
            ]

    def _put(self, rows: np.ndarray) -> chex.Array:
        """The rows of the runs on the devices; the last one is repeated to fill the wave."""
        missing = self._compiled.plan.wave_size - len(self.seeds)
        padded = np.concatenate((rows, np.repeat(rows[-1:], missing, axis=0)))
        sharding = self._compiled.sharding
        with jax.transfer_guard("allow"):  # This transfer is meant.
            return jax.make_array_from_callback(padded.shape, sharding, lambda i: padded[i])

    def _fetch(self, tree: Any) -> Any:
        return _to_host(tree, len(self.seeds))


def _to_host(tree: Any, rows: int) -> Any:
    """The first rows of the arrays of a tree, as NumPy arrays."""
    return jax.tree.map(lambda x: x[:rows], jax.device_get(tree))


def fit_many(
    config: Config,
    seeds: Sequence[int],
    per_device: int | None = None,
    *,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Result:
    """Trains a network of a config for each seed, on all devices.

    On CPU every run has the bits of `sumrnn.fit`.

    Args:
      config: of task, model and training.
      seeds: different ones in [0, 2^32).
      per_device: the number of seeds that a GPU or TPU takes at once; None: as many as its memory
        holds.
      watch: is called after each epoch of each wave.

    Returns:
      The result of `sumrnn.fit`, every array with a leading axis of seeds.

    Raises:
      UserError: if the seeds are impossible, or memory does not hold a run.
    """
    seeds = check_seeds("seeds", seeds)
    compiled, results = mesh.prepare(config, len(seeds), per_device), []
    size = compiled.plan.wave_size
    for first in range(0, len(seeds), size):
        wave = Wave(compiled, config, seeds[first : first + size])
        while wave.epoch < config.train.epochs:
            watch(wave.step())
        results.append(wave.result())
    return compiler.with_names(jax.tree.map(lambda *arrays: np.concatenate(arrays), *results))
