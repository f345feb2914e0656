"""One run, pure: keys, data, initial state, step, epoch, prediction.

Every function is pure; those that make up a run take its config first, as a static
argument: a run is a function of (config, seed).  None has a seed axis of its own, so that
`jax.lax.map` or `jax.vmap` can put one in front.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

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


@functools.partial(jax.jit, static_argnums=0)
def train_step(
    config: Config, state: State, batch: Split
) -> tuple[State, tuple[chex.Array, chex.Array]]:
    """One Adam step on the mean binary cross-entropy of a batch.

    Args:
      config: static.
      state: parameters and optimiser state.
      batch: digits uint8 [batch, length] and labels uint8 [batch].

    Returns:
      The next state; the batch's summed loss (float32) and number of correct answers
      (int32), both before the step.
    """

    def mean_loss(params: model.Params) -> tuple[chex.Array, chex.Array]:
        logits = model.logits(params, config.model, batch.digits)
        return losses(logits, batch.labels).mean(), logits

    (loss, logits), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer(config.train).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    size = batch.labels.shape[0]
    return State(params, opt_state), (loss * size, correct(logits, batch.labels).sum())


def predict(config: Config, params: model.Params, digits: chex.Array) -> chex.Array:
    """Logits float32 [n] of digits uint8 [n, length], a bounded number of rows at a time."""

    def logit(series: chex.Array) -> chex.Array:
        return model.logits(params, config.model, series[None])[0]

    return jax.lax.map(logit, digits, batch_size=PREDICTION_ROWS)


@functools.partial(jax.jit, static_argnums=0)
def epoch(
    config: Config, state: State, key: chex.PRNGKey, data: Splits, number: chex.Numeric
) -> tuple[State, Metrics]:
    """One pass over the training series in random order, then the validation series.

    Args:
      config: static.
      state: the state before the epoch.
      key: the run's shuffling key.
      data: the run's data.
      number: which epoch this is; each has its own order.

    Returns:
      The state after the epoch, and its metrics.
    """
    train = data.train
    size, batch_size = config.task.train_size, config.train.batch_size
    order = jax.random.permutation(jax.random.fold_in(key, number), size)
    whole = size - size % batch_size

    def step(state: State, rows: chex.Array) -> tuple[State, tuple[chex.Array, chex.Array]]:
        batch = Split(train.digits[rows], train.labels[rows])
        state, counts = train_step(config, state, batch)
        return state, counts

    state, (loss, hits) = jax.lax.scan(step, state, order[:whole].reshape(-1, batch_size))
    loss, hits = loss.sum(), hits.sum()
    if whole < size:
        state, (rest_loss, rest_hits) = step(state, order[whole:])
        loss, hits = loss + rest_loss, hits + rest_hits
    logits = predict(config, state.params, data.validation.digits)
    return state, Metrics(
        loss=loss / size,
        accuracy=hits / size,
        val_loss=losses(logits, data.validation.labels).mean(),
        val_accuracy=correct(logits, data.validation.labels).mean(),
    )


@functools.partial(jax.jit, static_argnums=0)
def predictions(config: Config, params: model.Params, data: Splits) -> tuple[chex.Array, ...]:
    """The network's logits, float32 [n], of each split in the order of `Splits`."""
    return tuple(predict(config, params, part.digits) for part in data)
