"""Sums in groups, whose error rates are estimated together: how many series each one gets.

NumPy alone, so that training does not wait for the statistics.
"""

from typing import NamedTuple

import numpy as np

from sumrnn.config import TaskConfig
from sumrnn.task import sum_law

EDGES = (*range(12), 12, 20)
"""Distances from the nearest sum of a class to the threshold at which strata begin: single sums,
and a few of which no network should err in many."""
MIN_DEVIATION = 0.003
"""The least standard deviation of a prediction's error that is reckoned with."""
SHARES = {"accuracy": 0.85, "balanced accuracy": 0.1}
"""Shares of the series, by what they are for; the rest is shared out evenly."""
PILOT = 0.45
"""Share of the series that show where errors are, before the others are shared out."""


class Strata(NamedTuple):
    """Sums whose series are drawn, and their errors counted, together; ascending."""

    sums: tuple[np.ndarray, ...]
    """int64 [k] each: the sums."""
    laws: tuple[np.ndarray, ...]
    """float64 [k] each: the distribution of the sums within the stratum."""
    masses: np.ndarray
    """float64 [strata]: the probability of each stratum."""
    labels: np.ndarray
    """int64 [strata]: the class of each stratum, 0 or 1."""


class Counts(NamedTuple):
    """The errors of a network by stratum."""

    series: np.ndarray
    """int64 [strata]: series that were drawn."""
    wrong: np.ndarray
    """int64 [strata]: series that were answered wrong."""


def strata(task: TaskConfig) -> Strata:
    """The strata of a task; together they hold every sum that has a probability."""
    law = sum_law(task)
    labels = (law.sums >= task.threshold).astype(np.int64)
    distances = np.where(labels, law.sums - task.threshold, task.threshold - 1 - law.sums)
    numbers = np.searchsorted(EDGES, distances, side="right")
    rows = []
    for label, number in sorted({*zip(labels.tolist(), numbers.tolist(), strict=True)}):
        inside = (labels == label) & (numbers == number)
        if mass := law.probabilities[inside].sum():
            rows.append((law.sums[inside], law.probabilities[inside] / mass, mass, label))
    rows.sort(key=lambda row: row[0][0])
    sums, laws, masses, classes = zip(*rows, strict=True)
    return Strata(sums, laws, np.array(masses), np.array(classes))


def pilot(strata: Strata, size: int) -> np.ndarray:
    """Shares series out, int64 [strata] of sum `size`, when nothing is known of the errors."""
    return _share(strata, np.zeros(len(strata.masses)), size)


def refined(strata: Strata, counts: Counts, size: int) -> np.ndarray:
    """Shares further series out, int64 [strata] of sum `size`, by the errors so far."""
    rates = counts.wrong / counts.series
    return _share(strata, np.sqrt(rates * (1 - rates)), size)


def _share(strata: Strata, deviations: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers of this sum: in proportion to what strata add to the standard deviation.

    That is the one of accuracy, and of balanced accuracy; some, at least 1, go to each stratum for
    its error rate (J. Neyman, J. R. Stat. Soc. 97 (1934) 558-625).  No deviation is taken below
    `MIN_DEVIATION`: where no error was found, the interval is as wide as the series are few.
    """
    deviations = np.maximum(deviations, MIN_DEVIATION)
    masses = {"accuracy": strata.masses, "balanced accuracy": within(strata)}
    weights = np.full(len(deviations), (1 - sum(SHARES.values())) / len(deviations))
    for name, probabilities in masses.items():
        contributions = probabilities * deviations
        weights += SHARES[name] * contributions / contributions.sum()
    more = size - len(deviations)  # Beside one for each.
    ends = np.rint(np.cumsum(weights) / weights.sum() * more).astype(np.int64)
    shares: np.ndarray = 1 + np.diff(ends, prepend=0)
    return shares


def within(strata: Strata) -> np.ndarray:
    """The probability of each stratum given its class, float64 [strata]."""
    totals = np.array([strata.masses[strata.labels == label].sum() for label in (0, 1)])
    probabilities: np.ndarray = strata.masses / totals[strata.labels]
    return probabilities


def sums(strata: Strata, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the series to draw, int64 [n], and their strata, int64 [n].

    Each stratum has as many as `numbers` int64 [strata] say, at equal steps of its distribution:
    as good as drawn, and with less variance.
    """
    quantiles = [
        sums[np.searchsorted(np.cumsum(law)[:-1], (np.arange(n) + 0.5) / n, side="right")]
        for sums, law, n in zip(strata.sums, strata.laws, numbers, strict=True)
    ]
    return np.concatenate(quantiles), np.repeat(np.arange(len(numbers)), numbers)
