"""One score over many runs: location with its uncertainty, differences, parts of variance.

Pure functions of arrays; the bootstrap's random numbers are fixed, so that the same runs
give the same intervals.
"""

import math
import warnings
from typing import Any

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""A p-value below it is called more than chance."""
WHOLE = 1_000
"""The most values that are resampled at once; more would not fit into memory."""
RESAMPLES = 10_000
"""Samples of a bootstrap."""
MAX_PAIRED = 1_000
"""The most seeds of a probability with an interval, whose time grows with their square."""
FACTORS = ("data", "init", "shuffle")
"""The three independent sources of randomness of a run."""


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """The mean of the middle half: a quarter of the values, rounded down, is cut at each end."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def bootstrap(values: np.ndarray, statistic: Any = np.mean) -> list[float] | None:
    """The 95 % bias-corrected and accelerated bootstrap interval of a statistic.

    The statistic has an axis; the values are float [n].  Returns None where they say nothing of
    their spread: fewer than two, or so many equal ones that the interval would have no width.

    Source: B. Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, as in scipy.stats.bootstrap.
    """
    if len(values) < 2 or math.isclose(values.min(), values.max()):  # But for rounding.
        return None
    # Of many equal values the corrections may be undefined: the plain percentiles then.
    batch = None if len(values) <= WHOLE else max(1, RESAMPLES * WHOLE // len(values))
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

    Returns `mean` and `iqm` with their bootstrap intervals, `std` (n - 1), `median`, `min`, `max`;
    None where there are too few values, or no interval (see `bootstrap`).
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


def difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The paired difference, first minus second, of a score over runs that share seeds.

    Both are float [n] in the same order of seeds.  Returns the mean with its bootstrap interval
    over seeds, on how many seeds the first is higher, and the probability that a run of the first
    is higher than any of the second (see `improvement`).
    """
    differences, n = first - second, len(first)
    probability, interval = improvement(first, second)
    return {
        "seeds": n,
        "mean": float(differences.mean()) if n else None,
        "mean_interval": bootstrap(differences),
        "higher": int((differences > 0).sum()),
        "probability": probability,
        "probability_interval": interval,
    }


def improvement(first: np.ndarray, second: np.ndarray) -> tuple[float | None, list[float] | None]:
    """The probability that a run of the first is higher than one of the second; ties count half.

    It comes with its 95 % percentile bootstrap interval over the seeds that both, floats [n],
    share; None where the values say nothing of their spread, or there are more than `MAX_PAIRED`.
    Sources: X. Bouthillier et al., Proc. MLSys 3 (2021) 747-769; R. Agarwal et al., NeurIPS 34
    (2021).
    """
    n, ordered = len(first), np.sort(second)
    if not n:
        return None, None
    below, up_to = (np.searchsorted(ordered, first, side) for side in ("left", "right"))
    probability = float((below + up_to).mean() / 2 / n)
    if n == 1 or n > MAX_PAIRED or probability in (0, 1):
        return probability, None
    wins = (first[:, None] > second) + (first[:, None] == second) / 2
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    means = ((times @ wins) * times).sum(axis=1) / n**2
    tail = (1 - CONFIDENCE) / 2
    return probability, np.quantile(means, [tail, 1 - tail]).tolist()


def place(value: float, values: np.ndarray) -> dict[str, Any]:
    """The place of a value from elsewhere among those of the runs, float [n]: counts of runs."""
    near = np.isclose(values, value, rtol=0, atol=1e-9)
    return {
        "value": value,
        "below": int((~near & (values < value)).sum()),
        "equal": int(near.sum()),
        "above": int((~near & (values > value)).sum()),
    }


def variance_split(values: np.ndarray) -> dict[str, Any] | None:
    """The shares of a score's variance that come from data, initialisation and shuffling.

    They are the variance components of the balanced three-way random-effects model with all
    interactions and one run per cell, from the expected mean squares; what comes out
    negative is set to 0.  A run has no noise beside its three seeds, so that the rest is
    interaction.  Source: Searle, Casella and McCulloch, Variance Components (1992),
    chapter 4.

    Args:
      values: float [data seeds, init seeds, shuffle seeds], at least two of each, finite.

    Returns:
      For each of `FACTORS` and for "interaction", all of them together: `variance` and its
      `share` of the sum; None if the values do not vary.
    """
    if np.ptp(values) == 0:
        return None
    sizes = values.shape
    effects: dict[tuple[int, ...], np.ndarray] = {(): values.mean(keepdims=True)}
    squares: dict[tuple[int, ...], float] = {}
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        others = tuple(axis for axis in range(3) if axis not in axes)
        within = sum(effect for key, effect in effects.items() if set(key) < set(axes))
        effects[axes] = values.mean(axis=others, keepdims=True) - within
        freedom = math.prod(sizes[axis] - 1 for axis in axes)
        repeats = math.prod(sizes[axis] for axis in others)
        squares[axes] = repeats * float((effects[axes] ** 2).sum()) / freedom
    rest = squares[0, 1, 2]
    pairs = {axes: max(squares[axes] - rest, 0.0) for axes in ((0, 1), (0, 2), (1, 2))}
    variances = {}
    for axis, name in enumerate(FACTORS):
        mixed = sum(squares[pair] for pair in pairs if axis in pair)
        repeats = values.size / sizes[axis]
        variances[name] = max(squares[axis,] - mixed + rest, 0.0) / repeats
    variances["interaction"] = rest + sum(
        excess / math.prod(sizes[axis] for axis in range(3) if axis not in pair)
        for pair, excess in pairs.items()
    )
    total = sum(variances.values())
    return {name: {"variance": v, "share": v / total} for name, v in variances.items()}
