"""One step of training and the network's answers: batches cut into shards, summed in order."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.task import Split
from sumrnn.train import optimizer, shards
from sumrnn.train.shards import HERE, Spread


class State(NamedTuple):
    """What training changes; see `packed`."""

    params: network.Params
    """By the names of Flax; `network.Packed` within training."""
    opt_state: optax.OptState


Step = tuple[State, tuple[chex.Array, chex.Array]]
"""The state after a step; the batch's summed loss and number of correct answers before it."""


def packed(config: Config, state: State) -> State:
    """The state as it is trained: for the fused recurrence, `network.pack` of what is in it."""
    fused = config.model.recurrence == "fused"
    return _each(network.pack, dict, state) if fused else state


def unpacked(state: State) -> State:
    """What `packed` was given, with the names of Flax."""
    return _each(network.unpack, network.Packed, state)


def _each(function: Callable[[Any], Any], kind: type, state: State) -> State:
    """The state with a function of all that is of a kind in it."""

    def is_one(x: Any) -> bool:
        return isinstance(x, kind)

    found: State = jax.tree.map(lambda x: function(x) if is_one(x) else x, state, is_leaf=is_one)
    return found


def correct(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """bool [n]: whether the likelier answer, 1 if P(1) > 0.5, is the label."""
    return (logits > 0) == (labels > 0)


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """float32 [n]: binary cross-entropy of each series, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def train_step(
    config: Config,
    state: State,
    batch: Split,
    weights: chex.Array | None = None,
    spread: Spread = HERE,
) -> Step:
    """One Adam step on the mean binary cross-entropy of a batch.

    `weights` are float32 [n], 1 for each of its series that counts and 0 for what only fills it;
    None: all count.  `spread` says where its shards are computed.  Returns the next state, and the
    batch's summed loss (float32) and number of correct answers (int32), both before the step.
    """
    weights = jnp.ones(batch.labels.shape, jnp.float32) if weights is None else weights
    size = weights.sum()

    def part_of_mean(
        params: network.Params | network.Packed, shard: tuple[Split, chex.Array]
    ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        (digits, labels), weights = shard
        logits = network.logits(params, config.model, digits)
        loss = (losses(logits, labels) * weights).sum()
        hits = (correct(logits, labels).astype(weights.dtype) * weights).sum()
        return loss / size, (loss, hits)

    gradient = jax.grad(part_of_mean, has_aux=True)
    parts = shards.over(
        functools.partial(gradient, state.params),
        shards.cut((batch, weights), config.train.batch_shards),
        batch.digits,
        spread,
    )
    # In a fixed order, wherever the shards were.
    grads, (loss, hits) = jax.tree.map(lambda x: functools.reduce(jnp.add, x), parts)
    adam = optimizer.make(config)

    def update(carry: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats and integers.
            updates, opt_state = adam.update(*carry)
        return updates, opt_state

    updates, opt_state = shards.apart(update, (grads, state.opt_state), batch.digits, spread)
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state), (loss, hits.astype(jnp.int32))


def predict(
    config: Config,
    params: network.Params | network.Packed,
    digits: chex.Array,
    spread: Spread = HERE,
) -> chex.Array:
    """Logits float32 [n] of digits uint8 [n, length], by shards as those of a batch."""
    parts = shards.cut(digits, config.train.batch_shards)
    found: chex.Array = shards.over(
        lambda part: network.logits(params, config.model, part), parts, digits, spread
    )
    return found.reshape(-1)[: digits.shape[0]]
