"""Sums in groups, whose error rates are estimated together: how many series each one gets.

NumPy alone, so that training does not wait for the statistics.
"""

from typing import NamedTuple

import numpy as np

from sumrnn.config import TaskConfig
from sumrnn.task import Law, sum_law

EDGES = (*range(12), 12, 20)
"""Distances from the nearest sum of a class to the threshold at which strata begin: single sums,
and a few of which no network should err in many."""
LEAST = 0.003
"""Standard deviation of an answer's error that is reckoned with at least."""
SHARES = {"accuracy": 0.85, "balanced accuracy": 0.1}
"""Of the series, by what they are for; the rest is shared out evenly."""
PILOT = 0.45
"""Share of an exam's series that show where errors are, before the others are shared out."""


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
    parts = {"accuracy": own.masses, "balanced accuracy": within(own)}
    weights = np.full(len(spread), (1 - sum(SHARES.values())) / len(spread))
    for name, probabilities in parts.items():
        own_part = probabilities * spread
        weights += SHARES[name] * own_part / own_part.sum()
    more = size - len(spread)  # Beside one for each.
    ends = np.rint(np.cumsum(weights) / weights.sum() * more).astype(np.int64)
    shares: np.ndarray = 1 + np.diff(ends, prepend=0)
    return shares


def within(own: Strata) -> np.ndarray:
    """float64 [strata]: the probability of each given its class."""
    totals = np.array([own.masses[own.labels == label].sum() for label in (0, 1)])
    found: np.ndarray = own.masses / totals[own.labels]
    return found


def sums(own: Strata, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of the series to draw, int64 [n], and their strata, int64 [n].

    Within a stratum they are at equal steps of its law, as good as drawn and with less variance.
    """
    found = [
        of[np.searchsorted(np.cumsum(law)[:-1], (np.arange(n) + 0.5) / n, side="right")]
        for of, law, n in zip(own.sums, own.laws, numbers, strict=True)
    ]
    return np.concatenate(found), np.repeat(np.arange(len(numbers)), numbers)
