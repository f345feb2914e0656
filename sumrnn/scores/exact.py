"""Scores by the exact law of the sum, from error rates at given sums.

The label is a function of the sum, whose law is known.  So the error rate is estimated sum by sum,
with series drawn for it, and weighted by the law: the rare class costs no more than the other, and
most series go where they say most.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from sumrnn.config import TaskConfig
from sumrnn.scores.statistics import CONFIDENCE
from sumrnn.task import Law, sum_law

EDGES = (*range(12), 12, 20)
"""Distances from the nearest sum of a class to the threshold at which strata begin: single sums,
and a few of which no network should err in many."""
LEAST = 0.003
"""Standard deviation of an answer's error that is reckoned with at least."""
SHARES = {"accuracy": 0.85, "balanced accuracy": 0.1}
"""Of the series, by what they are for; the rest is shared out evenly."""


class Strata(NamedTuple):
    """Sums whose series are drawn, and their errors counted, together; ascending."""

    sums: tuple[np.ndarray, ...]
    """int64 [k] each: the sums."""
    laws: tuple[np.ndarray, ...]
    """float64 [k] each: their law within the stratum."""
    masses: np.ndarray
    """float64 [strata]: the probability of each."""
    labels: np.ndarray
    """int64 [strata]: 0 or 1."""


class Counts(NamedTuple):
    """What was found."""

    series: np.ndarray
    """int64 [strata]: series that were drawn."""
    wrong: np.ndarray
    """int64 [strata]: series that were answered wrong."""


def strata(task: TaskConfig) -> Strata:
    """The strata of a task; together they hold every sum that has a probability."""
    law: Law = sum_law(task)
    labels = (law.sums >= task.threshold).astype(np.int64)
    distances = np.where(labels, law.sums - task.threshold, task.threshold - 1 - law.sums)
    numbers = np.searchsorted(EDGES, distances, side="right")
    found = []
    for label, number in sorted({*zip(labels.tolist(), numbers.tolist(), strict=True)}):
        here = (labels == label) & (numbers == number)
        if mass := law.probabilities[here].sum():
            found.append((law.sums[here], law.probabilities[here] / mass, mass, label))
    found.sort(key=lambda stratum: stratum[0][0])
    sums, laws, masses, of = zip(*found, strict=True)
    return Strata(sums, laws, np.array(masses), np.array(of))


def pilot(own: Strata, size: int) -> np.ndarray:
    """int64 [strata]: how to share out so many series when nothing is known of the errors."""
    return _share(own, np.zeros(len(own.masses)), size)


def refined(own: Strata, found: Counts, size: int) -> np.ndarray:
    """int64 [strata]: how to share out so many more, by what was found."""
    rates = found.wrong / found.series
    return _share(own, np.sqrt(rates * (1 - rates)), size)


def _share(own: Strata, spread: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers of this sum: in proportion to what strata add to the standard deviation.

    That of accuracy, of balanced accuracy, and some, at least 1, to each stratum for its own error
    rate (J. Neyman, J. R. Stat. Soc. 97 (1934) 558-625).  No spread is taken to be below `LEAST`:
    where no error was found, the interval is as wide as the series are few.
    """
    spread = np.maximum(spread, LEAST)
    parts = {"accuracy": own.masses, "balanced accuracy": _within(own)}
    weights = np.full(len(spread), (1 - sum(SHARES.values())) / len(spread))
    for name, probabilities in parts.items():
        own_part = probabilities * spread
        weights += SHARES[name] * own_part / own_part.sum()
    more = size - len(spread)  # Beside one for each.
    ends = np.rint(np.cumsum(weights) / weights.sum() * more).astype(np.int64)
    shares: np.ndarray = 1 + np.diff(ends, prepend=0)
    return shares


def _within(own: Strata) -> np.ndarray:
    """float64 [strata]: the probability of each given its class."""
    totals = np.array([own.masses[own.labels == label].sum() for label in (0, 1)])
    within: np.ndarray = own.masses / totals[own.labels]
    return within


def sums(own: Strata, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the series to draw, int64 [n], and their strata, int64 [n].

    Within a stratum they are at equal steps of its law, as good as drawn and with less variance.
    """
    found = [
        of[np.searchsorted(np.cumsum(law)[:-1], (np.arange(n) + 0.5) / n, side="right")]
        for of, law, n in zip(own.sums, own.laws, numbers, strict=True)
    ]
    return np.concatenate(found), np.repeat(np.arange(len(numbers)), numbers)


def scores(task: TaskConfig, found: Counts) -> dict[str, Any]:
    """The network's accuracy, skill, balanced accuracy and Matthews correlation, by the law.

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
    values: dict[str, Any] = {"accuracy": [1 - x for x in error]}
    both = fewer > 0
    values["skill"] = [1 - x / fewer for x in error] if both else None
    within = _rate(_within(own) / 2, found)
    values["balanced_accuracy"] = [1 - x for x in within] if both else None

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
