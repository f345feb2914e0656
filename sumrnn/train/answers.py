"""The network's answers to all series, by one program for blocks of them."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from sumrnn.train.shards import HERE, Spread

MOST_ROWS, FEWEST_ROWS = 1_000, 32
"""Series that are answered at a time."""


class Blocks(NamedTuple):
    """How the series are cut for answers: validation, test and training series in this order."""

    rows: int
    """Series of a block, which bounds the memory; the last one begins earlier to have as many."""
    validation: int
    """Blocks that the validation series are in."""
    all: int
    """Blocks."""


def blocks(task: TaskConfig) -> Blocks:
    """Of one size, so that one program answers them all, and few where only the first count."""
    few = -(-task.validation_size // MOST_ROWS)
    rows = max(-(-task.validation_size // few), min(FEWEST_ROWS, task.size))
    return Blocks(rows, -(-task.validation_size // rows), -(-task.size // rows))


def ends(task: TaskConfig) -> tuple[int, int]:
    """Where validation and test series end, in the order of the blocks."""
    return task.validation_size, task.validation_size + task.test_size


class Answers(NamedTuple):
    """The network's answers to a block."""

    logits: chex.Array
    """float32 [rows]."""
    loss: chex.Array
    """float32 []: what its validation series add to the mean loss of all of them."""
    accuracy: chex.Array
    """float32 []: likewise."""


def correct(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """bool [n]: whether the likelier answer, 1 if P(1) > 0.5, is the label."""
    return (logits > 0) == (labels > 0)


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """float32 [n]: binary cross-entropy of each series, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def predict(
    config: Config,
    params: Weights,
    digits: chex.Array,
    spread: Spread = HERE,
) -> chex.Array:
    """Logits float32 [n] of digits uint8 [n, length], by shards as those of a batch."""
    parts = shards.cut(digits, config.train.batch_shards)
    found: chex.Array = shards.over(
        lambda part: network.logits(params, config.model, part), parts, digits, spread
    )
    return found.reshape(-1)[: digits.shape[0]]


def answer(
    config: Config,
    params: Weights,
    data: Splits,
    number: chex.Numeric,
    spread: Spread = HERE,
) -> Answers:
    """The answers to a block, numbered from 0; see `blocks`."""
    rows, size = blocks(config.task).rows, config.task.validation_size
    order = (data.validation, data.test, data.train)
    series = Split(*(jnp.concatenate(arrays) for arrays in zip(*order, strict=True)))
    first = jnp.minimum(number.astype(jnp.int32) * rows, config.task.size - rows)
    block = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, rows), series)
    logits = predict(config, params, block.digits, spread)
    counted = (first + jnp.arange(rows) < size).astype(jnp.float32)

    def score(_: Any) -> tuple[chex.Array, chex.Array]:
        right = correct(logits, block.labels).astype(jnp.float32)
        return (losses(logits, block.labels) * counted).sum(), (right * counted).sum()

    nothing = (jnp.float32(0), jnp.float32(0))
    loss, hits = shards.apart(score, nothing, block.digits, spread)
    return Answers(logits, loss / size, hits / size)


def total(found: Sequence[Answers]) -> tuple[chex.Array, chex.Array]:
    """Loss and accuracy of the validation series, from the answers to their blocks."""
    return (
        functools.reduce(operator.add, [part.loss for part in found]),
        functools.reduce(operator.add, [part.accuracy for part in found]),
    )


def join(task: TaskConfig, logits: Sequence[chex.Array]) -> tuple[chex.Array, ...]:
    """The answers to all blocks, [..., rows] each, as those of each split in the order of `Splits`.

    They are NumPy arrays unless they are traced.
    """
    module: Any = jnp if isinstance(logits[0], jax.core.Tracer) else np
    *whole, last = map(module.asarray, logits)
    rest = task.size - len(whole) * last.shape[-1]
    joined = module.concatenate([*whole, last[..., last.shape[-1] - rest :]], axis=-1)
    validation, test, train = module.split(joined, ends(task), axis=-1)
    return train, validation, test
