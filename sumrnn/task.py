"""The task: random digits, whether their sum reaches a threshold, and the distribution of sums."""

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
    """The three disjoint splits of a run's data."""

    train: Split
    validation: Split
    test: Split


def generate(key: chex.PRNGKey, config: TaskConfig) -> Split:
    """Draws the `config.size` labelled series of a run's data; the key is typed.

    Digits are independent and uniform between `config.low` and `config.high`.
    """
    return draw_series(key, config.size, config)


def draw_series(key: chex.PRNGKey, size: int, config: TaskConfig) -> Split:
    """Draws `size` series of independent, uniform digits and labels them; the key is typed."""
    shape = (size, config.length)
    # Drawn as int32: from uint8, randint would reduce 16 random bits to the range,
    # which favours some digits by about 1 in 10,000.
    digits = jax.random.randint(key, shape, config.low, config.high + 1, dtype=jnp.int32)
    return Split(digits.astype(jnp.uint8), labels(digits, config))


def labels(digits: chex.Array, config: TaskConfig) -> chex.Array:
    """The labels uint8 [...] of digits [..., length]: 1 where their sum reaches the threshold."""
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
    digits, labels = (jnp.split(array, ends) for array in data)
    return Splits(*map(Split, digits, labels))


def log_pmf_table(config: TaskConfig) -> np.ndarray:
    """The logarithms of P(sum of k digits = k low + j), float32 [length + 1, span + 1] by k and j.

    The span is length x (high - low); the entry of a sum that k digits cannot have is -inf.
    Probabilities are added as logarithms, so that none is too small for a float.
    """
    width, span = config.high - config.low, config.length * (config.high - config.low)
    logs = np.full((config.length + 1, span + 1), -np.inf)
    logs[0, 0] = 0.0
    for k in range(config.length):
        padded = np.pad(logs[k], (width, 0), constant_values=-np.inf)
        terms = np.lib.stride_tricks.sliding_window_view(padded, width + 1)
        logs[k + 1] = np.logaddexp.reduce(terms, axis=1) - math.log(width + 1)
    return logs.astype(np.float32)


def draw_series_with_sums(
    key: chex.PRNGKey,
    sums: chex.Array,
    config: TaskConfig,
    *,
    log_pmfs: chex.Array,
    counts: chex.Array | None = None,
) -> chex.Array:
    """Draws a series of digits for each sum, uniformly among all series that have this sum.

    Digits are drawn one after the other, each by its distribution given the sum of all digits from
    it to the last.

    Args:
      key: typed.
      sums: int32 [n], each one that a series can have: length x low to length x high.
      config: the task.
      log_pmfs: the table of `log_pmf_table` for the task, float32.
      counts: int32 [n], from 1 to length: the last so many steps of each series have digits, which
        have the sum, and those before have zeros; None: all steps have digits.

    Returns:
      The digits, uint8 [n, length].
    """
    steps = jnp.arange(config.high - config.low + 1)

    def draw_digit(
        remainder: chex.Array, inputs: tuple[chex.PRNGKey, chex.Array, chex.Array | None]
    ) -> tuple[chex.Array, Any]:
        key, log_pmf, is_digit = inputs
        remainders = remainder[:, None] - steps[None]
        logs = jnp.where(remainders >= 0, log_pmf[jnp.maximum(remainders, 0)], -jnp.inf)
        weights = jnp.exp(logs - logs.max(axis=1, keepdims=True))
        cumulative = jnp.cumsum(weights, axis=1)
        # The first entry above a uniform number below the total belongs to a positive weight.
        uniform = jax.random.uniform(key, remainder.shape, jnp.float32)[:, None]
        step = (uniform * cumulative[:, -1:] >= cumulative).sum(axis=1, dtype=jnp.int32)
        if is_digit is None:
            return remainder - step, (config.low + step).astype(jnp.uint8)
        step = jnp.where(is_digit, step, 0)
        return remainder - step, jnp.where(is_digit, config.low + step, 0).astype(jnp.uint8)

    keys = jax.random.split(key, config.length)
    size = config.length if counts is None else counts
    are_digits = None
    if counts is not None:
        are_digits = jnp.arange(config.length)[:, None] >= config.length - counts[None]
    remainder = sums.astype(jnp.int32) - size * config.low
    inputs = (keys, log_pmfs[config.length - 1 :: -1], are_digits)
    _, digits = jax.lax.scan(draw_digit, remainder, inputs)
    return digits.T


class Spread(NamedTuple):
    """Series of digits that stand, in their order, among zeros."""

    digits: chex.Array
    """uint8 [n, length]."""
    are_digits: chex.Array
    """bool [n, length]: where the digits are."""
    are_inside: chex.Array
    """bool [n, length]: where a series has begun; zeros before are not of it."""


def spread(
    key: chex.PRNGKey, digits: chex.Array, counts: chex.Array, *, spans: chex.Array, length: int
) -> Spread:
    """Puts digits among zeros: uniformly, in their order, into the last steps of longer series.

    The sum stays what it is.  The key is typed; of the digits, uint8 [n, k], each series has its
    last `counts`, int32 [n]; they get as many of its last `spans` steps, int32 [n], of `length` in
    all, where counts <= spans <= length.
    """
    uniform = jax.random.uniform(key, (len(digits), length))
    are_inside = jnp.arange(length)[None] >= length - spans[:, None]
    # The steps of the smallest numbers have the digits.
    order = jnp.where(are_inside, uniform, 2.0).argsort(axis=1).argsort(axis=1)
    are_digits = order < counts[:, None]
    places = digits.shape[1] - counts[:, None] + are_digits.cumsum(axis=1) - 1
    taken = jnp.take_along_axis(digits, jnp.maximum(places, 0), axis=1)
    return Spread(jnp.where(are_digits, taken, 0).astype(jnp.uint8), are_digits, are_inside)


@dataclasses.dataclass(frozen=True)
class SumDistribution:
    """The exact law of the sum of a series: every possible sum with its probability.

    The sum of independent digits has the convolution of their distributions; see any text on
    generating functions, e.g. Feller, An Introduction to Probability Theory, vol. 1, XI.
    """

    sums: np.ndarray
    """int64 [m]: every sum a series can have, ascending."""
    probabilities: np.ndarray
    """float64 [m]: the probability of each sum."""
    positive_rate: float
    """The probability of label 1, P(sum >= threshold)."""

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
        """The label that is at least as probable as the other one; 1 if both are."""
        return int(self.positive_rate >= 0.5)

    @property
    def majority_accuracy(self) -> float:
        """The expected accuracy of predicting `majority_class` for every series."""
        return max(self.positive_rate, 1.0 - self.positive_rate)


def sum_law(config: TaskConfig) -> SumDistribution:
    """The exact law of a task's sum, up to rounding in float64.

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
    positive = probabilities[config.threshold - lowest :]
    return SumDistribution(
        sums=lowest + np.arange(probabilities.size),
        probabilities=probabilities,
        positive_rate=min(1.0, math.fsum(positive)),
    )
