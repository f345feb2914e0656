"""The LSTM's recurrence with a hand-written backward pass: same function, less work.

All weights are one matrix, by which a step multiplies the hidden state, the digit and a 1.
Against automatic differentiation of the scanned cell it saves the activated gates and the states
alone, each written once, carries only two arrays backwards, and forms the weights' gradient once,
after the loop, from all steps.  The first step stands apart: it begins with zeros, which need no
product.  What is saved lives in a workspace that the caller keeps from one gradient to the next, as
an array that begins in a loop is filled each time.

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

BLOCK = 16
"""Float32 numbers of the widest vectors of CPUs."""
_dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""Full float32 on every device, also where the backward pass is traced on its own."""


class Gates(NamedTuple):
    """The activated gates."""

    i: chex.Array
    f: chex.Array
    g: chex.Array
    o: chex.Array


class Workspace(NamedTuple):
    """Arrays that the gradient of `last_hidden` writes before it reads them.

    Of the steps but the first there is at least one, which a length of 1 leaves unused.
    """

    left: chex.Array
    """[length, batch, cells + 2]: hidden state after a step; beside it the next digit and a 1."""
    cell: chex.Array
    """[length, batch, cells]: cell state after a step."""
    gates: Gates
    """[length - 1, batch, cells] each: the gates of all steps but the first."""
    dz: chex.Array
    """[length - 1, batch, 4 cells]: gradients of what these gates activate."""


Residuals = tuple[chex.Array, chex.Array, Gates, Workspace, tuple[()] | None]
"""Weights, inputs, gates of the first step, what is saved of the others, and () or None: whether
that is returned as a workspace."""


def lstm_workspace(
    batch: int, length: int, cells: int, dtype: jax.typing.DTypeLike = jnp.float32
) -> Workspace:
    """A workspace of zeros for series [batch, length], of the weights' dtype."""

    def zeros(steps: int, columns: int) -> chex.Array:
        return jnp.zeros((max(1, steps), batch, columns), dtype)

    gates = Gates(*(zeros(length - 1, cells) for _ in GATES))
    dz = zeros(length - 1, len(GATES) * cells)
    return Workspace(zeros(length, cells + 2), zeros(length, cells), gates, dz)


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
def last_hidden(
    weights: chex.Array, inputs: chex.Array, workspace: Workspace | None = None
) -> chex.Array:
    """The hidden state [batch, cells] after the last step, from a carry of zeros.

    The weights are [cells + 2, 4 cells], the gates' columns in the order of `GATES`: rows of the
    hidden state, of the digit and of the bias.  The inputs are [batch, length], of the weights'
    dtype.  A workspace changes no number, whatever it holds; what stands for its gradient is the
    workspace after use, to be used again.  Without it each gradient makes its own.

    For derivatives in forward mode take the scanned cell (`ModelConfig.recurrence`): JAX has none
    of a hand-written backward pass.
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
    weights: chex.Array, inputs: chex.Array, workspace: Workspace | None
) -> tuple[chex.Array, Residuals]:
    hidden, cell, first = _first_step(weights, inputs[:, 0])
    length, cells = inputs.shape[1], hidden.shape[1]
    arrays = workspace
    if arrays is None:
        arrays = lstm_workspace(inputs.shape[0], length, cells, hidden.dtype)
    # The last one has no next digit; any will do.
    digits = _with_one(jnp.roll(inputs.T, -1, axis=0))
    left = jax.lax.dynamic_update_slice(arrays.left, digits, (0, 0, cells))

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

    start = _put(left, hidden, 0), _put(arrays.cell, cell, 0), arrays.gates
    left, cell, gates = jax.lax.fori_loop(0, length - 1, step, start)
    saved = Workspace(left, cell, gates, arrays.dz)
    return left[-1, :, :cells], (weights, inputs, first, saved, () if workspace else None)


def _transposed(x: chex.Array) -> chex.Array:
    """The transpose [n, m'] of an array [m, n], with zeros up to a multiple of `BLOCK` columns.

    By whole blocks of columns both the copy and the product with it are faster on CPU.
    """
    rows, columns = x.shape
    blocks = jnp.pad(x, ((0, -rows % BLOCK), (0, 0))).reshape(-1, BLOCK, columns)
    return jax.lax.optimization_barrier(blocks.transpose(2, 0, 1).reshape(columns, -1))


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
    residuals: Residuals, dh: chex.Array
) -> tuple[chex.Array, chex.Array, Workspace | None]:
    weights, inputs, first, saved, returned = residuals
    length, cells = inputs.shape[1], dh.shape[1]
    recurrent = _transposed(weights[:-2])

    def step(
        k: chex.Numeric, carry: tuple[chex.Array, chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array, chex.Array]:
        dh, dc, dzs = carry
        t = length - 2 - k
        gates = Gates(*(_at(gate, t) for gate in saved.gates))
        dz, dc = _back(dh, dc, gates, _at(saved.cell, t), _at(saved.cell, t + 1))
        return _dot(dz, recurrent)[:, :cells], dc, _put(dzs, dz, t)

    dh, dc, dzs = jax.lax.fori_loop(0, length - 1, step, (dh, jnp.zeros_like(dh), saved.dz))
    first_dz, _ = _back(dh, dc, first, jnp.zeros_like(dh), saved.cell[0])
    left = jax.lax.optimization_barrier(saved.left[: length - 1].reshape(-1, cells + 2).T)
    d_weights = _dot(left, dzs[: length - 1].reshape(-1, weights.shape[1]))
    d_weights = d_weights.at[-2:].add(_dot(_with_one(inputs[:, 0]).T, first_dz))
    every_dz = jnp.concatenate((first_dz[None], dzs))[:length]
    after = None if returned is None else saved._replace(dz=dzs)
    return d_weights, _dot(every_dz, weights[-2]).T, after


last_hidden.defvjp(_forward, _backward)
