"""One run, pure: keys, data, initial state, step, epoch, prediction.

Every function is pure; those that make up a run take its config first, as a static
argument: a run is a function of (config, seed).  None has a seed axis of its own, so that
`jax.lax.map` or `jax.vmap` can put one in front.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sumrnn import model, task
from sumrnn.config import Config, TrainConfig
from sumrnn.task import Split, Splits

PREDICTION_ROWS = 1_000
"""Series predicted at a time: bounds the memory, whatever the size of the data."""


class Keys(NamedTuple):
    """Independent typed keys, one for each purpose."""

    data: chex.PRNGKey
    init: chex.PRNGKey
    shuffle: chex.PRNGKey


class State(NamedTuple):
    """What training changes."""

    params: model.Params
    opt_state: optax.OptState


Step = tuple[State, tuple[chex.Array, chex.Array]]
"""The state after a step; the batch's summed loss and number of correct answers before it."""


class Metrics(NamedTuple):
    """One epoch's row of the history; float32 scalars.

    As in Keras, `loss` and `accuracy` are means over the epoch's series, each taken just
    before the step that used it, while the validation figures follow the last step.
    """

    loss: chex.Array
    """Mean binary cross-entropy of the training series, in nats."""
    accuracy: chex.Array
    """Share of the training series answered correctly."""
    val_loss: chex.Array
    val_accuracy: chex.Array


def keys(config: Config, seed: chex.Numeric) -> Keys:
    """Splits a seed by purpose; a pinned purpose takes its key from the pinned seed.

    Args:
      config: its `data_seed`, `init_seed` and `shuffle_seed` replace `seed` where given.
      seed: an integer in [0, 2^32), traced or not.
    """
    pinned = (config.data_seed, config.init_seed, config.shuffle_seed)
    own = [jnp.uint32(seed if pin is None else pin) for pin in pinned]
    return Keys(*(jax.random.fold_in(jax.random.key(s), i) for i, s in enumerate(own)))


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1."""
    return optax.adam(config.learning_rate, config.beta1, config.beta2, config.epsilon)


@functools.partial(jax.jit, static_argnums=0)
def make_data(config: Config, key: chex.PRNGKey) -> Splits:
    """Draws and splits the data."""
    return task.split(task.generate(key, config.task), config.task)


@functools.partial(jax.jit, static_argnums=0)
def init(config: Config, key: chex.PRNGKey) -> State:
    """The state before the first step."""
    params = model.init(key, config.model)
    return State(params, optimizer(config.train).init(params))


def correct(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """bool [n]: whether the likelier answer, 1 if P(1) > 0.5, is the label."""
    return (logits > 0) == (labels > 0)


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """float32 [n]: binary cross-entropy of each series, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def one_by_one(function: Callable[[Any], Any], rows: Any, once: chex.Numeric = 1) -> Any:
    """`jax.lax.map`, in a loop that is the same program for any number of rows.

    Each turn fetches the row of the next one.  Were a row fetched where it is used, a loop over
    a single one would see that it never changes, and compute outside what depends on it alone;
    sums left inside would be compiled differently, and round so.

    Args:
      function: of one row of each array.
      rows: a tree of arrays with a leading axis.
      once: 1; as a traced value it hides the loop's length from the compiler.  XLA dissolves
        short loops of known length, and what it then fuses may round differently.

    Returns:
      The tree of results with a leading axis.
    """
    size = jax.tree.leaves(rows)[0].shape[0]

    def row(i: chex.Numeric) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows)

    def step(i: chex.Numeric, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        current, found = carry
        found = jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), found, function(current)
        )
        return row(i + 1), found  # After the last row that one again, unused.

    shapes = jax.eval_shape(lambda: function(row(0)))
    start = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, size * once, step, (row(0), start))[1]


OverShards = Callable[[Callable[[Any], Any], Any, chex.Numeric], Any]
"""Like `one_by_one`, where the rows are shards of a batch that may be on several devices."""


def _alone(function: Callable[[Any], Any], start: Any, once: chex.Numeric) -> Any:
    """`function(start)`, kept apart from what is around it as `one_by_one` keeps its rows."""
    return jax.lax.fori_loop(0, once, lambda _, carry: function(carry), start)


def _cut(arrays: Any, shards: int) -> tuple[Any, chex.Array]:
    """Cuts rows into equal shards.

    Args:
      arrays: tree of [n, ...].
      shards: how many.

    Returns:
      The tree of [shards, rows, ...] with the first row again for what is missing in the end;
      float32 [shards, rows], 0 for these rows and 1 for all others.
    """
    size = jax.tree.leaves(arrays)[0].shape[0]
    padded = -(-size // shards) * shards
    rows = jnp.arange(padded)

    def cut(x: chex.Array) -> chex.Array:
        x = x if padded == size else x[jnp.where(rows < size, rows, 0)]
        return x.reshape(shards, -1, *x.shape[1:])

    weights = (rows < size).astype(jnp.float32).reshape(shards, -1)
    return jax.tree.map(cut, arrays), weights


@functools.partial(jax.jit, static_argnums=(0, 3))
def train_step(
    config: Config,
    state: State,
    batch: Split,
    over_shards: OverShards = one_by_one,
    once: chex.Numeric = 1,
) -> Step:
    """One Adam step on the mean binary cross-entropy of a batch.

    Args:
      config: static.
      state: parameters and optimiser state.
      batch: digits uint8 [batch, length] and labels uint8 [batch].
      over_shards: static; where the batch's shards are computed.
      once: see `one_by_one`.

    Returns:
      The next state; the batch's summed loss (float32) and number of correct answers
      (int32), both before the step.
    """
    size = batch.labels.shape[0]

    def part_of_mean(
        params: model.Params, shard: tuple[Split, chex.Array]
    ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        (digits, labels), weights = shard
        logits = model.logits(params, config.model, digits)
        loss = (losses(logits, labels) * weights).sum()
        return loss / size, (loss, (correct(logits, labels) * weights).sum())

    gradient = jax.grad(part_of_mean, has_aux=True)
    # One array of all gradients and counts: one exchange between devices, and nothing that the
    # compiler could move from here into the update.
    _, restore = ravel_pytree((state.params, (jnp.float32(0), jnp.float32(0))))
    parts = over_shards(
        lambda shard: ravel_pytree(gradient(state.params, shard))[0],
        _cut(batch, config.train.batch_shards),
        once,
    )

    def update(before: Step) -> Step:
        # In a fixed order, wherever the shards were.
        grads, (loss, hits) = restore(functools.reduce(jnp.add, parts))
        state, _ = before
        updates, opt_state = optimizer(config.train).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), (loss, hits.astype(jnp.int32))

    after: Step = _alone(update, (state, (jnp.float32(0), jnp.int32(0))), once)
    return after


def predict(
    config: Config,
    params: model.Params,
    digits: chex.Array,
    over_shards: OverShards = one_by_one,
    once: chex.Numeric = 1,
) -> chex.Array:
    """Logits float32 [n] of digits uint8 [n, length], a bounded number of rows at a time."""

    def logit(series: chex.Array) -> chex.Array:
        return model.logits(params, config.model, series[None])[0]

    def part(digits: chex.Array) -> chex.Array:
        return jax.lax.map(logit, digits, batch_size=PREDICTION_ROWS)

    shards, _ = _cut(digits, config.train.batch_shards)
    found: chex.Array = over_shards(part, shards, once)
    return found.reshape(-1)[: digits.shape[0]]


@functools.partial(jax.jit, static_argnums=(0, 5))
def epoch(
    config: Config,
    state: State,
    key: chex.PRNGKey,
    data: Splits,
    number: chex.Numeric,
    over_shards: OverShards = one_by_one,
    once: chex.Numeric = 1,
) -> tuple[State, Metrics]:
    """One pass over the training series in random order, then the validation series.

    Args:
      config: static.
      state: the state before the epoch.
      key: the run's shuffling key.
      data: the run's data.
      number: which epoch this is; each has its own order.
      over_shards: static; where the shards are computed.
      once: see `one_by_one`.

    Returns:
      The state after the epoch, and its metrics.
    """
    train = data.train
    size, batch_size = config.task.train_size, config.train.batch_size
    order = jax.random.permutation(jax.random.fold_in(key, number), size)
    whole = size - size % batch_size

    def step(state: State, rows: chex.Array) -> Step:
        batch = Split(train.digits[rows], train.labels[rows])
        after: Step = train_step(config, state, batch, over_shards, once)
        return after

    state, (loss, hits) = jax.lax.scan(step, state, order[:whole].reshape(-1, batch_size))
    loss, hits = loss.sum(), hits.sum()
    if whole < size:
        state, (rest_loss, rest_hits) = step(state, order[whole:])
        loss, hits = loss + rest_loss, hits + rest_hits
    logits = predict(config, state.params, data.validation.digits, over_shards, once)

    labels = data.validation.labels

    def score(_: Any) -> tuple[chex.Array, chex.Array]:
        return losses(logits, labels).mean(), correct(logits, labels).mean()

    val_loss, val_accuracy = _alone(score, (jnp.float32(0), jnp.float32(0)), once)
    return state, Metrics(loss / size, hits / size, val_loss, val_accuracy)


@functools.partial(jax.jit, static_argnums=0)
def is_finite(config: Config, state: State) -> chex.Array:
    """bool []: whether parameters and optimiser state are all numbers.

    A gradient too large to be squared leaves the losses finite for a while, and training at rest.
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


@functools.partial(jax.jit, static_argnums=(0, 3))
def predictions(
    config: Config,
    params: model.Params,
    data: Splits,
    over_shards: OverShards = one_by_one,
    once: chex.Numeric = 1,
) -> tuple[chex.Array, ...]:
    """The network's logits, float32 [n], of each split in the order of `Splits`."""
    return tuple(predict(config, params, part.digits, over_shards, once) for part in data)
