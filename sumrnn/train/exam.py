"""The network's errors at given sums: series drawn for them, and answered like all others."""

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
from sumrnn.train import answers

SHARE = 0.1
"""Series of an exam per series of training, which costs three times as much each."""
PER_STRATUM = 10
"""Series of an exam per stratum at least."""
MOST_LAWS = 2**24
"""Numbers in the table of laws; tasks that need more have no exam."""
PURPOSE = 3
"""Of its keys, beside those of `run.Keys`."""


def draw(config: Config, laws: chex.Array, sums: chex.Array, number: chex.Numeric) -> Splits:
    """Series of given sums, int32 [size] in the order of `answers.answer`, in place of the data.

    `laws` are those of `task.log_laws`; each number gives others.
    """
    seed = jnp.zeros(2, jnp.uint32)  # The same for all runs: their differences are their own.
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), PURPOSE)
    digits = task.with_sums(jax.random.fold_in(key, number), laws, sums, config.task)
    parts = jnp.split(digits, answers.ends(config.task))
    validation, test, train = (Split(part, task.labels(part, config.task)) for part in parts)
    return Splits(train, validation, test)


def has_exam(config: TaskConfig) -> bool:
    """Whether the table of laws of a task is small enough."""
    return config.laws <= MOST_LAWS


def examine(
    config: Config, runs: int, ask: Callable[[np.ndarray, int, int], np.ndarray]
) -> list[Counts]:
    """What exams of some runs found: first a pilot, then more where the pilot found errors.

    `ask` is called with sums int32 [runs, size], a number for `draw`, and how many blocks of
    `answers.blocks` are wanted; it returns logits float32 [runs, blocks x rows].
    """
    cut, own = answers.blocks(config.task), strata.strata(config.task)
    seen = config.train.epochs * config.task.train_size
    whole = -(-max(PER_STRATUM * len(own.masses), round(SHARE * seen)) // cut.rows)
    first = max(1, round(strata.PILOT * whole))
    found = [Counts(*(np.zeros(len(own.masses), np.int64) for _ in Counts._fields))] * runs
    number, most = 0, config.task.size // cut.rows
    for blocks in filter(None, (first, whole - first)):
        size = blocks * cut.rows
        shares = [
            strata.refined(own, one, size) if number else strata.pilot(own, size) for one in found
        ]
        pairs = [strata.sums(own, share) for share in shares]
        sums, places = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        for done in range(0, blocks, most):
            few = min(most, blocks - done)
            rows = slice(done * cut.rows, (done + few) * cut.rows)
            asked = np.repeat(sums[:, :1], config.task.size, axis=1).astype(np.int32)
            asked[:, : few * cut.rows] = sums[:, rows]
            wrong = (ask(asked, number, few) > 0) != (sums[:, rows] >= config.task.threshold)
            news = zip(found, places[:, rows], wrong, strict=True)
            found = [_counted(*new) for new in news]
            number += 1
    return found


def _counted(before: Counts, places: np.ndarray, wrong: np.ndarray) -> Counts:
    size = len(before.series)
    return Counts(
        before.series + np.bincount(places, minlength=size),
        before.wrong + np.bincount(places[wrong], minlength=size),
    )
