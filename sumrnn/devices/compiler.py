"""The functions of a run compiled for one device, with the options that its bits depend on.

The public `sumrnn.fit` is here: the algorithm's `run.fit` by compiled functions.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
import scipy.linalg  # noqa: F401  JAX's LAPACK: threadpoolctl limits only what is loaded.
import threadpoolctl

from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.models.network import Params
from sumrnn.train import run
from sumrnn.train.run import Functions, Result
from sumrnn.train.shards import HERE, Placement

T = TypeVar("T")

CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_backend_optimization_level": 1,
}
"""XLA's options on CPU: vectors as wide as the processor's (the default stops at 256 bits), no
schedule for idle cores, and the optimization level that is as fast as the highest and compiles
sooner.  The function that runs only once has level 0 instead."""


@functools.lru_cache(maxsize=64)
def functions(config: Config, placement: Placement = HERE) -> Functions:
    """The functions of runs of a config, pure whatever JAX's settings are; not compiled."""
    return Functions(*map(_pinned, run.functions_for(config, placement)))


def _pinned(function: Callable[..., T]) -> Callable[..., T]:
    def call(*arguments: Any) -> T:
        with pinned():
            return function(*arguments)

    return call


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """A context that sets JAX's settings on which numbers depend, whatever the environment says."""
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_matmul_precision("float32"),
    ):
        yield


@functools.lru_cache(maxsize=64)
def compiled_functions(config: Config) -> Functions:
    """The functions of runs of a config, each compiled for one device when it is first called."""
    begin, epoch, predict, draw = map(_jitted, functions(config), options(jax.default_backend()))

    def begin_with_one_thread(seeds: Any) -> Any:
        with one_thread():
            return jax.block_until_ready(begin(seeds))

    return Functions(begin_with_one_thread, epoch, predict, draw)


def _jitted(function: Any, options: dict[str, Any] | None) -> Callable[..., Any]:
    jitted = jax.jit(function, compiler_options=options)

    def call(*arguments: Any) -> Any:
        # Options belong to the outermost program.
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
        return function(*arguments) if traced else jitted(*arguments)

    return call


def options(platform: str) -> list[dict[str, Any] | None]:
    """XLA's options on a platform, in the order of `Functions`; bits depend on them."""
    if platform != "cpu":
        return [None, None, None, None]
    once = CPU_OPTIONS | {"xla_backend_optimization_level": 0}
    return [once, *(dict(CPU_OPTIONS) for _ in range(3))]


def peak_bytes(program: Any) -> int:
    """The bytes that a compiled program takes on a device while it runs, by the compiler's count.

    They are those of its arguments, results and intermediate arrays.
    """
    sizes = program.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return int(total - sizes.alias_size_in_bytes)


def output_bytes(program: Any) -> int:
    """The bytes that the results of a compiled program take on a device."""
    return int(program.memory_analysis().output_size_in_bytes)


def one_thread() -> threadpoolctl.threadpool_limits:
    """A context in which LAPACK has one thread, as the bits of its results depend on the number."""
    return threadpoolctl.threadpool_limits(1, "blas")


def fit(
    config: Config,
    seed: int | np.integer[Any] | jax.Array,
    params: Params | None = None,
) -> Result:
    """Trains a network of a config on data drawn from a seed, and returns the whole run.

    It is `run.fit`, a loop over compiled epochs.  `jax.jit(fit, static_argnums=0)` is the same
    function, but one program: the compiler may fuse across epochs and round differently, and the
    initial matrices then depend on the number of LAPACK's threads.

    Args:
      config: of task, model and training.
      seed: in [0, 2^32).
      params: the parameters to start from, float32, by the names of Flax; None: initial ones.

    Returns:
      The state, with its parameters by the names of Flax, the history, the data and the logits.

    Raises:
      UserError: if the seed is impossible, or the config asks for weights and there are none.
    """
    weights = None if params is None else network.from_flax(params, config.model)
    result = run.fit(config, seed, weights, functions=compiled_functions(config.canonical))
    if not isinstance(seed, jax.core.Tracer):  # On the host, nothing is compiled to unpack them.
        result = result._replace(state=jax.device_get(result.state))
    return with_names(result)


def with_names(result: Result) -> Result:
    """A result with its weights as parameters by the names of Flax; further axes may lead."""
    params = network.to_flax(result.state.params)
    return result._replace(state=result.state._replace(params=params))
