"""Scores by the exact law of the sum, from error rates at given sums.

The label is a function of the sum, whose distribution is known.  So the error rate is estimated in
each stratum of sums, with series drawn for it, and weighted by the stratum's probability: the rare
class costs no more than the other, and most series go where they say most.
"""

import math
from typing import Any

import numpy as np
import scipy.special

from sumrnn.config import TaskConfig
from sumrnn.scores.statistics import CONFIDENCE
from sumrnn.scores.strata import (
    PILOT,
    Counts,
    Strata,
    class_conditional,
    pilot_allocation,
    task_strata,
)


def scores(task: TaskConfig, counts: Counts) -> dict[str, Any]:
    """The scores of a network by the exact law, from its errors in each stratum of a task.

    Args:
      task: whose strata are those of `strata.task_strata`.
      counts: the network's errors; at least one series in each stratum.

    Returns:
      `series`, their number; `accuracy`, `error`, `skill`, `balanced_accuracy` and
      `matthews_correlation`, each with its 95 % interval, `NAME_interval`; and `strata`, a list of
      each one's `first` and `last` sum, `probability`, number of `series`, and number of those
      that were `wrong`.  A score is None where the task has one class only and leaves it
      undefined; the correlation also where the network predicts one class only.

    Intervals of error rates are those of `_rate`.  The correlation is a function of two error
    rates; the distances to its ends that follow from either rate are added as squares (G. Y. Zou
    and A. Donner, Stat. Med. 27 (2008) 1693-1702).
    """
    strata = task_strata(task)
    probabilities, labels = strata.probabilities, strata.labels
    negatives, positives = (
        math.fsum(probabilities[labels == label]) / math.fsum(probabilities) for label in (0, 1)
    )
    minority_rate = min(negatives, positives)
    error = _rate(probabilities, strata, counts)
    values: dict[str, Any] = {
        "accuracy": [1 - x for x in error],
        "error": [error[0], error[2], error[1]],
        "skill": None,
        "balanced_accuracy": None,
        "matthews_correlation": None,
    }
    if minority_rate > 0:
        values["skill"] = [1 - x / minority_rate for x in error]
        balanced_error = _rate(class_conditional(strata), strata, counts)
        values["balanced_accuracy"] = [1 - x for x in balanced_error]
        fpr, fnr = (_rate(probabilities * (labels == label), strata, counts) for label in (0, 1))
        fp, fn = [negatives * x for x in fpr], [positives * x for x in fnr]

        def matthews(fp: float, fn: float) -> float:
            """The correlation; 0, its limit, where every prediction is the same."""
            tp, tn = positives - fn, negatives - fp
            product = (tp + fp) * (tn + fn) * positives * negatives
            return (tp * tn - fp * fn) / math.sqrt(product) if product > 0 else 0.0

        value = matthews(fp[0], fn[0])
        distances = [
            math.hypot(*(x - value for x in (matthews(fp[k], fn[0]), matthews(fp[0], fn[k]))))
            for k in (1, 2)
        ]
        if min(positives - fn[0] + fp[0], negatives - fp[0] + fn[0]) > 0:
            high, low = min(1.0, value + distances[0]), max(-1.0, value - distances[1])
            values["matthews_correlation"] = [value, high, low]
    result: dict[str, Any] = {"series": int(counts.series.sum())}
    for name, triple in values.items():
        result[name] = None if triple is None else triple[0]
        result[f"{name}_interval"] = None if triple is None else [triple[2], triple[1]]
    columns = (strata.sums, probabilities.tolist(), *(x.tolist() for x in counts))
    result["strata"] = [
        {"first": int(sums[0]), "last": int(sums[-1]), "probability": p, "series": n, "wrong": k}
        for sums, p, n, k in zip(*columns, strict=True)
    ]
    return result


def _rate(weights: np.ndarray, strata: Strata, counts: Counts) -> tuple[float, float, float]:
    """The mean error rate of the strata by weights [strata], and both ends of its 95 % interval.

    In each stratum the rarer outcome is counted, wrong or right, so that a network that is nearly
    always wrong is judged like one that is nearly always right.  Either sum of rare outcomes has an
    interval, of `_distances`, and the distances to the ends are added as squares (G. Y. Zou and
    A. Donner, Stat. Med. 27 (2008) 1693-1702).  All three numbers lie in [0, 1]; for weights of 0
    they are 0.
    """
    total = math.fsum(weights)
    if total == 0:
        return 0.0, 0.0, 0.0
    right_counts = Counts(counts.series, counts.series - counts.wrong)
    mostly_wrong = 2 * counts.wrong > counts.series
    wrong = _distances(weights, strata, counts, where=~mostly_wrong)
    right = _distances(weights, strata, right_counts, where=mostly_wrong)
    value = math.fsum(weights * (counts.wrong / counts.series))
    low = value - math.hypot(wrong[0], right[1])
    high = value + math.hypot(wrong[1], right[0])
    return value / total, max(0.0, low / total), min(1.0, high / total)


def _distances(
    weights: np.ndarray, strata: Strata, counts: Counts, *, where: np.ndarray
) -> tuple[float, float]:
    """The distances below and above a weighted sum of rare outcomes that its 95 % interval spans.

    `counts.wrong` are the rare outcomes, of the strata where `where`, bool [strata], is true.  The
    interval is that of M. P. Fay and E. J. Feuer, Stat. Med. 16 (1997) 791-801, with the binomial
    variance.  For the upper end, mean and variance are raised by what the evaluation may have
    missed: a stratum in whose pilot no outcome was rare gets few further series, so that the
    pilot weighs too much in it.  The probability of such a pilot is that by the mean rate of the
    strata of the same label.
    """
    if not where.any():
        return 0.0, 0.0
    factors, rates = weights * where / counts.series, counts.wrong / counts.series
    value = float(factors @ counts.wrong)
    variance = float(factors**2 @ (counts.wrong * (1 - rates)))
    pilot = pilot_allocation(strata, round(PILOT * int(counts.series.sum())))
    missed, upper_variance = 0.0, variance
    for label in (0, 1):
        if (inside := where & (strata.labels == label)).any():
            mean = float(rates[inside].mean())
            faultless = mean * (1 - mean) ** pilot[inside]
            missed += float(factors[inside] @ (pilot[inside] * faultless))
            upper_variance += float(factors[inside] ** 2 @ (counts.series[inside] * faultless))
    largest, tail = float(factors.max()), (1 - CONFIDENCE) / 2

    def quantile(mean: float, variance: float, probability: float) -> float:
        """The quantile of the gamma distribution of this mean and variance."""
        if not variance:
            return mean
        return variance / mean * float(scipy.special.gammaincinv(mean**2 / variance, probability))

    low = quantile(value, variance, tail)
    high = quantile(value + largest + missed, upper_variance + largest**2, 1 - tail)
    return value - low, high - value
