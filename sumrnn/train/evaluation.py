"""Exact evaluation: errors at given sums, of series that are drawn for them.

They are predicted like all others; `sumrnn.scores.exact` weighs them by the distribution of sums.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sumrnn import task
from sumrnn.config import Config, TaskConfig
from sumrnn.scores import strata
from sumrnn.scores.strata import Counts
from sumrnn.task import Split, Splits
from sumrnn.train import predictions

SHARE = 0.1
"""Series of an evaluation per series of training, which costs three times as much each."""
PER_STRATUM = 10
"""Series of an evaluation per stratum at least."""
MAX_PMF_TABLE = 2**24
"""The largest `TaskConfig.pmf_table_size`; tasks that need a larger table are not evaluated."""
PURPOSE = 3
"""The number of its key, beside those of `run.Keys`."""


def draw(config: Config, log_pmfs: chex.Array, sums: chex.Array, number: chex.Numeric) -> Splits:
    """Draws series of the sums, int32 [size] in the order of `predictions.predict`.

    They take the place of a run's data.  `log_pmfs` is the table of `task.log_pmf_table`, float32;
    each number, uint32 [], gives other series.
    """
    seed = jnp.zeros(2, jnp.uint32)  # The same for all runs: their differences are their own.
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), PURPOSE)
    digits = task.draw_series_with_sums(
        jax.random.fold_in(key, number), sums, config.task, log_pmfs=log_pmfs
    )
    parts = jnp.split(digits, predictions.ends(config.task))
    validation, test, train = (Split(part, task.labels(part, config.task)) for part in parts)
    return Splits(train, validation, test)


def draw_among_zeros(
    config: Config, steps: int, log_pmfs: chex.Array, sums: chex.Array, *, numbers: chex.Array
) -> chex.Array:
    """Draws series of the sums, int32 [n], whose digits stand at random among zeros.

    They are uint8 [n, steps], where the steps are at least the task's digits; other numbers, uint32
    [2], give others.  `log_pmfs` is the table of `task.log_pmf_table`.
    """
    seed = jnp.zeros(2, jnp.uint32)
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), PURPOSE + 1)
    for number in numbers:
        key = jax.random.fold_in(key, number)
    digit_key, place_key = jax.random.split(key)
    digits = task.draw_series_with_sums(digit_key, sums, config.task, log_pmfs=log_pmfs)
    counts, spans = jnp.full(len(digits), config.task.length), jnp.full(len(digits), steps)
    return task.spread(place_key, digits, counts, spans=spans, length=steps).digits


def is_evaluated(config: TaskConfig) -> bool:
    """Whether the table of `task.log_pmf_table` is small enough for exact evaluation."""
    return config.pmf_table_size <= MAX_PMF_TABLE


def count_errors(
    config: Config,
    runs: int,
    logits_for: Callable[[np.ndarray, int, int], np.ndarray],
    *,
    size: int | None = None,
) -> list[Counts]:
    """Counts the errors of each run by stratum: in a pilot, then more where that found errors.

    There are about `size` series of each run; None: a share of those it was trained on.
    `logits_for` is called with sums int32 [runs, size], a number for `draw`, and how many blocks
    of `predictions.blocks` are wanted; it returns logits float32 [runs, blocks x rows].
    """
    rows, groups = predictions.blocks(config.task).rows, strata.task_strata(config.task)
    wanted = size or round(SHARE * config.train.epochs * config.task.train_size)
    whole = -(-max(PER_STRATUM * len(groups.labels), wanted) // rows)
    pilot = max(1, round(strata.PILOT * whole))
    counts = [Counts(*(np.zeros(len(groups.labels), np.int64) for _ in Counts._fields))] * runs
    number, max_blocks = 0, config.task.size // rows
    for blocks in filter(None, (pilot, whole - pilot)):
        series = blocks * rows
        allocations = [
            strata.refined_allocation(groups, count, series)
            if number
            else strata.pilot_allocation(groups, series)
            for count in counts
        ]
        pairs = [strata.systematic_sums(groups, allocation) for allocation in allocations]
        sums, places = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        for done in range(0, blocks, max_blocks):
            count = min(max_blocks, blocks - done)
            part = slice(done * rows, (done + count) * rows)
            # As many as a run's data are; what fills them up is not looked at.
            padded = np.repeat(sums[:, :1], config.task.size, axis=1).astype(np.int32)
            padded[:, : count * rows] = sums[:, part]
            logits = logits_for(padded, number, count)
            wrong = (logits > 0) != (sums[:, part] >= config.task.threshold)
            new = zip(counts, places[:, part], wrong, strict=True)
            counts = [_added(count, place, errors) for count, place, errors in new]
            number += 1
    return counts


def _added(counts: Counts, places: np.ndarray, wrong: np.ndarray) -> Counts:
    """The counts with series of some strata more, of which some are wrong."""
    size = len(counts.series)
    return Counts(
        counts.series + np.bincount(places, minlength=size),
        counts.wrong + np.bincount(places[wrong], minlength=size),
    )
