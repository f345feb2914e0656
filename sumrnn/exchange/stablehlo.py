"""The trained network as a program of StableHLO, for JAX without this package."""

import contextlib
from collections.abc import Iterator
from typing import cast

import jax
import numpy as np
from jax import export

from sumrnn.config import Config
from sumrnn.devices import compiler
from sumrnn.models import network

PLATFORMS = ("cpu", "cuda", "tpu")
NO_FOLDERS = {
    "jax_include_full_tracebacks_in_locations": False,
    "jax_hlo_source_file_canonicalization_regex": ".*/",
}
"""Settings of JAX that keep the names of this machine's folders out of the program."""


def write(params: network.Params, config: Config) -> bytes:
    """Returns a program that maps digits uint8 [batch, length] to logits float32 [batch].

    It takes any batch from 1, and any length from 2, or 1 alone if it was trained on that: the
    recurrence begins with a step of its own.  `jax.export.deserialize` reads it, of this version of
    JAX or one of the next six months.  With the options of `compiler.CPU_OPTIONS` it gives the
    logits of a run on the same processor but for rounding, and mostly their bits.
    """
    alone = config.task.length == 1
    dims, limits = ("batch, 1", ()) if alone else ("batch, length", ("length >= 2",))
    batch, length = export.symbolic_shape(dims, constraints=limits)
    digits = jax.ShapeDtypeStruct((batch, length), np.uint8)
    weights = network.from_flax(params, config.model)

    def logits(digits: jax.Array) -> jax.Array:
        # Constants that the compiler sees would be multiplied with in another order.
        hidden = jax.lax.optimization_barrier(weights)
        return cast(jax.Array, network.logits(hidden, config.model, digits))

    with compiler.pinned(), _without_folders():
        exported = export.export(jax.jit(logits), platforms=PLATFORMS)(digits)
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_folders() -> Iterator[None]:
    before = {name: jax.config.values[name] for name in NO_FOLDERS}
    try:
        for name, value in NO_FOLDERS.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
