"""Runs that are trained at the same time, epoch by epoch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import chex
import jax
import numpy as np

from sumrnn.config import Config, check_seeds
from sumrnn.devices import compiler, mesh
from sumrnn.devices.mesh import Program
from sumrnn.scores.strata import Counts
from sumrnn.train import evaluation, predictions
from sumrnn.train import run as algorithm
from sumrnn.train.predictions import Predictions
from sumrnn.train.run import Metrics, Result, State


class Start(NamedTuple):
    """The state and history from which runs go on; arrays have a leading axis of seeds."""

    state: State
    history: Metrics
    """float32 [seeds, epochs so far] each."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """The runs of a wave just after an epoch."""

    seeds: tuple[int, ...]
    epoch: int
    """Finished epochs."""
    metrics: Metrics
    """The metrics of this epoch, float32 [seeds] each."""
    finite: np.ndarray
    """bool [seeds]: whether losses, parameters and optimizer state are all numbers."""
    state: State
    """The state of all seeds on the devices; `fetch` brings it to the host."""

    def fetch(self) -> State:
        """The state on the host, with a leading axis of seeds."""
        return cast(State, _to_host(self.state, len(self.seeds)))


class Wave:
    """Runs that are trained at the same time, an epoch per `step`.

    The config may differ in what no program depends on; there are at most `program.plan.wave`
    seeds in [0, 2^32).  They go on from `start`, or from their beginning.
    """

    def __init__(
        self, program: Program, config: Config, seeds: Sequence[int], start: Start | None = None
    ) -> None:
        self.seeds = tuple(seeds)
        self._program, self._config = program, config
        self._blocks = predictions.blocks(config.task)
        keys = np.stack([np.asarray(algorithm.purpose_seeds(config, seed)) for seed in seeds])
        with compiler.one_thread():
            beginning = jax.block_until_ready(program.begin(self._put(keys)))
        self._data, self._state, self._shuffle = beginning
        self._history: list[Metrics] = []
        if start is not None:
            self._state = jax.tree.map(self._put, start.state)
            epochs = range(start.history.loss.shape[1])
            self._history = [Metrics(*(x[:, n] for x in start.history)) for n in epochs]

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self._history)

    def step(self) -> Moment:
        """Trains every run for an epoch."""
        number = self._put(np.full(len(self.seeds), self.epoch, np.uint32))
        # Numbers that are not finite are looked for, and told.
        with jax.debug_nans(False), jax.debug_infs(False):
            arguments = (self._state, self._shuffle, self._data.train, number)
            self._state, *rest = self._program.epoch(*arguments)
        blocks = self._predict(self._blocks.validation)
        loss, accuracy, finite = self._fetch(rest)
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
        """The errors of each run in exact evaluation; None if the task has none."""
        if not evaluation.is_evaluated(self._config.task):
            return [None] * len(self.seeds)
        runs, laws = len(self.seeds), self._program.table

        def logits_for(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
            numbers = self._put(np.full(runs, number, np.uint32))
            data = self._program.draw(laws, self._put(sums), numbers)
            return np.concatenate([x.logits for x in self._predict(blocks, data)], axis=1)

        return evaluation.count_errors(self._config, runs, logits_for)

    def _predict(self, count: int, data: Any = None) -> list[Predictions]:
        """The predictions for the first blocks of data, by default the runs', on the host."""
        data = self._data if data is None else data
        numbers = (self._put(np.full(len(self.seeds), n, np.uint32)) for n in range(count))
        with jax.debug_nans(False), jax.debug_infs(False):
            # One after the other: programs that exchange between devices and do not wait for each
            # other may each hold a thread that the other one needs, for ever.
            return [
                self._fetch(self._program.predict(self._state.params, data, n)) for n in numbers
            ]

    def _put(self, rows: np.ndarray) -> chex.Array:
        """The runs' rows on the devices, the last one once more for what a whole wave lacks."""
        missing = self._program.plan.wave - len(self.seeds)
        whole = np.concatenate((rows, np.repeat(rows[-1:], missing, axis=0)))
        place = self._program.sharding
        with jax.transfer_guard("allow"):  # This one is meant.
            return jax.make_array_from_callback(whole.shape, place, lambda part: whole[part])

    def _fetch(self, tree: Any) -> Any:
        return _to_host(tree, len(self.seeds))


def _to_host(tree: Any, rows: int) -> Any:
    """The first rows of a tree's arrays, as NumPy's."""
    return jax.tree.map(lambda x: x[:rows], jax.device_get(tree))


def waves(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Cuts seeds into the groups that are trained at the same time."""
    return [tuple(seeds[first : first + size]) for first in range(0, len(seeds), size)]


def fit_many(
    config: Config,
    seeds: Sequence[int],
    per_device: int | None = None,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Result:
    """`sumrnn.fit` of different seeds in [0, 2^32), on all devices; on CPU with the same bits.

    Every array of the result has a leading axis of seeds.  `watch` is called after each epoch of
    each wave; for `per_device` see `mesh.prepare`.  Raises `UserError` if the seeds are impossible,
    or memory does not hold a run.
    """
    seeds = check_seeds("seeds", seeds)
    program, results = mesh.prepare(config, len(seeds), per_device), []
    for group in waves(seeds, program.plan.wave):
        wave = Wave(program, config, group)
        while wave.epoch < config.train.epochs:
            watch(wave.step())
        results.append(wave.result())
    return compiler.with_names(jax.tree.map(lambda *parts: np.concatenate(parts), *results))
