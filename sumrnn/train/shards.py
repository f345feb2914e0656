"""Loops over the shards of a batch, whose bits do not depend on where the shards are.

XLA compiles a loop according to what it sees.  One of known short length is dissolved, and what
stood in it is fused with its surroundings; then a sum may round differently for two shards on one
device than for one shard on each of two.  So two things stay hidden from the compiler:

* a loop's length, which is multiplied by a 1 that it cannot know (`_hidden_one`);
* that a loop over a single row never changes it: each turn fetches the row of the next one, or
  the compiler would compute outside of the loop what depends on the row alone.

GPU and TPU compute the shards at once, under `vmap`, and promise no bits.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

SHARD = "shard"
"""The mesh's axis of devices that have the shards of one run's batches."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the shards of a batch are computed."""

    devices: int = 1
    """Devices along the axis `SHARD`; a divisor of the number of shards."""
    at_once: bool = False
    """Whether a device computes its shards at once or one after the other."""


HERE = Placement()
"""All on this device, one after the other."""


def cut(arrays: Any, shards: int) -> Any:
    """Cuts a tree of [n, ...] into equal shards, [shards, rows, ...], with zeros in the end."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    missing = -size % shards

    def part(x: chex.Array) -> chex.Array:
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
        return x.reshape(shards, -1, *x.shape[1:])

    return jax.tree.map(part, arrays)


def scan_rows(
    function: Callable[[T, Any], tuple[T, Any]],
    carry: T,
    rows: Any,
    *,
    digits: chex.Array,
    placement: Placement,
) -> tuple[T, Any]:
    """`jax.lax.scan` over a tree [rows, ...], whose results are on every device, in their order.

    The results have one dtype, which devices exchange.  The carry is each device's own; where rows
    are computed at once, all begin with it, and it is returned as it was.  `digits` are any
    unsigned integers, see `_hidden_one`.
    """

    def here(rows: Any) -> tuple[T, Any]:
        if placement.at_once:
            return carry, jax.vmap(lambda row: function(carry, row)[1])(rows)
        return _one_by_one(function, carry, rows, _hidden_one(digits))

    if placement.devices == 1:
        return here(rows)
    index = jax.lax.axis_index(SHARD)
    local = jax.tree.map(lambda x: x.reshape(placement.devices, -1, *x.shape[1:])[index], rows)
    carry, results = here(local)
    leaves, structure = jax.tree.flatten(results)
    # One array of all leaves: one exchange between devices.
    flat = jnp.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)
    ends = np.cumsum([x[0].size for x in leaves[:-1]])
    parts = jnp.split(jax.lax.all_gather(flat, SHARD, tiled=True), ends, axis=1)
    every = [part.reshape(-1, *x.shape[1:]) for part, x in zip(parts, leaves, strict=True)]
    return carry, jax.tree.unflatten(structure, every)


def unfused(function: Callable[[T], T], start: T, digits: chex.Array, placement: Placement) -> T:
    """`function(start)`, which the compiler cannot fuse with what is around it.

    `digits` are any unsigned integers, see `_hidden_one`.
    """
    if placement.at_once:
        return function(start)
    once = _hidden_one(digits)
    result: T = jax.lax.fori_loop(0, once, lambda _, carry: function(carry), start)
    return result


def _hidden_one(digits: chex.Array) -> chex.Array:
    """int32 []: 1, whatever the unsigned digits are, and the compiler does not find out."""
    return jnp.minimum(digits.ravel()[0] | 1, 1).astype(jnp.int32)


def _one_by_one(
    function: Callable[[T, Any], tuple[T, Any]], carry: T, rows: Any, once: chex.Array
) -> tuple[T, Any]:
    """`jax.lax.scan` in a loop that is the same program for any number of rows."""
    size = jax.tree.leaves(rows)[0].shape[0]

    def row(i: chex.Numeric) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows)

    def step(i: chex.Numeric, state: tuple[T, Any, Any]) -> tuple[T, Any, Any]:
        carry, current, results = state
        carry, result = function(carry, current)
        results = jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), results, result
        )
        return carry, row(i + 1), results  # After the last row that one again, unused.

    shapes = jax.eval_shape(lambda: function(carry, row(0))[1])
    start = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), shapes)
    carry, _, results = jax.lax.fori_loop(0, size * once, step, (carry, row(0), start))
    return carry, results
