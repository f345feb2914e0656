"""One score over many runs: location with its uncertainty, differences, parts of variance.

Pure functions of arrays; the bootstrap's random numbers are fixed, so that the same runs
give the same intervals.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

CONFIDENCE = 0.95
FACTORS = ("data", "init", "shuffle")
"""The three independent sources of randomness of a run."""


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half: a quarter of the values, rounded down, is cut at each end."""
    import scipy.stats

    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def bootstrap(values: np.ndarray, statistic: Any = np.mean) -> list[float] | None:
    """95 % bias-corrected and accelerated bootstrap interval.

    Source: B. Efron, J. Am. Stat. Assoc. 82 (1987) 171-185, as in scipy.stats.bootstrap.

    Args:
      values: float [n].
      statistic: a function with an axis.

    Returns:
      Its ends, or None if there are fewer than two values.
    """
    import scipy.stats

    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # Nothing varies; the method would divide by zero.
        return [float(values[0])] * 2
    # Of many equal values the corrections may be undefined: the plain percentiles then.
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            found = scipy.stats.bootstrap(
                (values,), statistic, confidence_level=CONFIDENCE, axis=-1, method=method, rng=0
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            break
    return [float(found.low), float(found.high)]


def describe(values: np.ndarray) -> dict[str, Any]:
    """Location and spread of a score over runs.

    Args:
      values: float [n], finite; n may be 0.

    Returns:
      `mean` and `iqm` with their bootstrap intervals, `std` (n - 1), `median`, `min`,
      `max`; None where there are too few values.
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
    """Paired difference, first minus second, of a score over runs that share seeds.

    Args:
      first: float [n], by seed.
      second: float [n], of the same seeds in the same order.

    Returns:
      Its mean with the bootstrap interval over seeds, and on how many seeds first is higher.
    """
    differences = first - second
    return {
        "seeds": len(differences),
        "mean": float(differences.mean()) if len(differences) else None,
        "mean_interval": bootstrap(differences),
        "higher": int((differences > 0).sum()),
    }


def place(value: float, values: np.ndarray) -> dict[str, Any]:
    """Where a value from elsewhere falls among those of the runs."""
    near = np.isclose(values, value, rtol=0, atol=1e-9)
    return {
        "value": value,
        "below": int((~near & (values < value)).sum()),
        "equal": int(near.sum()),
        "above": int((~near & (values > value)).sum()),
    }


def variance_split(values: np.ndarray) -> dict[str, Any] | None:
    """How much of a score's variance comes from data, initialisation and shuffling.

    Random-effects analysis of variance of a balanced crossed design with one run per cell:
    each factor's component is (its mean square - residual mean square) / (runs per level),
    at least 0; the residual holds all interactions, as a run has no noise beside its three
    seeds.  Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.

    Args:
      values: float [data seeds, init seeds, shuffle seeds], at least two of each, finite.

    Returns:
      By factor and for "interaction": `variance`, `share` of their sum, and for the factors
      the `p_value` of the F test that it has no effect; None if the values do not vary.
    """
    import scipy.stats

    if np.ptp(values) == 0:
        return None
    centred = values - values.mean()
    squares, freedom = {}, {}
    for axis, name in enumerate(FACTORS):
        others = tuple(i for i in range(3) if i != axis)
        levels = centred.mean(axis=others)
        squares[name] = float((levels**2).sum() * values.size / values.shape[axis])
        freedom[name] = values.shape[axis] - 1
    rest = max(float((centred**2).sum()) - sum(squares.values()), 0.0)
    rest_freedom = values.size - 1 - sum(freedom.values())
    noise = rest / rest_freedom
    found: dict[str, Any] = {}
    for axis, name in enumerate(FACTORS):
        mean_square = squares[name] / freedom[name]
        component = max(mean_square - noise, 0.0) / (values.size / values.shape[axis])
        ratio = mean_square / noise if noise else np.inf
        p_value = float(scipy.stats.f.sf(ratio, freedom[name], rest_freedom))
        found[name] = {"variance": component, "p_value": p_value}
    found["interaction"] = {"variance": noise}
    total = sum(part["variance"] for part in found.values())
    for part in found.values():
        part["share"] = part["variance"] / total
    return found
