"""What errors are like: how they blur the threshold, whether confidence is earned, who shares them.

Tables have a row for each sum, or group of sums; see `sumrnn.probes.errors`.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats

VOTERS = 5
"""Networks of a majority."""


class Blur(NamedTuple):
    """The normal distribution whose cumulative one is the share of answers "yes" by sum."""

    center: float
    """The sum from which "yes" is the likelier answer."""
    width: float
    """The standard deviation, in digits."""


def blur(sums: np.ndarray, yes: np.ndarray, series: np.ndarray) -> Blur | None:
    """The likeliest `Blur` for numbers of answers "yes" among series of each sum, float [n].

    It is a probit regression (C. I. Bliss, Science 79 (1934) 38-39).  None where no sum has both
    answers, as any narrow one fits; and where "yes" does not become the likelier answer within
    these sums, as of a network that does not count.
    """
    if not ((yes > 0) & (yes < series)).any():
        return None
    middle = float(sums.mean())

    def loss(parameters: np.ndarray) -> float:
        z = (sums - middle - parameters[0]) / np.exp(parameters[1])
        no = series - yes
        return -float(yes @ scipy.stats.norm.logcdf(z) + no @ scipy.stats.norm.logsf(z))

    found = scipy.optimize.minimize(loss, np.zeros(2), method="Nelder-Mead").x
    center, width = middle + float(found[0]), float(np.exp(found[1]))
    inside = sums[0] <= center <= sums[-1] and width <= sums[-1] - sums[0]
    return Blur(center, width) if inside else None


def calibration(
    weights: np.ndarray, counts: np.ndarray, confidences: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reliability of estimated probabilities of label 1, by bins of them.

    Args:
      weights: float [rows], the probability of each row's series, per series.
      counts: int [rows, bins], the series in each bin.
      confidences: float [rows, bins], the sums of their estimated probabilities.
      labels: int [rows], of each row's series.

    Returns:
      Three float [bins]: the probability of each bin, and given it the mean estimate and the
      probability of label 1, NaN of an empty one.  The expected calibration error is the mean
      distance of the latter two by the first (M. P. Naeini et al., AAAI 2015, 2901-2907).
    """
    shares = weights @ counts
    with np.errstate(invalid="ignore"):
        return shares, weights @ confidences / shares, (weights * labels) @ counts / shares


def majority_error_rates(wrong: np.ndarray, voters: int = VOTERS) -> np.ndarray:
    """The probability that most of some networks, drawn among all, misjudge each series.

    `wrong` is bool [networks, series], with at least as many networks as voters; float [series].
    """
    networks, errors = len(wrong), wrong.sum(axis=0)
    share: np.ndarray = scipy.stats.hypergeom.sf(voters // 2, networks, errors, voters)
    return share


def shared_error_rates(wrong: np.ndarray) -> np.ndarray:
    """The probability that two networks, drawn among all, both misjudge each series.

    `wrong` is bool [networks, series], with at least two networks; float [series].
    """
    networks, errors = len(wrong), wrong.sum(axis=0)
    share: np.ndarray = errors * (errors - 1) / (networks * (networks - 1))
    return share
