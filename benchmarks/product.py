"""What the workers do with this package: its epochs, its growth, and the file they share."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from statistics import median
from typing import Literal

import jax
import numpy as np
import threadpoolctl

from benchmarks import work as work_lib
from benchmarks.work import FIRST, Given, Work
from sumrnn import placement, train
from sumrnn.config import Config
from sumrnn.task import Split


def _initial(config: Config, seed: int) -> train.State:
    """The state that a run starts from, on the host."""
    # The orthogonal initialiser goes to LAPACK, whose bits depend on its threads.
    with threadpoolctl.threadpool_limits(1, "blas"):
        state: train.State = jax.device_get(train.init(config, train.keys(config, seed).init))
    return state


class Sumrnn:
    """One run or several, as `placement.fit` computes them, an epoch at a time."""

    def __init__(
        self,
        work: Work,
        given: Given,
        seeds: Sequence[int],
        batch_shards: int | None = None,
        recurrence: Literal["fused", "scan"] = "fused",
    ) -> None:
        placement.use_cores()
        self._config, self._given = work.config(batch_shards, recurrence), given
        plan = placement.plan(len(seeds), self._config)
        self._waves = [
            placement.Wave(self._config, mine, plan) for mine in placement.waves(seeds, plan)
        ]
        self._initial = _initial(self._config, seeds[0])

    def epoch(self) -> float:
        """Trains every run for an epoch; the first run's mean loss."""
        losses = [wave.step().metrics.loss for wave in self._waves]
        return float(losses[0][0])

    def losses(self) -> list[float]:
        """Losses of the first steps from the initial parameters, which stay as they are."""
        return first_losses(self._config, self._initial, self._given)


def first_losses(config: Config, state: train.State, given: Given) -> list[float]:
    """Mean loss of each of the first batches, before its step."""
    size, found = config.train.batch_size, []
    for first in range(0, min(FIRST * size, len(given.labels)), size):
        batch = Split(given.digits[first : first + size], given.labels[first : first + size])
        state, (loss, _) = train.train_step(config, state, batch)
        found.append(float(loss) / len(batch.labels))
    return found


def make(work: Work, path: pathlib.Path) -> list[float]:
    """Writes the file that all workers start from; the first losses that they must find."""
    placement.use_cores()
    config = work.config()
    keys = train.keys(config, work.seed)
    data, state = train.make_data(config, keys.data), _initial(config, work.seed)
    order = jax.random.permutation(jax.random.fold_in(keys.shuffle, 0), work.size)
    work_lib.save(path, data.train.digits, data.train.labels, np.asarray(order), state.params)
    return first_losses(config, state, work_lib.load(path))


def fit_seconds(work: Work, seeds: int, epochs: int) -> float:
    """Seconds of an epoch of all seeds together, the median of some after the first."""
    placement.use_cores()
    ends: dict[tuple[int, ...], list[float]] = {}

    def watch(moment: placement.Moment) -> None:
        ends.setdefault(moment.seeds, []).append(time.perf_counter())

    placement.fit(work.config(epochs=1 + epochs), range(work.seed, work.seed + seeds), watch=watch)
    return sum(median(np.diff(times).tolist()) for times in ends.values())
