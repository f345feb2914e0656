"""Strata: groups of sums whose error rates are estimated together, and their allocations of series.

NumPy alone is imported, so that training does not wait for SciPy's statistics.
"""

from typing import NamedTuple

import numpy as np

from sumrnn.config import TaskConfig
from sumrnn.task import sum_law

EDGES = (*range(12), 12, 20)
"""Distances from the nearest sum of a class to the threshold at which strata begin: single sums,
then two wider strata in which a trained network rarely errs."""
MIN_DEVIATION = 0.003
"""The least standard deviation of a prediction's error by which series are allocated."""
SHARES = {"accuracy": 0.85, "balanced accuracy": 0.1}
"""Shares of the series by the score that they are for; the rest is allocated evenly."""
PILOT = 0.45
"""Share of the series in the pilot, by whose errors the others are allocated."""


class Strata(NamedTuple):
    """The strata of a task in ascending order of their sums."""

    sums: tuple[np.ndarray, ...]
    """int64 [k] for each stratum: its sums."""
    pmfs: tuple[np.ndarray, ...]
    """float64 [k] for each stratum: the probabilities of its sums, given the stratum."""
    probabilities: np.ndarray
    """float64 [strata]: the probability of each stratum."""
    labels: np.ndarray
    """int64 [strata]: the label of each stratum's series, 0 or 1."""


class Counts(NamedTuple):
    """The errors of a network by stratum."""

    series: np.ndarray
    """int64 [strata]: the number of series that were drawn."""
    wrong: np.ndarray
    """int64 [strata]: the number of these series that were misclassified."""


def task_strata(task: TaskConfig) -> Strata:
    """The strata of a task; together they hold every sum of positive probability."""
    distribution = sum_law(task)
    labels = (distribution.sums >= task.threshold).astype(np.int64)
    above, below = distribution.sums - task.threshold, task.threshold - 1 - distribution.sums
    numbers = np.searchsorted(EDGES, np.where(labels, above, below), side="right")
    rows = []
    for label, number in sorted({*zip(labels.tolist(), numbers.tolist(), strict=True)}):
        inside = (labels == label) & (numbers == number)
        if total := distribution.probabilities[inside].sum():
            pmf = distribution.probabilities[inside] / total
            rows.append((distribution.sums[inside], pmf, total, label))
    rows.sort(key=lambda row: row[0][0])
    sums, pmfs, probabilities, classes = zip(*rows, strict=True)
    return Strata(sums, pmfs, np.array(probabilities), np.array(classes))


def pilot_allocation(strata: Strata, size: int) -> np.ndarray:
    """The series of each stratum, int64 [strata] of sum `size`, before any error is known."""
    return _allocation(strata, np.zeros(len(strata.probabilities)), size)


def refined_allocation(strata: Strata, counts: Counts, size: int) -> np.ndarray:
    """The further series of each stratum, int64 [strata] of sum `size`, by the errors so far."""
    rates = counts.wrong / counts.series
    return _allocation(strata, np.sqrt(rates * (1 - rates)), size)


def _allocation(strata: Strata, deviations: np.ndarray, size: int) -> np.ndarray:
    """The series of each stratum, int64 [strata] of sum `size`, by standard deviations [strata].

    Most are in proportion to what a stratum adds to the standard deviation of the accuracy, or of
    the balanced accuracy (J. Neyman, J. R. Stat. Soc. 97 (1934) 558-625); each stratum gets some,
    at least 1, for its error rate.  No deviation is taken below `MIN_DEVIATION`: without an error
    in a stratum, its interval is the wider the fewer its series are.
    """
    deviations = np.maximum(deviations, MIN_DEVIATION)
    shares = {"accuracy": strata.probabilities, "balanced accuracy": class_conditional(strata)}
    weights = np.full(len(deviations), (1 - sum(SHARES.values())) / len(deviations))
    for name, probabilities in shares.items():
        contributions = probabilities * deviations
        weights += SHARES[name] * contributions / contributions.sum()
    divisible = size - len(deviations)  # Each stratum has one series already.
    ends = np.rint(np.cumsum(weights) / weights.sum() * divisible).astype(np.int64)
    allocation: np.ndarray = 1 + np.diff(ends, prepend=0)
    return allocation


def class_conditional(strata: Strata) -> np.ndarray:
    """The probability of each stratum given its label, float64 [strata]."""
    totals = np.array([strata.probabilities[strata.labels == label].sum() for label in (0, 1)])
    conditional: np.ndarray = strata.probabilities / totals[strata.labels]
    return conditional


def systematic_sums(strata: Strata, allocation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the series to draw, int64 [n], and the stratum of each, int64 [n].

    A stratum has as many as `allocation`, int64 [strata], says, at equal steps of its distribution:
    a systematic sample, which is as good as a random one and has less variance.
    """
    quantiles = [
        sums[np.searchsorted(np.cumsum(pmf)[:-1], (np.arange(n) + 0.5) / n, side="right")]
        for sums, pmf, n in zip(strata.sums, strata.pmfs, allocation, strict=True)
    ]
    return np.concatenate(quantiles), np.repeat(np.arange(len(allocation)), allocation)
