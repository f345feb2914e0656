"""Scores by the exact law of the sum, from error rates at given sums.

The label is a function of the sum, whose law is known.  So the error rate is estimated sum by sum,
with series drawn for it, and weighted by the law: the rare class costs no more than the other, and
most series go where they say most.
"""

import math
from typing import Any

import numpy as np
import scipy.stats

from sumrnn.config import TaskConfig
from sumrnn.scores.statistics import CONFIDENCE
from sumrnn.scores.strata import Counts, strata, within


def scores(task: TaskConfig, found: Counts) -> dict[str, Any]:
    """The network's accuracy, error rate, skill, balanced accuracy and Matthews correlation.

    Each has a 95 % interval, NAME_interval.  Error rates are sums over strata of weighted counts,
    whose interval is the one of M. P. Fay and E. J. Feuer, Stat. Med. 16 (1997) 791-801, with the
    binomial variance; of the correlation, a function of two of them, the ends are added as squares
    (G. Y. Zou and A. Donner, Stat. Med. 27 (2008) 1693-1702).  What a law with one class, or a
    network with one answer, leaves undefined is None.  `strata` has of each its `first` and `last`
    sum, `probability`, number of `series`, and of those that were `wrong`.
    """
    own = strata(task)
    negatives, positives = (float(own.masses[own.labels == label].sum()) for label in (0, 1))
    fp, fn = (_rate(own.masses * (own.labels == label), found) for label in (0, 1))
    error = _rate(own.masses, found)
    fewer = min(negatives, positives)
    values: dict[str, Any] = {
        "accuracy": [1 - x for x in error],
        "error": [error[0], error[2], error[1]],
    }
    both = fewer > 0
    values["skill"] = [1 - x / fewer for x in error] if both else None
    halves = _rate(within(own) / 2, found)
    values["balanced_accuracy"] = [1 - x for x in halves] if both else None

    def matthews(fp: float, fn: float) -> float:
        tp, tn = positives - fn, negatives - fp
        product = (tp + fp) * (tn + fn) * positives * negatives
        return (tp * tn - fp * fn) / math.sqrt(product) if product > 0 else math.nan

    value = matthews(fp[0], fn[0])
    ends = [
        math.hypot(*(x - value for x in (matthews(fp[k], fn[0]), matthews(fp[0], fn[k]))))
        for k in (1, 2)
    ]
    defined = math.isfinite(value) and all(map(math.isfinite, ends))
    correlation = [value, min(1.0, value + ends[0]), max(-1.0, value - ends[1])]
    values["matthews_correlation"] = correlation if defined else None
    result: dict[str, Any] = {"series": int(found.series.sum())}
    for name, one in values.items():
        result[name] = None if one is None else one[0]
        result[f"{name}_interval"] = None if one is None else [one[2], one[1]]
    columns = zip(own.sums, own.masses.tolist(), *(x.tolist() for x in found), strict=True)
    result["strata"] = [
        {"first": int(of[0]), "last": int(of[-1]), "probability": p, "series": n, "wrong": k}
        for of, p, n, k in columns
    ]
    return result


def _rate(weights: np.ndarray, found: Counts) -> tuple[float, float, float]:
    """An error rate, the sum of weights [strata] times those of the strata, and its interval."""
    each, rates = weights / found.series, found.wrong / found.series
    value, variance = float(each @ found.wrong), float(each**2 @ (found.wrong * (1 - rates)))
    largest, tail = float(each.max()), (1 - CONFIDENCE) / 2

    def end(mean: float, variance: float, probability: float) -> float:
        """A quantile of the gamma distribution of this mean and variance."""
        if not variance:
            return mean
        return float(scipy.stats.gamma.ppf(probability, mean**2 / variance, 0, variance / mean))

    low = end(value, variance, tail)
    high = end(value + largest, variance + largest**2, 1 - tail)
    return value, low, min(high, float(weights.sum()))
