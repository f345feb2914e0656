"""A trained network's answers to any series."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from sumrnn.config import MAX_LENGTH, Config, ModelConfig
from sumrnn.devices import compiler
from sumrnn.models import network

Pair = tuple[chex.Array, chex.Array]
ROWS, OTHER_ROWS = 1_000, 100
"""Series that are answered at a time: of the trained length, and of any others."""


class Answerer:
    """Maps series of digits to probabilities of label 1; few programs answer all lengths."""

    def __init__(self, params: network.Params, config: Config) -> None:
        self._params, self._config = params, config
        self._logits = jax.jit(network.logits, static_argnums=1)
        self._carried = jax.jit(carried, static_argnums=1)

    def __call__(self, series: list[np.ndarray]) -> np.ndarray:
        """float64 [n] of n series, uint8 [length] each; lengths may differ, to `MAX_LENGTH`."""
        answers = np.zeros(len(series))
        lengths = np.array([len(digits) for digits in series])
        order = np.argsort(lengths, kind="stable")  # A block takes as long as its longest series.
        trained = lengths[order] == self._config.task.length
        for places, rows in ((order[trained], ROWS), (order[~trained], OTHER_ROWS)):
            rows = rows if len(places) > 1 else 1
            for first in range(0, len(places), rows):
                block = places[first : first + rows]
                logits = self._answer([series[i] for i in block], rows)[: len(block)]
                answers[block] = scipy.special.expit(logits.astype(float))
        return answers

    def _answer(self, series: list[np.ndarray], rows: int) -> np.ndarray:
        """float32 [rows]: logits of series that all have the trained length, or none of them."""
        trained = len(series[0]) == self._config.task.length
        digits = np.zeros((rows, len(series[0]) if trained else MAX_LENGTH), np.uint8)
        lengths = np.zeros(rows, np.int32)
        for row, one in enumerate(series):
            digits[row, : len(one)], lengths[row] = one, len(one)
        model = self._config.model
        with compiler.pinned():
            if trained:
                return np.asarray(self._logits(self._params, model, digits))
            return np.asarray(self._carried(self._params, model, digits, lengths))


def carried(
    params: network.Params, model: ModelConfig, digits: chex.Array, lengths: chex.Array
) -> chex.Array:
    """The network's logits float32 [batch] to series of any lengths, int32 [batch], from 1.

    Those of `network.logits` but for rounding.  The digits are uint8 [batch, `MAX_LENGTH`]; each
    series' state stays as it is after its last one, and the loop ends with the longest series.
    """
    cell = nn.OptimizedLSTMCell(model.cells)

    def step(t: chex.Numeric, state: Pair) -> Pair:
        x = jax.lax.dynamic_index_in_dim(digits, t, axis=1).astype(jnp.float32)
        x = (x - model.input_center) / model.input_scale
        new, _ = cell.apply({"params": params["lstm"]}, state, x)
        goes_on = (t < lengths)[:, None]
        return jnp.where(goes_on, new[0], state[0]), jnp.where(goes_on, new[1], state[1])

    zero = jnp.zeros((len(digits), model.cells))
    _, hidden = jax.lax.fori_loop(0, lengths.max(), step, (zero, zero))
    logits: chex.Array = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return logits[:, 0]
