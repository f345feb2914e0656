"""The LSTM's recurrence with a hand-written backward pass: same function, less work.

Against automatic differentiation of the scanned cell it saves, in the forward pass, what
the backward pass multiplies with instead of the activations, carries only two arrays
backwards, and forms the weights' gradient once, after the scan, from all steps.  That sum
is cut into pieces of `PIECE` rows, too short for the CPU backend to divide among threads,
so that its bits do not depend on the number of cores.

Equations: Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735-1780, with the
forget gate of Gers, Schmidhuber and Cummins, Neural Computation 12 (2000) 2451-2471.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

PIECE = 100
"""Rows (steps x series) summed in one product of the weights' gradient."""

_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Full float32 on every device, also where the backward pass is traced on its own."""


class Weights(NamedTuple):
    """The four gates side by side, in the order i, f, g, o."""

    inputs: chex.Array
    """[4 cells]: from the digit."""
    recurrent: chex.Array
    """[cells, 4 cells]: from the last hidden state."""
    bias: chex.Array
    """[4 cells]."""


class _Factors(NamedTuple):
    """What turns dh and dc into the gates' gradients; each [batch, cells]."""

    i: chex.Array
    f: chex.Array
    g: chex.Array
    o: chex.Array
    h_to_c: chex.Array
    c_to_c: chex.Array


Carry = tuple[chex.Array, chex.Array]
"""Hidden state and cell state, each [batch, cells]."""


def _step(weights: Weights, carry: Carry, x: chex.Array) -> tuple[Carry, _Factors]:
    h, c = carry
    z = _dot(h, weights.recurrent) + (x[:, None] * weights.inputs + weights.bias)
    zi, zf, zg, zo = jnp.split(z, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(zi), jax.nn.sigmoid(zf), jnp.tanh(zg), jax.nn.sigmoid(zo)
    new_c = f * c + i * g
    t = jnp.tanh(new_c)
    factors = _Factors(
        i=g * i * (1 - i),
        f=c * f * (1 - f),
        g=i * (1 - g * g),
        o=t * o * (1 - o),
        h_to_c=o * (1 - t * t),
        c_to_c=f,
    )
    return (o * t, new_c), factors


def _start(weights: Weights, inputs: chex.Array) -> Carry:
    zero = jnp.zeros((inputs.shape[0], weights.recurrent.shape[0]), inputs.dtype)
    return zero, zero


@jax.custom_vjp
def last_hidden(weights: Weights, inputs: chex.Array) -> chex.Array:
    """The hidden state after the last step, from a carry of zeros.

    Args:
      weights: of the four gates, float.
      inputs: float [batch, length], of the weights' dtype.

    Returns:
      float [batch, cells].
    """

    def step(carry: Carry, x: chex.Array) -> tuple[Carry, None]:
        return _step(weights, carry, x)[0], None

    (hidden, _), _ = jax.lax.scan(step, _start(weights, inputs), inputs.T)
    return hidden


_Saved = tuple[Weights, chex.Array, chex.Array, _Factors]


def _forward(weights: Weights, inputs: chex.Array) -> tuple[chex.Array, _Saved]:
    def step(carry: Carry, x: chex.Array) -> tuple[Carry, tuple[chex.Array, _Factors]]:
        after, factors = _step(weights, carry, x)
        return after, (carry[0], factors)

    (hidden, _), (before, factors) = jax.lax.scan(step, _start(weights, inputs), inputs.T)
    return hidden, (weights, inputs, before, factors)


def _backward(saved: _Saved, dh: chex.Array) -> tuple[Weights, chex.Array]:
    weights, inputs, before, factors = saved

    def step(carry: Carry, factors: _Factors) -> tuple[Carry, chex.Array]:
        dh, dc = carry
        dc = dc + dh * factors.h_to_c
        parts = (dc * factors.i, dc * factors.f, dc * factors.g, dh * factors.o)
        dz = jnp.concatenate(parts, axis=-1)
        return (_dot(dz, weights.recurrent.T), dc * factors.c_to_c), dz

    _, dz = jax.lax.scan(step, (dh, jnp.zeros_like(dh)), factors, reverse=True)
    # One more column for the digit and one for the bias: all three gradients in one product.
    columns = inputs.T[..., None], jnp.ones_like(inputs.T)[..., None]
    left = jnp.concatenate((before, *columns), axis=-1)
    total = _product(left.reshape(-1, left.shape[-1]), dz.reshape(-1, dz.shape[-1]))
    d_weights = Weights(inputs=total[-2], recurrent=total[:-2], bias=total[-1])
    return d_weights, _dot(dz, weights.inputs).T


def _product(left: chex.Array, right: chex.Array) -> chex.Array:
    """leftᵀ right of [rows, m] and [rows, n], summed in pieces of `PIECE` rows."""
    rows = left.shape[0]
    whole = rows - rows % PIECE

    def add(total: chex.Array, piece: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, None]:
        return total + _dot(piece[0].T, piece[1]), None

    total = _dot(left[whole:].T, right[whole:])
    if whole:
        pieces = tuple(x[:whole].reshape(-1, PIECE, x.shape[-1]) for x in (left, right))
        total, _ = jax.lax.scan(add, total, pieces)
    return total


last_hidden.defvjp(_forward, _backward)
