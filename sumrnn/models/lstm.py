"""The LSTM's recurrence with a hand-written backward pass: same function, less work.

All weights are one matrix, by which a step multiplies the hidden state, the digit and a 1.
Against automatic differentiation of the scanned cell it saves the activated gates and the states
alone, each written once, carries only two arrays backwards, and forms the weights' gradient once,
after the loop, from all steps.  The first step stands apart: it begins with zeros, which need no
product.

Every product is written as [m, k] [k, n] in memory order, transposed beforehand where it
must be: XLA's CPU backend hands such products to a library that sums in the same order on
any number of threads.  For transposed operands it has another one, which does not.

Equations: Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735-1780, with the
forget gate of Gers, Schmidhuber and Cummins, Neural Computation 12 (2000) 2451-2471.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

GATES = ("i", "f", "g", "o")
"""Input, forget, candidate and output gate, in the order of Keras and of Flax."""

_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Full float32 on every device, also where the backward pass is traced on its own."""


class Gates(NamedTuple):
    """The activated gates."""

    i: chex.Array
    f: chex.Array
    g: chex.Array
    o: chex.Array


class _Saved(NamedTuple):
    """What the backward pass needs of every step."""

    left: chex.Array
    """[length, batch, cells + 2]: hidden state after a step; beside it the next digit and a 1."""
    cell: chex.Array
    """[length, batch, cells]: cell state after a step."""
    first: Gates
    """[batch, cells] each: the gates of the first step."""
    others: Gates
    """[length - 1, batch, cells] each: the gates of the others; of length 1, a step not used."""


def _activate(z: chex.Array) -> Gates:
    """The gates of what is activated, [batch, 4 cells]."""
    i, f, g, o = jnp.split(z, len(GATES), axis=1)
    return Gates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))


def _first_step(weights: chex.Array, x: chex.Array) -> tuple[chex.Array, chex.Array, Gates]:
    """Hidden state, cell state and gates of the first step, whose states before are zeros."""
    gates = _activate(x[:, None] * weights[None, -2] + weights[None, -1])
    cell = gates.i * gates.g
    return gates.o * jnp.tanh(cell), cell, gates


def _with_one(x: chex.Array) -> chex.Array:
    """[..., 2]: digits, and the 1 that the bias is multiplied by."""
    return jnp.stack((x, jnp.ones_like(x)), axis=-1)


def _at(array: chex.Array, step: chex.Numeric) -> chex.Array:
    return jax.lax.dynamic_index_in_dim(array, step, keepdims=False)


def _put(array: chex.Array, row: chex.Array, step: chex.Numeric) -> chex.Array:
    """The array with a row, or its beginning, replaced: in place, in a loop that reads it after."""
    return jax.lax.dynamic_update_slice(array, row[None], (step, 0, 0))


@jax.custom_vjp
def last_hidden(weights: chex.Array, inputs: chex.Array) -> chex.Array:
    """The hidden state [batch, cells] after the last step, from a carry of zeros.

    The weights are [cells + 2, 4 cells], the gates' columns in the order of `GATES`: rows of the
    hidden state, of the digit and of the bias.  The inputs are [batch, length], of the weights'
    dtype.  For derivatives in forward mode take the scanned cell (`ModelConfig.recurrence`): JAX
    has none of a hand-written backward pass.
    """
    hidden, cell, _ = _first_step(weights, inputs[:, 0])

    def step(
        carry: tuple[chex.Array, chex.Array], x: chex.Array
    ) -> tuple[tuple[chex.Array, chex.Array], None]:
        hidden, cell = carry
        i, f, g, o = _activate(_dot(jnp.concatenate((hidden, _with_one(x)), axis=1), weights))
        cell = f * cell + i * g
        return (o * jnp.tanh(cell), cell), None

    (hidden, _), _ = jax.lax.scan(step, (hidden, cell), inputs.T[1:])
    return hidden


def _forward(
    weights: chex.Array, inputs: chex.Array
) -> tuple[chex.Array, tuple[chex.Array, chex.Array, _Saved]]:
    hidden, cell, first = _first_step(weights, inputs[:, 0])
    length, cells = inputs.shape[1], hidden.shape[1]

    def empty(value: float, steps: int) -> chex.Array:
        # Of different values, or XLA would make one array and copy it for each of them.
        return jnp.full((steps, *hidden.shape), value, hidden.dtype)

    # The last one has no next digit; any will do.
    left = jnp.concatenate((empty(0, length), _with_one(jnp.roll(inputs.T, -1, axis=0))), axis=2)

    def step(
        t: chex.Numeric, carry: tuple[chex.Array, chex.Array, Gates]
    ) -> tuple[chex.Array, chex.Array, Gates]:
        left, cell, gates = carry
        activated = _activate(_dot(_at(left, t), weights))
        # Read again from where it was written, it is computed once and never copied.
        gates = Gates(*(_put(x, row, t) for x, row in zip(gates, activated, strict=True)))
        i, f, g, o = (_at(gate, t) for gate in gates)
        cell = _put(cell, f * _at(cell, t) + i * g, t + 1)
        left = _put(left, o * jnp.tanh(_at(cell, t + 1)), t + 1)
        return left, cell, gates

    start = (
        _put(left, hidden, 0),
        _put(empty(1, length), cell, 0),
        Gates(*(empty(2 + k, max(1, length - 1)) for k in range(len(GATES)))),
    )
    left, cell, gates = jax.lax.fori_loop(0, length - 1, step, start)
    return left[-1, :, :cells], (weights, inputs, _Saved(left, cell, first, gates))


def _back(
    dh: chex.Array, dc: chex.Array, gates: Gates, before: chex.Array, after: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """One step backwards, with the cell states before and after it.

    Returns the gradients of what is activated, [batch, 4 cells], and of the cell state before.
    """
    i, f, g, o = gates
    t = jnp.tanh(after)
    dc = dc + dh * (o * (1 - t * t))
    dz = (
        dc * (g * i * (1 - i)),
        dc * (before * f * (1 - f)),
        dc * (i * (1 - g * g)),
        dh * (t * o * (1 - o)),
    )
    return jnp.concatenate(dz, axis=1), dc * f


def _backward(
    residuals: tuple[chex.Array, chex.Array, _Saved], dh: chex.Array
) -> tuple[chex.Array, chex.Array]:
    weights, inputs, saved = residuals
    batch, length = inputs.shape
    recurrent = jax.lax.optimization_barrier(weights[:-2].T)

    def step(
        k: chex.Numeric, carry: tuple[chex.Array, chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array, chex.Array]:
        dh, dc, dzs = carry
        t = length - 2 - k
        gates = Gates(*(_at(gate, t) for gate in saved.others))
        dz, dc = _back(dh, dc, gates, _at(saved.cell, t), _at(saved.cell, t + 1))
        return _dot(dz, recurrent), dc, _put(dzs, dz, t)

    rows = len(saved.others.i)
    empty = jnp.zeros((rows, batch, weights.shape[1]), weights.dtype)
    dh, dc, dzs = jax.lax.fori_loop(0, length - 1, step, (dh, jnp.zeros_like(dh), empty))
    first, _ = _back(dh, dc, saved.first, jnp.zeros_like(dh), saved.cell[0])
    left = jax.lax.optimization_barrier(saved.left[:rows].reshape(-1, dh.shape[1] + 2).T)
    d_weights = _dot(left, dzs.reshape(-1, weights.shape[1]))
    d_weights = d_weights.at[-2:].add(_dot(_with_one(inputs[:, 0]).T, first))
    dzs = jnp.concatenate((first[None], dzs))[:length]
    return d_weights, _dot(dzs, weights[-2]).T


last_hidden.defvjp(_forward, _backward)
