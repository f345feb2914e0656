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

A step may last: for d steps of the same digit whose gates stay as they are at the first of them,
the cell state is f^d c + (1 + f + ... + f^(d-1)) i g.  Where a step lasts 0, nothing changes.
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
    """The activated gates; of steps that last, `f` is f^d."""

    i: chex.Array
    f: chex.Array
    g: chex.Array
    o: chex.Array
    s: chex.Array | None = None
    """1 + f + ... + f^(d-1) of steps that last d; None: all steps last 1."""


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


Residuals = tuple[chex.Array, chex.Array, chex.Array | None, Gates, Workspace, tuple[()] | None]
"""Weights, inputs, durations, gates of the first step, what is saved of the others, and () or None:
whether that is returned as a workspace."""


def lstm_workspace(
    batch: int,
    length: int,
    cells: int,
    *,
    lasting: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Workspace:
    """A workspace of zeros for series [batch, length], of the weights' dtype.

    `lasting` says whether steps have durations.
    """

    def zeros(steps: int, columns: int) -> chex.Array:
        return jnp.zeros((max(1, steps), batch, columns), dtype)

    gates = Gates(*(zeros(length - 1, cells) for _ in range(len(GATES) + lasting)))
    dz = zeros(length - 1, len(GATES) * cells)
    return Workspace(zeros(length, cells + 2), zeros(length, cells), gates, dz)


def _activate(z: chex.Array, duration: chex.Array | None = None) -> Gates:
    """The gates of what is activated, [batch, 4 cells], in steps of durations [batch]."""
    i, f, g, o = jnp.split(z, len(GATES), axis=1)
    gates = Gates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))
    if duration is None:
        return gates
    f = jnp.minimum(f, 60.0)  # Its sigmoid is 1 from 17 on, and 1 - sigmoid is 0 from 88 on.
    log_f = -duration[:, None] * jax.nn.softplus(-f)
    return gates._replace(f=jnp.exp(log_f), s=-jnp.expm1(log_f) / jax.nn.sigmoid(-f))


def _increment(gates: Gates) -> chex.Array:
    """What a step adds to the cell state."""
    increment = gates.i * gates.g
    return increment if gates.s is None else increment * gates.s


def _first_step(
    weights: chex.Array, x: chex.Array, duration: chex.Array | None
) -> tuple[chex.Array, chex.Array, Gates]:
    """Hidden state, cell state and gates of the first step, whose states before are zeros."""
    gates = _activate(x[:, None] * weights[None, -2] + weights[None, -1], duration)
    cell = _increment(gates)
    return gates.o * jnp.tanh(cell), cell, gates


def _with_one(x: chex.Array) -> chex.Array:
    """[..., 2]: digits, and the 1 that the bias is multiplied by."""
    return jnp.stack((x, jnp.ones_like(x)), axis=-1)


def _at(array: chex.Array, step: chex.Numeric) -> chex.Array:
    return jax.lax.dynamic_index_in_dim(array, step, keepdims=False)


def _duration(
    durations: chex.Array | None, step: chex.Numeric, after: int = 0
) -> chex.Array | None:
    """The durations [batch] of the step, or of one some steps after it, if there are any."""
    if durations is None:
        return None
    return jax.lax.dynamic_index_in_dim(durations, step + after, axis=1, keepdims=False)


def _put(array: chex.Array, row: chex.Array, step: chex.Numeric) -> chex.Array:
    """The array with a row, or its beginning, replaced: in place, in a loop that reads it after."""
    return jax.lax.dynamic_update_slice(array, row[None], (step, 0, 0))


@jax.custom_vjp
def last_hidden(
    weights: chex.Array,
    inputs: chex.Array,
    durations: chex.Array | None = None,
    workspace: Workspace | None = None,
) -> chex.Array:
    """The hidden state [batch, cells] after the last step, from a carry of zeros.

    The weights are [cells + 2, 4 cells], the gates' columns in the order of `GATES`: rows of the
    hidden state, of the digit and of the bias.  The inputs are [batch, length], of the weights'
    dtype.  Each step lasts as long as the durations say, [batch, length] of the same dtype, whole
    numbers from 0; None: all last 1.  A workspace changes no number, whatever it holds; what stands
    for its gradient is the workspace after use, to be used again.  Without it each gradient makes
    its own.

    For derivatives in forward mode take the scanned cell (`ModelConfig.recurrence`): JAX has none
    of a hand-written backward pass.
    """
    hidden, cell, _ = _first_step(weights, inputs[:, 0], _duration(durations, 0))

    def step(
        carry: tuple[chex.Array, chex.Array], x: tuple[chex.Array, chex.Array | None]
    ) -> tuple[tuple[chex.Array, chex.Array], None]:
        (hidden, cell), (digit, duration) = carry, x
        left = jnp.concatenate((hidden, _with_one(digit)), axis=1)
        gates = _activate(_dot(left, weights), duration)
        cell = gates.f * cell + _increment(gates)
        return (gates.o * jnp.tanh(cell), cell), None

    rest = inputs.T[1:], None if durations is None else durations.T[1:]
    (hidden, _), _ = jax.lax.scan(step, (hidden, cell), rest)
    return hidden


def _forward(
    weights: chex.Array,
    inputs: chex.Array,
    durations: chex.Array | None,
    workspace: Workspace | None,
) -> tuple[chex.Array, Residuals]:
    hidden, cell, first = _first_step(weights, inputs[:, 0], _duration(durations, 0))
    length, cells = inputs.shape[1], hidden.shape[1]
    arrays = workspace
    if arrays is None:
        batch, lasting = len(inputs), durations is not None
        arrays = lstm_workspace(batch, length, cells, lasting=lasting, dtype=hidden.dtype)
    # The last one has no next digit; any will do.
    digits = _with_one(jnp.roll(inputs.T, -1, axis=0))
    left = jax.lax.dynamic_update_slice(arrays.left, digits, (0, 0, cells))

    def step(
        t: chex.Numeric, carry: tuple[chex.Array, chex.Array, Gates]
    ) -> tuple[chex.Array, chex.Array, Gates]:
        left, cell, gates = carry
        activated = _activate(_dot(_at(left, t), weights), _duration(durations, t, after=1))
        # Read again from where it was written, it is computed once and never copied.
        gates = jax.tree.map(lambda x, row: _put(x, row, t), gates, activated)
        now = jax.tree.map(lambda gate: _at(gate, t), gates)
        cell = _put(cell, now.f * _at(cell, t) + _increment(now), t + 1)
        left = _put(left, now.o * jnp.tanh(_at(cell, t + 1)), t + 1)
        return left, cell, gates

    start = _put(left, hidden, 0), _put(arrays.cell, cell, 0), arrays.gates
    left, cell, gates = jax.lax.fori_loop(0, length - 1, step, start)
    saved = Workspace(left, cell, gates, arrays.dz)
    rest = (first, saved, () if workspace else None)
    return left[-1, :, :cells], (weights, inputs, durations, *rest)


def _transposed(x: chex.Array) -> chex.Array:
    """The transpose [n, m'] of an array [m, n], with zeros up to a multiple of `BLOCK` columns.

    By whole blocks of columns both the copy and the product with it are faster on CPU.
    """
    rows, columns = x.shape
    blocks = jnp.pad(x, ((0, -rows % BLOCK), (0, 0))).reshape(-1, BLOCK, columns)
    return jax.lax.optimization_barrier(blocks.transpose(2, 0, 1).reshape(columns, -1))


def _forget_slope(gates: Gates, before: chex.Array, duration: chex.Array | None) -> chex.Array:
    """The derivative of the cell state by what the forget gate activates, [batch, cells]."""
    f, s = gates.f, gates.s
    if duration is None or s is None:
        return before * f * (1 - f)
    # Here f is f^d, and s is (1 - f^d) / (1 - f); where a step lasts 0, both are constants.
    closed, power = (1 - f) / jnp.where(s > 0, s, 1.0), duration[:, None] * f
    return before * (power * closed) + gates.i * gates.g * (s * (1 - closed) - power)


def _back(
    dh: chex.Array,
    dc: chex.Array,
    gates: Gates,
    *,
    before: chex.Array,
    after: chex.Array,
    duration: chex.Array | None,
) -> tuple[chex.Array, chex.Array]:
    """One step backwards, with the cell states before and after it, and its durations.

    Returns the gradients of what is activated, [batch, 4 cells], and of the cell state before.
    """
    i, f, g, o, s = gates
    t = jnp.tanh(after)
    dc = dc + dh * (o * (1 - t * t))
    d_added = dc if s is None else dc * s
    dz = (
        d_added * (g * i * (1 - i)),
        dc * _forget_slope(gates, before, duration),
        d_added * (i * (1 - g * g)),
        dh * (t * o * (1 - o)),
    )
    return jnp.concatenate(dz, axis=1), dc * f


def _backward(
    residuals: Residuals, dh: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array | None, Workspace | None]:
    weights, inputs, durations, first, saved, returned = residuals
    length, cells = inputs.shape[1], dh.shape[1]
    recurrent = _transposed(weights[:-2])

    def step(
        k: chex.Numeric, carry: tuple[chex.Array, chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array, chex.Array]:
        dh, dc, dzs = carry
        t = length - 2 - k
        gates = jax.tree.map(lambda gate: _at(gate, t), saved.gates)
        before, after = _at(saved.cell, t), _at(saved.cell, t + 1)
        duration = _duration(durations, t, after=1)
        dz, dc = _back(dh, dc, gates, before=before, after=after, duration=duration)
        return _dot(dz, recurrent)[:, :cells], dc, _put(dzs, dz, t)

    dh, dc, dzs = jax.lax.fori_loop(0, length - 1, step, (dh, jnp.zeros_like(dh), saved.dz))
    before, duration = jnp.zeros_like(dh), _duration(durations, 0)
    first_dz, _ = _back(dh, dc, first, before=before, after=saved.cell[0], duration=duration)
    left = jax.lax.optimization_barrier(saved.left[: length - 1].reshape(-1, cells + 2).T)
    d_weights = _dot(left, dzs[: length - 1].reshape(-1, weights.shape[1]))
    d_weights = d_weights.at[-2:].add(_dot(_with_one(inputs[:, 0]).T, first_dz))
    every_dz = jnp.concatenate((first_dz[None], dzs))[:length]
    d_durations = None if durations is None else jnp.zeros_like(durations)
    workspace = None if returned is None else saved._replace(dz=dzs)
    return d_weights, _dot(every_dz, weights[-2]).T, d_durations, workspace


last_hidden.defvjp(_forward, _backward)
