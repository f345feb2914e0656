"""Scores by the exact law of the sum, from error rates at given sums.

The label is a function of the sum, whose law is known.  So the error rate is estimated sum by sum,
with series drawn for it, and weighted by the law: the rare class costs no more than the other, and
most series go where they say most.
"""

import math
from typing import Any

import numpy as np
import scipy.special

from sumrnn.config import TaskConfig
from sumrnn.scores.statistics import CONFIDENCE
from sumrnn.scores.strata import PILOT, Counts, Strata, pilot, within
from sumrnn.scores.strata import strata as strata_of


def scores(task: TaskConfig, counts: Counts) -> dict[str, Any]:
    """Scores a network by its errors in each stratum of a task.

    They are accuracy, error, skill, balanced accuracy and Matthews correlation.  Each has a 95 %
    interval, NAME_interval.  Error rates are sums over strata of weighted counts, whose intervals
    are those of `_rate`; of the correlation, a function of two of them, the ends are added as
    squares (G. Y. Zou and A. Donner, Stat. Med. 27 (2008) 1693-1702).  What a law with one class,
    or a network with one answer, leaves undefined is None.  `strata` has of each its `first` and
    `last` sum, `probability`, number of `series`, and of those that were `wrong`.
    """
    strata = strata_of(task)
    masses, labels = strata.masses, strata.labels
    negatives, positives = (
        math.fsum(masses[labels == label]) / math.fsum(masses) for label in (0, 1)
    )
    fewer = min(negatives, positives)
    error = _rate(masses, strata, counts)
    values: dict[str, Any] = {
        "accuracy": [1 - x for x in error],
        "error": [error[0], error[2], error[1]],
        "skill": None,
        "balanced_accuracy": None,
        "matthews_correlation": None,
    }
    if fewer > 0:
        values["skill"] = [1 - x / fewer for x in error]
        values["balanced_accuracy"] = [1 - x for x in _rate(within(strata), strata, counts)]
        fpr, fnr = (_rate(masses * (labels == label), strata, counts) for label in (0, 1))
        fp, fn = [negatives * x for x in fpr], [positives * x for x in fnr]

        def matthews(fp: float, fn: float) -> float:
            """The correlation; 0, its limit, where every answer is the same."""
            tp, tn = positives - fn, negatives - fp
            product = (tp + fp) * (tn + fn) * positives * negatives
            return (tp * tn - fp * fn) / math.sqrt(product) if product > 0 else 0.0

        value = matthews(fp[0], fn[0])
        ends = [
            math.hypot(*(x - value for x in (matthews(fp[k], fn[0]), matthews(fp[0], fn[k]))))
            for k in (1, 2)
        ]
        if min(positives - fn[0] + fp[0], negatives - fp[0] + fn[0]) > 0:
            correlation = [value, min(1.0, value + ends[0]), max(-1.0, value - ends[1])]
            values["matthews_correlation"] = correlation
    result: dict[str, Any] = {"series": int(counts.series.sum())}
    for name, triple in values.items():
        result[name] = None if triple is None else triple[0]
        result[f"{name}_interval"] = None if triple is None else [triple[2], triple[1]]
    columns = zip(strata.sums, masses.tolist(), *(x.tolist() for x in counts), strict=True)
    result["strata"] = [
        {"first": int(sums[0]), "last": int(sums[-1]), "probability": p, "series": n, "wrong": k}
        for sums, p, n, k in columns
    ]
    return result


def _rate(weights: np.ndarray, strata: Strata, counts: Counts) -> tuple[float, float, float]:
    """An error rate, the mean of those of the strata by weights [strata], and its 95 % interval.

    In each stratum the rarer kind of answer is counted, wrong or right, so that a network that is
    nearly always wrong is judged like one that is nearly always right.  The two sums of rare
    answers have an interval each (see `_distances`), whose ends are added as squares (Zou and
    Donner, as above).  All three numbers lie in [0, 1]; weights of 0 have an error rate of 0.
    """
    total = math.fsum(weights)
    if total == 0:
        return 0.0, 0.0, 0.0
    mostly = 2 * counts.wrong > counts.series
    wrong = _distances(weights, strata, Counts(counts.series, counts.wrong), ~mostly)
    right = _distances(weights, strata, Counts(counts.series, counts.series - counts.wrong), mostly)
    value = math.fsum(weights * (counts.wrong / counts.series))
    low = value - math.hypot(wrong[0], right[1])
    high = value + math.hypot(wrong[1], right[0])
    return value / total, max(0.0, low / total), min(1.0, high / total)


def _distances(
    weights: np.ndarray, strata: Strata, counts: Counts, where: np.ndarray
) -> tuple[float, float]:
    """How far below and above a weighted sum of rare answers its 95 % interval reaches.

    `counts.wrong` are the rare answers, of the strata where `where` bool [strata] is true.  The
    interval is that of M. P. Fay and E. J. Feuer, Stat. Med. 16 (1997) 791-801, with the binomial
    variance.  For the upper end, mean and variance are raised by what the evaluation may have
    missed: a stratum in whose pilot no answer was rare gets only some series more, so that the
    pilot weighs too much in it.  How likely that is, is reckoned by the mean rate of the strata of
    the same class.
    """
    if not where.any():
        return 0.0, 0.0
    each, rates = weights * where / counts.series, counts.wrong / counts.series
    value, variance = float(each @ counts.wrong), float(each**2 @ (counts.wrong * (1 - rates)))
    first = pilot(strata, round(PILOT * int(counts.series.sum())))
    missed, spread = 0.0, variance
    for label in (0, 1):
        if (inside := where & (strata.labels == label)).any():
            mean = float(rates[inside].mean())
            faultless = mean * (1 - mean) ** first[inside]
            missed += float(each[inside] @ (first[inside] * faultless))
            spread += float(each[inside] ** 2 @ (counts.series[inside] * faultless))
    largest, tail = float(each.max()), (1 - CONFIDENCE) / 2

    def end(mean: float, variance: float, probability: float) -> float:
        """A quantile of the gamma distribution of this mean and variance."""
        if not variance:
            return mean
        return variance / mean * float(scipy.special.gammaincinv(mean**2 / variance, probability))

    low = end(value, variance, tail)
    high = end(value + largest + missed, spread + largest**2, 1 - tail)
    return value - low, high - value
