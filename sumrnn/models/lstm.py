"""The LSTM's recurrence with a hand-written backward pass: same function, less work.

Against automatic differentiation of the scanned cell it saves, in the forward pass, the
activated gates alone, carries only two arrays backwards, and forms the weights' gradient
once, after the scan, from all steps.

Every product is written as [m, k] [k, n] in memory order, transposed beforehand where it
must be: XLA's CPU backend hands such products to a library that sums in the same order on
any number of threads.  For transposed operands it has another one, which does not.

Equations: Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735-1780, with the
forget gate of Gers, Schmidhuber and Cummins, Neural Computation 12 (2000) 2451-2471.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

GATES = ("i", "f", "g", "o")
"""Input, forget, candidate and output gate, in the order of Keras and of Flax."""
BLOCK = 80_000
"""Weights that one product of a step multiplies with, at most, unless one gate has more.
The CPU backend divides larger products among threads, which costs more than it gains where
every core already has a device's work."""

_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Full float32 on every device, also where the backward pass is traced on its own."""


class Weights(NamedTuple):
    """Of the four gates, in the order i, f, g, o."""

    inputs: tuple[chex.Array, ...]
    """[cells] each: from the digit."""
    recurrent: tuple[chex.Array, ...]
    """[cells, cells] each: from the last hidden state."""
    bias: tuple[chex.Array, ...]
    """[cells] each."""


class _Saved(NamedTuple):
    """Of every step; [length, batch, cells] each."""

    i: chex.Array
    f: chex.Array
    g: chex.Array
    o: chex.Array
    c: chex.Array
    """The cell state before the step."""
    h: chex.Array
    """The hidden state before the step."""


Carry = tuple[chex.Array, chex.Array]
"""Hidden state and cell state, each [batch, cells]."""


def _blocks(gates: Sequence[chex.Array], axis: int) -> list[chex.Array]:
    """The gates' matrices side by side along an axis, as many in a block as it may hold."""
    most = max(1, BLOCK // gates[0].size)
    size = next(size for size in (4, 2, 1) if size <= most)
    blocks = [jnp.concatenate(gates[k : k + size], axis) for k in range(0, len(GATES), size)]
    # Or they would be put together again at every step.
    return list(jax.lax.optimization_barrier(blocks))


def _gates(blocks: Sequence[chex.Array]) -> list[chex.Array]:
    """The four gates' parts of blocks that hold them side by side in the last axis."""
    return [
        part for block in blocks for part in jnp.split(block, len(GATES) // len(blocks), axis=-1)
    ]


def _step(
    weights: Weights, blocks: Sequence[chex.Array], carry: Carry, x: chex.Array
) -> tuple[Carry, _Saved]:
    h, c = carry
    parts = _gates([_dot(h, block) for block in blocks])
    # The digit's part is added gate by gate: XLA's loops over slices of a sum are slow.
    zi, zf, zg, zo = (
        z + (x[:, None] * w[None] + b[None])
        for z, w, b in zip(parts, weights.inputs, weights.bias, strict=True)
    )
    i, f, g, o = jax.nn.sigmoid(zi), jax.nn.sigmoid(zf), jnp.tanh(zg), jax.nn.sigmoid(zo)
    new_c = f * c + i * g
    return (o * jnp.tanh(new_c), new_c), _Saved(i, f, g, o, c, h)


def _start(weights: Weights, inputs: chex.Array) -> Carry:
    zero = jnp.zeros((inputs.shape[0], weights.recurrent[0].shape[0]), inputs.dtype)
    return zero, zero


@jax.custom_vjp
def last_hidden(weights: Weights, inputs: chex.Array) -> chex.Array:
    """The hidden state [batch, cells] after the last step, from a carry of zeros.

    The inputs are [batch, length], of the weights' dtype.  For derivatives in forward mode take
    the scanned cell (`ModelConfig.recurrence`): JAX has none of a hand-written backward pass.
    """
    blocks = _blocks(weights.recurrent, axis=1)

    def step(carry: Carry, x: chex.Array) -> tuple[Carry, None]:
        return _step(weights, blocks, carry, x)[0], None

    (hidden, _), _ = jax.lax.scan(step, _start(weights, inputs), inputs.T)
    return hidden


def _forward(
    weights: Weights, inputs: chex.Array
) -> tuple[chex.Array, tuple[Weights, chex.Array, _Saved]]:
    step = functools.partial(_step, weights, _blocks(weights.recurrent, axis=1))
    (hidden, _), saved = jax.lax.scan(step, _start(weights, inputs), inputs.T)
    return hidden, (weights, inputs, saved)


def _backward(
    residuals: tuple[Weights, chex.Array, _Saved], dh: chex.Array
) -> tuple[Weights, chex.Array]:
    weights, inputs, saved = residuals
    blocks = _blocks([kernel.T for kernel in weights.recurrent], axis=0)

    def step(carry: Carry, saved: _Saved) -> tuple[Carry, list[chex.Array]]:
        dh, dc = carry
        i, f, g, o, c, _ = saved
        t = jnp.tanh(f * c + i * g)
        dc = dc + dh * (o * (1 - t * t))
        gates = (
            dc * (g * i * (1 - i)),
            dc * (c * f * (1 - f)),
            dc * (i * (1 - g * g)),
            dh * (t * o * (1 - o)),
        )
        size = len(GATES) // len(blocks)
        dz = [jnp.concatenate(gates[k : k + size], axis=1) for k in range(0, len(GATES), size)]
        before = functools.reduce(jnp.add, map(_dot, dz, blocks))
        return (before, dc * f), dz

    _, dz = jax.lax.scan(step, (dh, jnp.zeros_like(dh)), saved, reverse=True)
    hidden = jax.lax.optimization_barrier(saved.h.reshape(-1, dh.shape[1]).T)
    digits = inputs.T.reshape(1, -1)
    left = jnp.concatenate((hidden, digits, jnp.ones_like(digits)))
    left = jax.lax.optimization_barrier(left)
    totals = _gates([_dot(left, part.reshape(-1, part.shape[-1])) for part in dz])
    d_weights = Weights(
        inputs=tuple(total[-2] for total in totals),
        recurrent=tuple(total[:-2] for total in totals),
        bias=tuple(total[-1] for total in totals),
    )
    parts = zip(_gates(dz), weights.inputs, strict=True)
    d_inputs = functools.reduce(jnp.add, (_dot(part, w) for part, w in parts))
    return d_weights, d_inputs.T


last_hidden.defvjp(_forward, _backward)
