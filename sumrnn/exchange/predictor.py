"""The probabilities that a trained network gives to any series."""

import jax
import numpy as np
import scipy.special

from sumrnn.config import MAX_LENGTH, Config
from sumrnn.devices import compiler
from sumrnn.models import network

ROWS, OTHER_ROWS = 1_000, 100
"""Series that are predicted at a time: of the trained length, and of any others."""


class Predictor:
    """Maps series of digits to probabilities of label 1, by few programs for all lengths."""

    def __init__(self, params: network.Params, config: Config) -> None:
        self._params, self._config = params, config
        self._weights = network.from_flax(params, config.model)
        self._logits = jax.jit(network.logits, static_argnums=1)
        self._carried = jax.jit(network.logits_of_lengths, static_argnums=1)

    def __call__(self, series: list[np.ndarray]) -> np.ndarray:
        """Returns float64 [n] of n series, uint8 [length] each, of any lengths to `MAX_LENGTH`."""
        probabilities = np.zeros(len(series))
        lengths = np.array([len(digits) for digits in series])
        order = np.argsort(lengths, kind="stable")  # A block takes as long as its longest series.
        trained = lengths[order] == self._config.task.length
        for places, rows in ((order[trained], ROWS), (order[~trained], OTHER_ROWS)):
            rows = rows if len(places) > 1 else 1
            for first in range(0, len(places), rows):
                block = places[first : first + rows]
                logits = self._block([series[i] for i in block], rows)[: len(block)]
                probabilities[block] = scipy.special.expit(logits.astype(float))
        return probabilities

    def _block(self, series: list[np.ndarray], rows: int) -> np.ndarray:
        """float32 [rows]: logits of series that all have the trained length, or none of them."""
        trained = len(series[0]) == self._config.task.length
        digits = np.zeros((rows, len(series[0]) if trained else MAX_LENGTH), np.uint8)
        lengths = np.zeros(rows, np.int32)
        for row, x in enumerate(series):
            digits[row, : len(x)], lengths[row] = x, len(x)
        model = self._config.model
        with compiler.pinned():
            if trained:
                return np.asarray(self._logits(self._weights, model, digits))
            return np.asarray(self._carried(self._params, model, digits, lengths))
