"""Statistics of one score over many runs: location, paired differences, components of variance.

Pure functions of arrays; the bootstrap's random numbers are fixed, so that the same runs
give the same intervals.
"""

import functools
import math
import warnings
from typing import Any

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
"""The probability with which an interval is to hold the truth."""
SIGNIFICANT = 0.05
"""The p-value below which a difference is called more than chance."""
MAX_VECTORIZED = 1_000
"""The largest number of values whose resamples are all in memory at once."""
RESAMPLES = 10_000
"""The number of samples of a bootstrap."""
MAX_PAIRED = 1_000
"""The largest number of seeds for which a probability has an interval, whose time grows with their
square."""
FACTORS = ("data", "init", "shuffle")
"""The three independent sources of randomness of a run."""
interquartile_mean = functools.partial(scipy.stats.trim_mean, proportiontocut=0.25)
"""The mean of the middle half of the values; a quarter, rounded down, is cut at each end."""


def bootstrap(values: np.ndarray, statistic: Any = np.mean) -> list[float] | None:
    """The 95 % bias-corrected and accelerated bootstrap interval of a statistic.

    The values are float [n], and the statistic is a function of an array and an axis.  Returns
    [low, high], or None where the values say nothing of their spread: if there are fewer than two,
    or so many equal ones that the interval would have no width.

    Source: B. Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, as in scipy.stats.bootstrap.
    """
    if len(values) < 2 or math.isclose(values.min(), values.max()):  # Equal but for rounding.
        return None
    # Of many equal values the corrections may be undefined: the plain percentiles then.
    batch = (
        None if len(values) <= MAX_VECTORIZED else max(1, RESAMPLES * MAX_VECTORIZED // len(values))
    )
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            interval = scipy.stats.bootstrap(
                (values,),
                statistic,
                confidence_level=CONFIDENCE,
                batch=batch,
                axis=-1,
                method=method,
                rng=0,
            ).confidence_interval
        if np.isfinite([interval.low, interval.high]).all():
            break
    low, high = float(interval.low), float(interval.high)
    return None if math.isclose(low, high) else [low, high]


def describe(values: np.ndarray) -> dict[str, Any]:
    """The location and spread of a score over runs, finite float [n]; n may be 0.

    Returns `runs`, which is n, `mean` and `iqm` (`interquartile_mean`) with their `bootstrap`
    intervals, `std` (n - 1), `median`, `min` and `max`; None stands for what too few values, or
    values without spread, leave undefined.
    """
    n = len(values)
    return {
        "runs": n,
        "mean": float(values.mean()) if n else None,
        "mean_interval": bootstrap(values),
        "std": float(values.std(ddof=1)) if n > 1 else None,
        "median": float(np.median(values)) if n else None,
        "iqm": float(interquartile_mean(values)) if n else None,
        "iqm_interval": bootstrap(values, interquartile_mean),
        "min": float(values.min()) if n else None,
        "max": float(values.max()) if n else None,
    }


def paired_difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The paired difference, first minus second, of a score over runs that share seeds.

    Both are float [n] in the same order of seeds.  Returns `seeds`, which is n, the `mean` with its
    bootstrap interval over seeds, the number of seeds on which the first is `higher`, and
    `probability` with its interval, those of `probability_of_improvement`.
    """
    differences, n = first - second, len(first)
    probability, interval = probability_of_improvement(first, second)
    return {
        "seeds": n,
        "mean": float(differences.mean()) if n else None,
        "mean_interval": bootstrap(differences),
        "higher": int((differences > 0).sum()),
        "probability": probability,
        "probability_interval": interval,
    }


def probability_of_improvement(
    first: np.ndarray, second: np.ndarray
) -> tuple[float | None, list[float] | None]:
    """The probability that a run of the first is higher than a run of the second, and its interval.

    Both are float [n] over the same seeds in the same order; ties count half.  The interval is the
    95 % percentile bootstrap over seeds, [low, high].  The probability is None if n is 0; the
    interval is None if the values say nothing of their spread, or n is above `MAX_PAIRED`.

    Sources: X. Bouthillier et al., Proc. MLSys 3 (2021) 747-769; R. Agarwal et al., NeurIPS 34
    (2021).
    """
    n, ascending = len(first), np.sort(second)
    if not n:
        return None, None
    lower, lower_or_equal = (np.searchsorted(ascending, first, side) for side in ("left", "right"))
    probability = float((lower + lower_or_equal).mean() / 2 / n)
    if n == 1 or n > MAX_PAIRED or probability in (0, 1):
        return probability, None
    wins = (first[:, None] > second) + (first[:, None] == second) / 2
    multiplicities = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    means = ((multiplicities @ wins) * multiplicities).sum(axis=1) / n**2
    tail = (1 - CONFIDENCE) / 2
    return probability, np.quantile(means, [tail, 1 - tail]).tolist()


def rank(value: float, values: np.ndarray) -> dict[str, Any]:
    """The numbers of runs, whose values are float [n], `below`, `equal` to and `above` a value.

    Values that differ by at most 1e-9 are equal.
    """
    equal = np.isclose(values, value, rtol=0, atol=1e-9)
    return {
        "value": value,
        "below": int((~equal & (values < value)).sum()),
        "equal": int(equal.sum()),
        "above": int((~equal & (values > value)).sum()),
    }


def variance_components(values: np.ndarray) -> dict[str, Any] | None:
    """The shares of a score's variance that come from data, initialisation and shuffling.

    They are the components of the balanced three-way random-effects model with all interactions
    and one run per cell, from the expected mean squares; a negative component is set to 0.  A run
    has no noise beside its three seeds, so that the residual is interaction.

    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.

    Args:
      values: float [data seeds, init seeds, shuffle seeds], at least two of each, finite.

    Returns:
      For each of `FACTORS`, and for all interactions together as "interaction": `variance`, and its
      `share` of the sum of all four; None if the values do not vary.
    """
    if np.ptp(values) == 0:
        return None
    sizes = values.shape
    effects: dict[tuple[int, ...], np.ndarray] = {(): values.mean(keepdims=True)}
    squares: dict[tuple[int, ...], float] = {}
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        others = tuple(axis for axis in range(3) if axis not in axes)
        lower_order = sum(effect for key, effect in effects.items() if set(key) < set(axes))
        effects[axes] = values.mean(axis=others, keepdims=True) - lower_order
        degrees = math.prod(sizes[axis] - 1 for axis in axes)
        repeats = math.prod(sizes[axis] for axis in others)
        squares[axes] = repeats * float((effects[axes] ** 2).sum()) / degrees
    residual = squares[0, 1, 2]
    pairs = {axes: max(squares[axes] - residual, 0.0) for axes in ((0, 1), (0, 2), (1, 2))}
    variances = {}
    for axis, name in enumerate(FACTORS):
        interactions = sum(squares[pair] for pair in pairs if axis in pair)
        repeats = values.size / sizes[axis]
        variances[name] = max(squares[axis,] - interactions + residual, 0.0) / repeats
    variances["interaction"] = residual + sum(
        excess / math.prod(sizes[axis] for axis in range(3) if axis not in pair)
        for pair, excess in pairs.items()
    )
    total = sum(variances.values())
    return {name: {"variance": v, "share": v / total} for name, v in variances.items()}
