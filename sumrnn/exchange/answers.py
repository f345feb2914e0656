"""A trained network's answers to any series."""

import jax
import numpy as np
import scipy.special

from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.train import loop

ROWS = 1_000
"""Series that are answered at a time."""


class Answerer:
    """Maps series of digits to probabilities of label 1."""

    def __init__(self, params: network.Params, config: Config) -> None:
        self._params, self._model = params, config.model
        self._logits = jax.jit(network.logits, static_argnums=1)

    def __call__(self, series: list[np.ndarray]) -> np.ndarray:
        """float64 [n] of n series, uint8 [length] each; lengths may differ."""
        found = np.zeros(len(series))
        lengths = np.array([len(digits) for digits in series])
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for first in range(0, len(places), ROWS):
                some = places[first : first + ROWS]
                digits = np.zeros((ROWS if len(places) > 1 else 1, length), np.uint8)
                digits[: len(some)] = np.stack([series[i] for i in some])
                with loop.pinned():
                    logits = np.asarray(self._logits(self._params, self._model, digits))
                found[some] = scipy.special.expit(logits[: len(some)].astype(float))
        return found
