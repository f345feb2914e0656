"""One run, pure: a function of (config, seed), from the digits to the final answers."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg  # noqa: F401  JAX's LAPACK: threadpoolctl limits only what is loaded.
import threadpoolctl

from sumrnn import fields, task
from sumrnn.config import Config, Seed
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.models.initializer import initial
from sumrnn.task import Split, Splits
from sumrnn.train import answers, exam, optimizer
from sumrnn.train.answers import Answers
from sumrnn.train.shards import HERE, Spread
from sumrnn.train.step import State, Step, packed, train_step, unpacked

T = TypeVar("T")

CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_backend_optimization_level": 1,
}
"""The compiler's: as wide as the processor's vectors are (the default stops at 256 bits), no order
of work that is meant for idle cores, and the level that is as fast as the highest and sooner done.
What runs once has level 0, see `options`."""


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


class Result(NamedTuple):
    """A finished run."""

    state: State
    history: Metrics
    """float32 [epochs] each."""
    data: Splits
    logits: tuple[chex.Array, ...]
    """float32 [n] of each split, in the order of `Splits`."""


def fit(
    config: Config,
    seed: int | np.integer[Any] | jax.Array,
    params: network.Params | None = None,
) -> Result:
    """A whole run, data included, of a seed in [0, 2^32), from given or initial parameters.

    It is a loop over compiled epochs.  `jax.jit(fit, static_argnums=0)` is the same function, but
    one program: the compiler may fuse across epochs and round differently, and the initial
    matrices then depend on the number of LAPACK's threads.
    """
    check_given(config, params)
    run, cut, history = compiled(config.program), answers.blocks(config.task), []
    numbers = [jax.device_put(np.uint32(n)) for n in range(max(config.train.epochs, cut.all))]
    with one_thread():
        data, state, shuffle = jax.block_until_ready(run.begin(purposes(config, seed)))
    if params is not None:
        state = packed(config, given(config, params))
    for number in numbers[: config.train.epochs]:
        state, loss, accuracy, _ = run.epoch(state, shuffle, data.train, number)
        found = [run.answer(state.params, data, n) for n in numbers[: cut.validation]]
        history.append(Metrics(loss, accuracy, *answers.total(found)))
    stacked = jax.tree.map(lambda *epochs: jnp.stack(epochs), *history)
    found = [run.answer(state.params, data, n).logits for n in numbers[: cut.all]]
    if not isinstance(seed, jax.core.Tracer):
        state = jax.device_get(state)  # To take apart there what needs no program.
    return Result(unpacked(state), stacked, data, answers.join(config.task, found))


def purposes(config: Config, seed: chex.Numeric) -> chex.Array:
    """uint32 [3]: the seeds of data, initial parameters and order; a pinned one replaces `seed`.

    Raises `UserError` unless it lies in [0, 2^32); what is traced is believed.
    """
    pinned = (config.data_seed, config.init_seed, config.shuffle_seed)
    traced = isinstance(seed, jax.core.Tracer)
    seed = seed if traced else fields.check_value("seed", seed, Seed)
    own = [seed if pin is None else pin for pin in pinned]
    return jnp.asarray(own, jnp.uint32) if traced else jax.device_put(np.array(own, np.uint32))


class Keys(NamedTuple):
    """Independent typed keys, one for each purpose."""

    data: chex.PRNGKey
    init: chex.PRNGKey
    shuffle: chex.PRNGKey


def keys(seeds: chex.Array) -> Keys:
    """The keys of the seeds of a run, uint32 [3]."""
    # What `jax.random.key` makes of them, unless the environment adds an offset.
    words = jnp.stack((jnp.zeros_like(seeds), seeds), axis=1)
    own = jax.random.wrap_key_data(words, impl="threefry2x32")
    # At once, which is less to compile than one after the other.
    found = jax.vmap(jax.random.fold_in)(own, jnp.arange(3, dtype=jnp.uint32))
    return Keys(*(found[i] for i in range(3)))


class Begun(NamedTuple):
    """A run before its first step."""

    data: Splits
    state: State
    shuffle: chex.PRNGKey
    """The key of the order of the training series."""


def begin(config: Config, seeds: chex.Array) -> Begun:
    """Draws the data and the initial parameters from the seeds of `purposes`."""
    own = keys(seeds)
    data = task.split(task.generate(own.data, config.task), config.task)
    params = initial(own.init, config)
    return Begun(data, given(config, params), own.shuffle)


def check_given(config: Config, params: object) -> None:
    """Raises `UserError` if weights are asked for, and no parameters are given."""
    needed = config.model.weights
    require(needed is None or params is not None, "weights", needed, "given (--init-from)")


def given(config: Config, params: Any) -> State:
    """The state before the first step, of parameters in Flax's structure or packed."""
    return State(params, optimizer.make(config).init(params))


def epoch(
    config: Config,
    state: State,
    shuffle: chex.PRNGKey,
    train: Split,
    number: chex.Numeric,
    spread: Spread = HERE,
) -> tuple[State, chex.Array, chex.Array, chex.Array]:
    """One pass over the training series in random order.

    Epochs are numbered from 0, and each has its own order.  Returns the state after it, loss and
    accuracy of `Metrics`, and bool [], whether the state has numbers only: a gradient too large to
    be squared leaves the losses finite for a while, and training at rest.
    """
    size, batch_size = config.task.train_size, config.train.batch_size
    key = jax.random.fold_in(shuffle, number)
    # Whole batches, so that there is one step to compile; what fills the last has no weight.
    steps = -(-size // batch_size)
    weights = (jnp.arange(steps * batch_size) < size).astype(jnp.float32).reshape(steps, -1)
    if config.train.series == "fresh":
        batches: Any = fresh(config, key, steps, number)
    else:
        order = jax.random.permutation(key, size)
        batches = jnp.pad(order, (0, -size % batch_size)).reshape(steps, -1)

    def step(state: State, batch: tuple[Any, chex.Array]) -> Step:
        chosen, weights = batch
        if config.train.series == "repeated":
            chosen = Split(train.digits[chosen], train.labels[chosen])
        return train_step(config, state, chosen, weights, spread)

    state, (loss, hits) = jax.lax.scan(step, state, (batches, weights))
    loss, hits = loss.sum(), hits.sum()
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
    return state, loss / size, hits / size, finite


def fresh(config: Config, key: chex.PRNGKey, steps: int, number: chex.Numeric) -> Split:
    """New series for the steps of an epoch, [steps, batch size, ...]; typed key.

    Of each batch `focus` have sums drawn uniformly within a reach of the threshold, which may
    depend on the epoch's number; the rest are drawn as all data are.
    """
    size, reach = config.train.batch_size, _reach(config, number)
    near = round(config.train.focus * size)
    plain_key, sum_key, near_key = jax.random.split(key, 3)
    plain = task.draw(plain_key, steps * (size - near), config.task)
    parts = [plain.digits]
    if near:
        first, end = config.task.threshold - reach, config.task.threshold + reach
        sums = jax.random.randint(sum_key, (steps * near,), first, end, jnp.int32)
        laws = jnp.asarray(task.log_laws(config.task))
        parts.append(task.with_sums(near_key, laws, sums, config.task))
    shaped = [part.reshape(steps, -1, config.task.length) for part in parts]
    digits = jnp.concatenate(shaped, axis=1)
    return Split(digits, task.labels(digits, config.task))


def _reach(config: Config, number: chex.Numeric) -> chex.Numeric:
    """How near the threshold an epoch's focus is: int, or int32 []."""
    train = config.train
    if train.focus_start is None:
        return train.focus_reach
    done = jnp.asarray(number, jnp.float32) / max(1, train.epochs - 1)
    found = train.focus_start * (train.focus_reach / train.focus_start) ** done
    return jnp.round(found).astype(jnp.int32)


class Parts(NamedTuple):
    """What a run is made of; see `begin`, `epoch`, `answers.answer` and `exam.draw`."""

    begin: Callable[[chex.Array], Begun]
    epoch: Callable[..., tuple[State, chex.Array, chex.Array, chex.Array]]
    """Of state, key, training series and number."""
    answer: Callable[..., Answers]
    """Of parameters, data and number."""
    draw: Callable[..., Splits]
    """Of laws, sums and number; see `exam.draw`."""


@functools.lru_cache(maxsize=64)
def parts(config: Config, spread: Spread = HERE) -> Parts:
    """The parts of runs of a config, each a pure function of arrays, whatever JAX's settings."""
    return Parts(
        _pinned(functools.partial(begin, config)),
        _pinned(functools.partial(epoch, config, spread=spread)),
        _pinned(functools.partial(answers.answer, config, spread=spread)),
        _pinned(functools.partial(exam.draw, config)),
    )


def _pinned(function: Callable[..., T]) -> Callable[..., T]:
    def call(*arguments: Any) -> T:
        with pinned():
            return function(*arguments)

    return call


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """A context with the settings of JAX on which numbers depend, whatever the environment says."""
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_matmul_precision("float32"),
    ):
        yield


@functools.lru_cache(maxsize=64)
def compiled(config: Config) -> Parts:
    """The parts, each compiled for one device when it is called with arrays."""
    return Parts(*map(_compiled, parts(config), options(jax.default_backend())))


def _compiled(function: Any, options: dict[str, Any] | None) -> Callable[..., Any]:
    alone = jax.jit(function, compiler_options=options)

    def call(*arguments: Any) -> Any:
        # Options belong to the outermost program.
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
        return function(*arguments) if traced else alone(*arguments)

    return call


def options(platform: str) -> list[dict[str, Any] | None]:
    """The compiler's options for each of `Parts` on a platform; bits depend on them."""
    if platform != "cpu":
        return [None, None, None, None]
    once = CPU_OPTIONS | {"xla_backend_optimization_level": 0}
    return [once, *(dict(CPU_OPTIONS) for _ in range(3))]


def one_thread() -> threadpoolctl.threadpool_limits:
    """A context in which LAPACK has one thread: the bits of its matrices depend on that."""
    return threadpoolctl.threadpool_limits(1, "blas")
