"""One step of training and the network's answers: batches cut into shards, summed in order."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.task import Split
from sumrnn.train import optimizer, shards
from sumrnn.train.shards import HERE, Spread


class State(NamedTuple):
    """What training changes."""

    params: network.Params
    opt_state: optax.OptState


Step = tuple[State, tuple[chex.Array, chex.Array]]
"""The state after a step; the batch's summed loss and number of correct answers before it."""


def correct(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """bool [n]: whether the likelier answer, 1 if P(1) > 0.5, is the label."""
    return (logits > 0) == (labels > 0)


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """float32 [n]: binary cross-entropy of each series, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def train_step(config: Config, state: State, batch: Split, spread: Spread = HERE) -> Step:
    """One Adam step on the mean binary cross-entropy of a batch.

    `spread` says where its shards are computed.  Returns the next state, and the batch's summed
    loss (float32) and number of correct answers (int32), both before the step.
    """
    size = batch.labels.shape[0]

    def part_of_mean(
        params: network.Params, shard: tuple[Split, chex.Array]
    ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        (digits, labels), weights = shard
        logits = network.logits(params, config.model, digits)
        loss = (losses(logits, labels) * weights).sum()
        hits = (correct(logits, labels).astype(weights.dtype) * weights).sum()
        return loss / size, (loss, hits)

    gradient = jax.grad(part_of_mean, has_aux=True)
    # One array of all gradients and counts: one exchange between devices, and nothing that the
    # compiler could move from here into the update.
    _, restore = ravel_pytree((state.params, (jnp.float32(0), jnp.float32(0))))
    parts = shards.over(
        lambda shard: ravel_pytree(gradient(state.params, shard))[0],
        shards.cut(batch, config.train.batch_shards),
        batch.digits,
        spread,
    )

    def update(before: Step) -> Step:
        # In a fixed order, wherever the shards were.
        grads, (loss, hits) = restore(functools.reduce(jnp.add, parts))
        state, _ = before
        adam = optimizer.make(config.train)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats and integers.
            updates, opt_state = adam.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), (loss, hits.astype(jnp.int32))

    start: Step = (state, (jnp.float32(0), jnp.int32(0)))
    return shards.apart(update, start, batch.digits, spread)


def predict(
    config: Config, params: network.Params, digits: chex.Array, spread: Spread = HERE
) -> chex.Array:
    """Logits float32 [n] of digits uint8 [n, length], by shards as those of a batch."""
    parts, _ = shards.cut(digits, config.train.batch_shards)
    found: chex.Array = shards.over(
        lambda part: network.logits(params, config.model, part), parts, digits, spread
    )
    return found.reshape(-1)[: digits.shape[0]]
