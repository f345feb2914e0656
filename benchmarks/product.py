"""What the workers do with this package: its epochs, its growth, and the file they share."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Literal

import jax
import numpy as np
import threadpoolctl
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import work as work_lib
from benchmarks.work import FIRST, Given, Work
from sumrnn import placement, train
from sumrnn.config import Config
from sumrnn.task import Split, Splits


def _start(config: Config, keys: train.Keys) -> tuple[Splits, train.State]:
    return train.make_data(config, keys.data), train.init(config, keys.init)


class Sumrnn:
    """One run or several, as `placement.waves` computes them, an epoch at a time."""

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
        over_seeds: Callable[..., Any] = placement.over_seeds
        split, start, self._epoch = (
            over_seeds(function, self._config, plan)
            for function in (train.keys, _start, train.epoch)
        )
        sharding = NamedSharding(plan.mesh, PartitionSpec(placement.SEED))
        self._number = jax.device_put(np.zeros(plan.wave, np.uint32), sharding)
        self._waves = []
        for first in range(0, len(seeds), plan.wave):
            wave = list(seeds[first : first + plan.wave])
            wave += wave[-1:] * (plan.wave - len(wave))
            keys = split(jax.device_put(np.array(wave, np.uint32), sharding))
            # The orthogonal initialiser goes to LAPACK, whose bits depend on its threads.
            with threadpoolctl.threadpool_limits(1, "blas"):
                data, state = jax.block_until_ready(start(keys))
            self._waves.append((state, keys.shuffle, data))
        first_state = jax.device_get(self._waves[0][0])
        self._initial: train.State = jax.tree.map(lambda x: x[0], first_state)

    def epoch(self) -> float:
        """Trains every run for an epoch; the first run's mean loss."""
        loss: list[float] = []
        for i, (state, key, data) in enumerate(self._waves):
            state, metrics = self._epoch(state, key, data, self._number)
            loss.append(float(jax.block_until_ready((state, metrics))[1].loss[0]))
            self._waves[i] = (state, key, data)
        return loss[0]

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
    with threadpoolctl.threadpool_limits(1, "blas"):
        data, state = jax.device_get(_start(config, keys))
    order = jax.random.permutation(jax.random.fold_in(keys.shuffle, 0), work.size)
    work_lib.save(path, data.train.digits, data.train.labels, np.asarray(order), state.params)
    return first_losses(config, state, work_lib.load(path))


def fit_seconds(work: Work, seeds: int, epochs: int) -> float:
    """Seconds of an epoch of all seeds together, the median of some after the first."""
    placement.use_cores()
    ends: dict[tuple[int, ...], list[float]] = {}

    def watch(wave: Sequence[int], number: int, metrics: train.Metrics) -> None:
        ends.setdefault(tuple(wave), []).append(time.perf_counter())

    placement.fit(work.config(epochs=1 + epochs), range(work.seed, work.seed + seeds), watch=watch)
    return sum(median(np.diff(times).tolist()) for times in ends.values())
