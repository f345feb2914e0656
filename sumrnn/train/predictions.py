"""The network's predictions for all series, by one program for blocks of them."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sumrnn.config import Config, TaskConfig
from sumrnn.models import network
from sumrnn.models.network import Weights
from sumrnn.task import Split, Splits
from sumrnn.train import shards
from sumrnn.train.shards import HERE, Placement

MAX_ROWS, MIN_ROWS = 1_000, 32
"""Series that are predicted at a time."""


class Blocks(NamedTuple):
    """How series are cut into blocks: validation, test and training series in this order."""

    rows: int
    """Series of a block, which bounds the memory; the last one begins earlier to have as many."""
    validation: int
    """Blocks that the validation series are in."""
    all: int
    """Blocks."""


def blocks(task: TaskConfig) -> Blocks:
    """The blocks of a task's series.

    They have one size, so that one program predicts them all, and hold few series beyond the
    validation series where only these count.
    """
    count = -(-task.validation_size // MAX_ROWS)
    rows = max(-(-task.validation_size // count), min(MIN_ROWS, task.size))
    return Blocks(rows, -(-task.validation_size // rows), -(-task.size // rows))


def ends(task: TaskConfig) -> tuple[int, int]:
    """Where validation and test series end, in the order of the blocks."""
    return task.validation_size, task.validation_size + task.test_size


class Predictions(NamedTuple):
    """The predictions for a block."""

    logits: chex.Array
    """float32 [rows]."""
    loss: chex.Array
    """float32 []: what its validation series add to the mean loss of all of them."""
    accuracy: chex.Array
    """float32 []: what they add to the accuracy."""


def correct(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """bool [n]: whether the likelier class, 1 if P(1) > 0.5, is the label."""
    return (logits > 0) == (labels > 0)


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """float32 [n]: binary cross-entropy of each series, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def logits_by_shard(
    config: Config, weights: Weights, digits: chex.Array, *, placement: Placement = HERE
) -> chex.Array:
    """The logits float32 [n] of digits uint8 [n, length], cut into as many shards as a batch."""
    rows = shards.cut(digits, config.train.batch_shards)

    def shard_logits(carry: tuple[()], row: chex.Array) -> tuple[tuple[()], chex.Array]:
        return carry, network.logits(weights, config.model, row)

    _, logits = shards.scan_rows(shard_logits, (), rows, digits=digits, placement=placement)
    return cast(chex.Array, logits.reshape(-1)[: digits.shape[0]])


def predict(
    config: Config,
    weights: Weights,
    data: Splits,
    number: chex.Numeric,
    *,
    placement: Placement = HERE,
) -> Predictions:
    """The predictions for a block of `blocks`, which are numbered from 0."""
    rows, size = blocks(config.task).rows, config.task.validation_size
    order = (data.validation, data.test, data.train)
    series = Split(*(jnp.concatenate(arrays) for arrays in zip(*order, strict=True)))
    first = jnp.minimum(number.astype(jnp.int32) * rows, config.task.size - rows)
    block = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, rows), series)
    logits = logits_by_shard(config, weights, block.digits, placement=placement)
    counted = (first + jnp.arange(rows) < size).astype(jnp.float32)

    def score(_: Any) -> tuple[chex.Array, chex.Array]:
        right = correct(logits, block.labels).astype(jnp.float32)
        return (losses(logits, block.labels) * counted).sum(), (right * counted).sum()

    nothing = (jnp.float32(0), jnp.float32(0))
    loss, hits = shards.unfused(score, nothing, block.digits, placement)
    return Predictions(logits, loss / size, hits / size)


def total(validation: Sequence[Predictions]) -> tuple[chex.Array, chex.Array]:
    """Loss and accuracy of the validation series, from the predictions for their blocks."""
    return (
        functools.reduce(operator.add, [block.loss for block in validation]),
        functools.reduce(operator.add, [block.accuracy for block in validation]),
    )


def join(task: TaskConfig, logits: Sequence[chex.Array]) -> tuple[chex.Array, ...]:
    """Joins the logits of all blocks, [..., rows] each, to those of each split of `Splits`.

    They are NumPy arrays unless they are traced.
    """
    module: Any = jnp if isinstance(logits[0], jax.core.Tracer) else np
    *whole, last = map(module.asarray, logits)
    rest = task.size - len(whole) * last.shape[-1]
    joined = module.concatenate([*whole, last[..., last.shape[-1] - rest :]], axis=-1)
    validation, test, train = module.split(joined, ends(task), axis=-1)
    return train, validation, test
