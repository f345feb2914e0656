import itertools

import numpy as np
import pytest
import scipy.stats
from sklearn.calibration import calibration_curve

from sumrnn.scores import errors

SUMS = np.arange(90.0, 110.0)


def test_a_blur_is_that_which_the_answers_were_drawn_from() -> None:
    random = np.random.default_rng(1)
    yes = random.binomial(2_000, scipy.stats.norm.cdf((SUMS - 99.2) / 1.7)).astype(float)
    found = errors.blur(SUMS, yes, np.full(20, 2_000.0))
    assert found is not None
    assert found == pytest.approx((99.2, 1.7), abs=0.1)


def test_a_blur_is_the_likeliest_of_a_grid() -> None:
    yes, series = np.array([0.0, 1, 4, 7, 9]), np.full(5, 10.0)
    found = errors.blur(np.arange(5.0), yes, series)
    grid = itertools.product(np.arange(1, 4, 0.02), np.arange(0.5, 3, 0.02))
    best = max(
        grid,
        key=lambda x: scipy.stats.binom.logpmf(
            yes, series, scipy.stats.norm.cdf((np.arange(5) - x[0]) / x[1])
        ).sum(),
    )
    assert found == pytest.approx(best, abs=0.03)


def test_a_network_that_does_not_count_has_no_blur() -> None:
    assert errors.blur(SUMS, np.linspace(9, 1, 20), np.full(20, 10.0)) is None


def test_without_a_sum_that_has_both_answers_there_is_no_blur() -> None:
    assert errors.blur(SUMS, 9.0 * (SUMS >= 100), np.full(20, 9.0)) is None


def test_calibration_is_scikit_learn_s_where_series_weigh_the_same() -> None:
    random = np.random.default_rng(2)
    confidence, row = random.uniform(size=4_000), random.integers(0, 6, 4_000)
    labels = np.array([0, 0, 0, 1, 1, 1])
    bins = (10 * confidence).astype(int)
    counts, confidences = np.zeros((6, 10), int), np.zeros((6, 10))
    np.add.at(counts, (row, bins), 1)
    np.add.at(confidences, (row, bins), confidence)
    weights = np.full(6, 1 / 4_000)
    shares, estimates, rates = errors.calibration(weights, counts, confidences, labels)
    expected = calibration_curve(labels[row], confidence, n_bins=10)
    np.testing.assert_allclose((rates, estimates), expected)
    np.testing.assert_allclose(shares, np.bincount(bins) / 4_000)


@pytest.mark.parametrize("networks", [5, 7])
def test_majorities_and_pairs_are_counted_one_by_one(networks: int) -> None:
    wrong = np.random.default_rng(3).uniform(size=(networks, 40)) < 0.5
    majorities = [
        wrong[list(few)].sum(axis=0) >= 3 for few in itertools.combinations(range(networks), 5)
    ]
    np.testing.assert_allclose(errors.majority_error_rates(wrong), np.mean(majorities, axis=0))
    pairs = [wrong[a] & wrong[b] for a, b in itertools.combinations(range(networks), 2)]
    np.testing.assert_allclose(errors.shared_error_rates(wrong), np.mean(pairs, axis=0))
