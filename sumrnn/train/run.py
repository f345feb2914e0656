"""The algorithm: a run as a pure function of (config, seed), from the digits to the final logits.

Keys, initial state, optimizer, the train step within its epoch, and `fit`.  How the functions are
compiled, and on which devices they are computed, is up to `sumrnn.devices`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sumrnn import fields, task
from sumrnn.config import Config
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.models.initializer import init
from sumrnn.models.network import Weights
from sumrnn.seeds import Seed
from sumrnn.task import Split, Splits
from sumrnn.train import evaluation, predictions, series, shards
from sumrnn.train.predictions import correct, losses
from sumrnn.train.series import Batch
from sumrnn.train.shards import HERE, Placement


class State(NamedTuple):
    """What training changes."""

    params: Weights
    """Opaque to training; what `sumrnn.fit` returns has them by the names of Flax."""
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """The row of an epoch in the history; float32 scalars.

    As in Keras, `loss` and `accuracy` are means over the epoch's series, each taken just
    before the step that used it, while the validation figures follow the last step.
    """

    loss: chex.Array
    """Mean binary cross-entropy of the training series, in nats."""
    accuracy: chex.Array
    """Share of the training series predicted correctly."""
    val_loss: chex.Array
    val_accuracy: chex.Array


class Result(NamedTuple):
    """A finished run."""

    state: State
    history: Metrics
    """float32 [epochs] each."""
    data: Splits
    logits: tuple[chex.Array, ...]
    """float32 [n] of each split, in the order of `Splits`."""


class Beginning(NamedTuple):
    """A run before its first step."""

    data: Splits
    state: State
    shuffle: chex.PRNGKey
    """The key of the order of the training series."""


class Functions(NamedTuple):
    """The functions of a run that are worth compiling, of a config; each a function of arrays."""

    begin: Callable[..., Any]
    epoch: Callable[..., Any]
    predict: Callable[..., Any]
    """See `predictions.predict`."""
    draw: Callable[..., Any]
    """See `evaluation.draw`."""


def fit(
    config: Config,
    seed: int | np.integer[Any] | jax.Array,
    weights: Weights | None = None,
    *,
    functions: Functions | None = None,
) -> Result:
    """Trains a network on data of its own, both of a seed in [0, 2^32).

    It starts from the weights if there are some, otherwise from initial ones.  `functions` may be
    those of the config as compiled elsewhere.  Raises `UserError` if the seed is impossible, or the
    config asks for weights and there are none.
    """
    check_weights(config, weights)
    run, blocks = functions or functions_for(config.canonical), predictions.blocks(config.task)
    numbers = [jax.device_put(np.uint32(n)) for n in range(max(config.train.epochs, blocks.all))]
    data, state, shuffle = run.begin(purpose_seeds(config, seed))
    if weights is not None:
        state = initial_state(config, weights)
    history = []
    for number in numbers[: config.train.epochs]:
        state, loss, accuracy, _ = run.epoch(state, shuffle, data.train, number)
        validation = [run.predict(state.params, data, n) for n in numbers[: blocks.validation]]
        history.append(Metrics(loss, accuracy, *predictions.total(validation)))
    stacked = jax.tree.map(lambda *epochs: jnp.stack(epochs), *history)
    logits = [run.predict(state.params, data, n).logits for n in numbers[: blocks.all]]
    return Result(state, stacked, data, predictions.join(config.task, logits))


def functions_for(config: Config, placement: Placement = HERE) -> Functions:
    """The functions of runs of a config, not compiled."""
    return Functions(
        functools.partial(begin, config),
        functools.partial(epoch, config, placement=placement),
        functools.partial(predictions.predict, config, placement=placement),
        functools.partial(evaluation.draw, config),
    )


def check_weights(config: Config, weights: object) -> None:
    """Raises `UserError` if the config asks for weights, and there are none."""
    digest = config.model.weights
    require(digest is None or weights is not None, "weights", digest, "given (--init-from)")


def purpose_seeds(config: Config, seed: int | np.integer[Any] | jax.Array) -> chex.Array:
    """uint32 [3]: the seeds of data, initial weights and order; a pinned one replaces `seed`.

    Raises `UserError` unless it lies in [0, 2^32); what is traced is believed.
    """
    pinned = (config.data_seed, config.init_seed, config.shuffle_seed)
    traced = isinstance(seed, jax.core.Tracer)
    seed = seed if traced else fields.check_value("seed", seed, Seed)
    seeds = [seed if pin is None else pin for pin in pinned]
    return jnp.asarray(seeds, jnp.uint32) if traced else jax.device_put(np.array(seeds, np.uint32))


class Keys(NamedTuple):
    """Independent typed keys, one for each purpose."""

    data: chex.PRNGKey
    init: chex.PRNGKey
    shuffle: chex.PRNGKey


def seed_keys(seeds: chex.Array) -> Keys:
    """The keys of the seeds of a run, uint32 [3], see `purpose_seeds`."""
    # What `jax.random.key` makes of them, unless the environment adds an offset.
    words = jnp.stack((jnp.zeros_like(seeds), seeds), axis=1)
    roots = jax.random.wrap_key_data(words, impl="threefry2x32")
    # At once, which is less to compile than one after the other.
    folded = jax.vmap(jax.random.fold_in)(roots, jnp.arange(3, dtype=jnp.uint32))
    return Keys(*(folded[i] for i in range(3)))


def begin(config: Config, seeds: chex.Array) -> Beginning:
    """Draws the data and the initial weights of a run from the seeds of `purpose_seeds`."""
    keys = seed_keys(seeds)
    data = task.split(task.generate(keys.data, config.task), config.task)
    return Beginning(data, initial_state(config, init(keys.init, config)), keys.shuffle)


def initial_state(config: Config, weights: Weights) -> State:
    """The state before the first step."""
    return State(weights, optimizer(config).init(weights))


def optimizer(config: Config) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1.

    The step size may rise and fall over the steps of the run, and gradients may be clipped before.
    """
    train = config.train
    adam = optax.adam(step_size(config), train.beta1, train.beta2, train.epsilon)
    clip = None if train.clip is None else optax.clip_by_global_norm(train.clip)
    return optax.chain(clip, adam) if clip else adam


def step_size(config: Config) -> float | optax.Schedule:
    """The step size, of each step if it is planned: linear warm-up, then constant or a cosine."""
    train = config.train
    if not train.planned:
        return train.learning_rate
    steps = train.epochs * -(-config.task.train_size // train.batch_size)
    rising = round(train.warmup * steps)
    rest = (
        optax.cosine_decay_schedule(train.learning_rate, max(1, steps - rising))
        if train.decay == "cosine"
        else optax.constant_schedule(train.learning_rate)
    )
    warmup = optax.linear_schedule(0.0, train.learning_rate, rising)
    return optax.join_schedules([warmup, rest], [rising])


def epoch(
    config: Config,
    state: State,
    shuffle: chex.PRNGKey,
    train: Split,
    number: chex.Numeric,
    *,
    placement: Placement = HERE,
) -> tuple[State, chex.Array, chex.Array, chex.Array]:
    """Makes one pass over the training series in random order.

    Epochs are numbered from 0, and each has an order of its own.  Returns the state after it, loss
    and accuracy of `Metrics`, and bool [], whether the state has numbers only: a gradient too large
    to be squared leaves the losses finite for a while, and training at rest.
    """
    size, batch_size = config.task.train_size, config.train.batch_size
    key = jax.random.fold_in(shuffle, number)
    # Whole batches, so that there is one step to compile; what fills the last has no weight.
    count = -(-size // batch_size)
    mask = (jnp.arange(count * batch_size) < size).astype(jnp.float32).reshape(count, -1)
    if config.train.series == "fresh":
        batches: Any = series.fresh(config, key, steps=count, number=number)
    else:
        order = jax.random.permutation(key, size)
        batches = jnp.pad(order, (0, -size % batch_size)).reshape(count, -1)

    def step(
        carry: tuple[State, Any], batch: tuple[Any, chex.Array]
    ) -> tuple[tuple[State, Any], tuple[chex.Array, chex.Array]]:
        (state, workspace), (chosen, mask) = carry, batch
        if config.train.series == "repeated":
            chosen = Batch(train.digits[chosen], train.labels[chosen])
        state, sums, workspace = train_step(
            config, state, chosen, mask=mask, workspace=workspace, placement=placement
        )
        return (state, workspace), sums

    rows = -(-batch_size // config.train.batch_shards)
    lasting = config.train.lasting
    start = (state, network.workspace(config.model, rows, config.task.length, lasting=lasting))
    (state, _), (loss, hits) = jax.lax.scan(step, start, (batches, mask))
    loss, hits = loss.sum(), hits.sum()
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
    return state, loss / size, hits / size, finite


def train_step(
    config: Config,
    state: State,
    batch: Batch,
    *,
    mask: chex.Array | None = None,
    workspace: Any = None,
    placement: Placement = HERE,
) -> tuple[State, tuple[chex.Array, chex.Array], Any]:
    """Makes one step of Adam on the mean binary cross-entropy of a batch, cut into shards.

    `mask` is float32 [n], 1 for each of the batch's series that counts and 0 for what only fills
    it; None: all count.  `workspace` is one for a shard, see `network.workspace`; None: nothing is
    kept.  Returns the next state, the batch's summed loss (float32) and number of correct
    predictions (int32), both before the step, and the workspace for the next step.
    """
    mask = jnp.ones(batch.labels.shape, jnp.float32) if mask is None else mask
    size = mask.sum()

    def shard_loss(
        weights: Weights, workspace: Any, shard: tuple[Batch, chex.Array]
    ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
        (digits, labels, durations), mask = shard
        logits = network.logits(
            weights, config.model, digits, durations=durations, workspace=workspace
        )
        loss = (losses(logits, labels) * mask).sum()
        hits = (correct(logits, labels).astype(mask.dtype) * mask).sum()
        return loss / size, (loss, hits)

    def shard_gradient(workspace: Any, shard: tuple[Batch, chex.Array]) -> tuple[Any, Any]:
        # The "gradient" of a workspace is the workspace after use.
        gradient = jax.grad(shard_loss, argnums=(0, 1), has_aux=True)
        (grads, workspace), sums = gradient(state.params, workspace, shard)
        return workspace, (grads, sums)

    rows = shards.cut((batch, mask), config.train.batch_shards)
    workspace, parts = shards.scan_rows(
        shard_gradient, workspace, rows, digits=batch.digits, placement=placement
    )
    # In a fixed order, wherever the shards were.
    grads, (loss, hits) = jax.tree.map(lambda x: functools.reduce(jnp.add, x), parts)
    adam = optimizer(config)

    def update(carry: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats and integers.
            updates, opt_state = adam.update(*carry)
        return updates, opt_state

    updates, opt_state = shards.unfused(update, (grads, state.opt_state), batch.digits, placement)
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state), (loss, hits.astype(jnp.int32)), workspace
