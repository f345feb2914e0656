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
from sumrnn.train import answers, exam
from sumrnn.train import run as algorithm
from sumrnn.train.answers import Answers
from sumrnn.train.run import Metrics, Result, State


class Start(NamedTuple):
    """Where runs go on; every array has a leading axis of seeds."""

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
    """Of this epoch, float32 [seeds] each."""
    finite: np.ndarray
    """bool [seeds]: whether losses, parameters and optimizer state are all numbers."""
    state: State
    """Where it was computed; see `fetch`."""

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
        self._blocks = answers.blocks(config.task)
        own = np.stack([np.asarray(algorithm.purposes(config, seed)) for seed in seeds])
        with compiler.one_thread():
            begun = jax.block_until_ready(program.begin(self._put(own)))
        self._data, self._state, self._shuffle = begun
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
        found = self._answers(self._blocks.validation)
        loss, accuracy, finite = self._fetch(rest)
        metrics = Metrics(loss, accuracy, *answers.total(found))
        finite = finite & np.isfinite(metrics).all(axis=0)
        self._history.append(metrics)
        return Moment(self.seeds, self.epoch, metrics, finite, self._state)

    def result(self) -> Result:
        """The runs as they are now, on the host, with a leading axis of seeds."""
        found = [part.logits for part in self._answers(self._blocks.all)]
        logits = answers.join(self._config.task, found)
        state, data = self._fetch((self._state, self._data))
        history = jax.tree.map(lambda *epochs: np.stack(epochs, axis=1), *self._history)
        return Result(state, history, data, logits)

    def examine(self) -> Sequence[Counts | None]:
        """What each run's exam finds, see `exam.examine`; None if the task has none."""
        if not exam.has_exam(self._config.task):
            return [None] * len(self.seeds)
        runs, laws = len(self.seeds), self._program.table

        def ask(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
            numbers = self._put(np.full(runs, number, np.uint32))
            data = self._program.draw(laws, self._put(sums), numbers)
            return np.concatenate([x.logits for x in self._answers(blocks, data)], axis=1)

        return exam.examine(self._config, runs, ask)

    def _answers(self, many: int, data: Any = None) -> list[Answers]:
        """The answers to the first blocks, of the runs' own data unless given, on the host."""
        data = self._data if data is None else data
        numbers = (self._put(np.full(len(self.seeds), n, np.uint32)) for n in range(many))
        with jax.debug_nans(False), jax.debug_infs(False):
            found = [self._program.answer(self._state.params, data, n) for n in numbers]
        return [self._fetch(part) for part in found]

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
    """Cuts seeds into those of each wave."""
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
    program, found = mesh.prepare(config, len(seeds), per_device), []
    for own in waves(seeds, program.plan.wave):
        wave = Wave(program, config, own)
        while wave.epoch < config.train.epochs:
            watch(wave.step())
        found.append(wave.result())
    return compiler.with_names(jax.tree.map(lambda *parts: np.concatenate(parts), *found))
