"""The task: random digits, whether their sum reaches a threshold, and the exact law of that sum."""

import dataclasses
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sumrnn.config import TaskConfig


class Split(NamedTuple):
    """Labelled series of digits."""

    digits: chex.Array
    """uint8 [n, length], each between `low` and `high`, both inclusive."""
    labels: chex.Array
    """uint8 [n]: 1 if the sum of the digits is at least the threshold, else 0."""


class Splits(NamedTuple):
    """The three disjoint parts of the data."""

    train: Split
    validation: Split
    test: Split


def generate(key: chex.PRNGKey, config: TaskConfig) -> Split:
    """Draws `config.size` series of independent, uniform digits and labels them; typed key."""
    return draw(key, config.size, config)


def draw(key: chex.PRNGKey, size: int, config: TaskConfig) -> Split:
    """Draws `size` series of independent, uniform digits and labels them; typed key."""
    shape = (size, config.length)
    # Drawn as int32: from uint8, randint would reduce 16 random bits to the range,
    # which favours some digits by about 1 in 10,000.
    digits = jax.random.randint(key, shape, config.low, config.high + 1, dtype=jnp.int32)
    return Split(digits.astype(jnp.uint8), labels(digits, config))


def labels(digits: chex.Array, config: TaskConfig) -> chex.Array:
    """Labels digits [..., length]: uint8 [...], 1 where they sum to the threshold or more."""
    reached = digits.sum(axis=-1, dtype=jnp.int32) >= config.threshold
    return reached.astype(jnp.uint8)


def split(data: Split, config: TaskConfig) -> Splits:
    """Cuts the series into training, validation and test rows, in this order.

    The test rows are the last ones, the validation rows the last ones before them.
    The series are independent, so that any fixed cut is as good as a random one.
    """
    chex.assert_shape(data.digits, (config.size, config.length))
    chex.assert_shape(data.labels, (config.size,))
    ends = (config.train_size, config.train_size + config.validation_size)
    parts = zip(*(jnp.split(array, ends) for array in data), strict=True)
    return Splits(*(Split(*part) for part in parts))


def log_laws(config: TaskConfig) -> np.ndarray:
    """The logarithms of P(sum of k digits = k low + j), float32 [length + 1, span + 1] by k and j.

    The span is length x (high - low); what cannot be reached is -inf.  Summed as logarithms, so
    that no probability is too small.
    """
    width, span = config.high - config.low, config.length * (config.high - config.low)
    logs = np.full((config.length + 1, span + 1), -np.inf)
    logs[0, 0] = 0.0
    for k in range(config.length):
        padded = np.pad(logs[k], (width, 0), constant_values=-np.inf)
        terms = np.lib.stride_tricks.sliding_window_view(padded, width + 1)
        logs[k + 1] = np.logaddexp.reduce(terms, axis=1) - math.log(width + 1)
    return logs.astype(np.float32)


def with_sums(
    key: chex.PRNGKey, laws: chex.Array, sums: chex.Array, config: TaskConfig
) -> chex.Array:
    """Draws series, uint8 [n, length], uniformly among those of the sums asked for.

    One digit follows the other, each by its distribution given what the rest has to add up to.
    `laws` are those of `log_laws`, the sums int32 [n] between length x low and length x high; typed
    key.
    """
    steps = jnp.arange(config.high - config.low + 1)

    def draw(left: chex.Array, at: tuple[chex.PRNGKey, chex.Array]) -> tuple[chex.Array, Any]:
        key, law = at
        after = left[:, None] - steps[None]
        logs = jnp.where(after >= 0, law[jnp.maximum(after, 0)], -jnp.inf)
        weights = jnp.exp(logs - logs.max(axis=1, keepdims=True))
        below = jnp.cumsum(weights, axis=1)
        # The first one above a uniform number less than all of it has a weight.
        at_random = jax.random.uniform(key, left.shape, jnp.float32)[:, None] * below[:, -1:]
        step = (at_random >= below).sum(axis=1, dtype=jnp.int32)
        return left - step, (config.low + step).astype(jnp.uint8)

    keys = jax.random.split(key, config.length)
    left = sums.astype(jnp.int32) - config.length * config.low
    _, digits = jax.lax.scan(draw, left, (keys, laws[config.length - 1 :: -1]))
    return digits.T


@dataclasses.dataclass(frozen=True)
class Law:
    """The exact law of the sum of a series: its distribution.

    The sum of independent digits has the convolution of their distributions; see any text on
    generating functions, e.g. Feller, An Introduction to Probability Theory, vol. 1, XI.
    """

    sums: np.ndarray
    """int64 [m]: every sum a series can have, ascending."""
    probabilities: np.ndarray
    """float64 [m]: the probability of each sum."""
    positive_rate: float
    """P(sum >= threshold)."""

    @property
    def mean(self) -> float:
        """The expected sum."""
        return float(self.sums @ self.probabilities)

    @property
    def std(self) -> float:
        """The standard deviation of the sum."""
        return math.sqrt(float((self.sums - self.mean) ** 2 @ self.probabilities))

    @property
    def majority_class(self) -> int:
        """The better constant answer: 1 unless negatives are likelier."""
        return int(self.positive_rate >= 0.5)

    @property
    def majority_accuracy(self) -> float:
        """Expected accuracy of the better constant answer."""
        return max(self.positive_rate, 1.0 - self.positive_rate)


def sum_law(config: TaskConfig) -> Law:
    """The exact law of the sum, up to rounding in float64.

    Only positive terms are added, so that the relative error of a probability stays near that of
    the factors: at most 4e-15 for 30 digits, 1.3e-13 for 1,000 and 1.3e-12 for 10,000.
    """
    base = np.full(config.high - config.low + 1, 1.0 / (config.high - config.low + 1))
    probabilities = np.ones(1)
    remaining = config.length
    while remaining:  # Powers by squaring, as for numbers.
        if remaining & 1:
            probabilities = np.convolve(probabilities, base)
        remaining >>= 1
        if remaining:
            base = np.convolve(base, base)
    lowest = config.length * config.low
    reached = probabilities[config.threshold - lowest :]
    return Law(
        sums=lowest + np.arange(probabilities.size),
        probabilities=probabilities,
        positive_rate=min(1.0, math.fsum(reached)),
    )
