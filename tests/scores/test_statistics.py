import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn.scores import statistics

VALUES = np.array([0.91, 0.97, 0.93, 0.99, 0.92, 0.95, 0.90, 0.60])
scores = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


@given(scores)
@settings(deadline=None, max_examples=30)
def test_location_and_spread_are_numpy_s(values: np.ndarray) -> None:
    found = statistics.describe(values)
    assert found["runs"] == len(values)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["median"] == pytest.approx(np.median(values))
    middle = np.sort(values)[len(values) // 4 : len(values) - len(values) // 4]
    assert found["iqm"] == pytest.approx(middle.mean())
    assert (found["min"], found["max"]) == (values.min(), values.max())
    if len(values) == 1:
        assert found["std"] is found["mean_interval"] is found["iqm_interval"] is None
    else:
        assert found["std"] == pytest.approx(np.std(values, ddof=1))
    for low, high in filter(None, (found["mean_interval"], found["iqm_interval"])):
        assert values.min() - 1e-12 <= low < high <= values.max() + 1e-12


def test_nothing_is_known_of_no_runs() -> None:
    found = statistics.describe(np.array([]))
    assert found.pop("runs") == 0
    assert set(found.values()) == {None}


def test_the_bootstrap_is_scipy_s_and_repeatable() -> None:
    first, again = (statistics.bootstrap(VALUES) for _ in range(2))
    assert first == again
    other = scipy.stats.bootstrap((VALUES,), np.mean, n_resamples=20_000, rng=7)
    expected = other.confidence_interval
    assert first == pytest.approx([expected.low, expected.high], abs=0.01)


def test_the_bootstrap_covers_the_truth() -> None:
    """Of 200 samples of 20 from a known law, about 95 % of the intervals hold its mean."""
    draws = scipy.stats.beta(8, 2).rvs((200, 20), random_state=3)
    held = sum(low <= 0.8 <= high for low, high in map(statistics.bootstrap, draws))
    assert 0.88 <= held / 200 <= 0.99


@pytest.mark.parametrize("values", [[1.0] * 9 + [0.5], [0.0, 1.0], [1e-255, 1e-226]])
def test_intervals_of_awkward_values_are_finite_and_hold_the_mean(values: list[float]) -> None:
    low, high = statistics.bootstrap(np.array(values))
    assert low <= np.mean(values) <= high


@pytest.mark.parametrize("values", [[0.5] * 8, [0.93, 0.93], [0.0] * 3, [0.3, 0.1 + 0.2, 0.3]])
def test_equal_values_have_no_interval(values: list[float]) -> None:
    """They say nothing of the spread: least of all that there is none."""
    found = statistics.describe(np.array(values))
    assert found["mean"] == pytest.approx(values[0])
    assert found["mean_interval"] is found["iqm_interval"] is None


def test_a_location_that_no_resample_moves_has_no_interval() -> None:
    found = statistics.describe(np.array([0.5] + [1.0] * 39))
    assert found["iqm_interval"] is None
    assert found["mean_interval"][0] < found["mean_interval"][1]


def test_paired_differences_cancel_what_seeds_share() -> None:
    shared = scipy.stats.norm.rvs(size=30, random_state=1)
    found = statistics.difference(shared + 0.1, shared)
    assert found["mean"] == pytest.approx(0.1)
    assert found["mean_interval"] is None  # All equal but for rounding.
    assert found["higher"] == found["seeds"] == 30
    varied = statistics.difference(shared + np.linspace(0, 0.2, 30), shared)["mean_interval"]
    assert 0.05 < varied[0] < 0.1 < varied[1] < 0.15
    assert statistics.difference(np.array([]), np.array([]))["mean"] is None


def test_the_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    random = np.random.default_rng(2)
    first, second = random.integers(0, 9, 40) / 4 + 0.5, random.integers(0, 9, 40) / 4
    found, interval = statistics.improvement(first, second)
    u = scipy.stats.mannwhitneyu(first, second).statistic
    assert found == pytest.approx(u / 40**2)
    assert interval is not None
    both = scipy.stats.bootstrap(
        (first, second),
        lambda a, b: scipy.stats.mannwhitneyu(a, b).statistic / 40**2,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2_000,
        rng=1,
    ).confidence_interval
    assert interval == pytest.approx([both.low, both.high], abs=0.02)
    assert statistics.improvement(first + 9, second) == (1.0, None)
    assert statistics.improvement(first, first)[0] == 0.5
    assert statistics.improvement(first[:0], second[:0]) == (None, None)
    many = random.normal(size=2_000)
    assert statistics.improvement(many, many + 0.1)[1] is None


def test_a_value_is_placed_among_the_runs() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.3, 0.5])
    assert statistics.place(0.3, values) == {"value": 0.3, "below": 2, "equal": 2, "above": 1}


def test_the_variance_split_finds_the_components_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    levels = 40
    values = (
        3 * rng.standard_normal((levels, 1, 1))
        + 2 * rng.standard_normal((1, levels, 1))
        + 1 * rng.standard_normal((levels, levels, 1))
        + 1 * rng.standard_normal((levels,) * 3)
    )
    found = statistics.variance_split(values)
    assert found["data"]["variance"] == pytest.approx(9, rel=0.5)
    assert found["init"]["variance"] == pytest.approx(4, rel=0.5)
    assert found["shuffle"]["variance"] == pytest.approx(0, abs=0.05)
    assert found["interaction"]["variance"] == pytest.approx(2, rel=0.1)
    assert sum(part["share"] for part in found.values()) == pytest.approx(1)


def test_interaction_alone_is_not_taken_for_a_source() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((300, 3, 3, 1)) + np.zeros(3)
    main, rest = [], []
    for each in values:
        found = statistics.variance_split(each)
        main.append(found["shuffle"]["variance"])
        rest.append(found["interaction"]["variance"])
    assert max(main) == pytest.approx(0, abs=1e-12)
    assert np.mean(rest) == pytest.approx(1, abs=0.25)


def test_the_variance_split_of_one_source_alone() -> None:
    values = np.zeros((2, 3, 4)) + np.array([0.0, 1.0, 5.0])[None, :, None]
    found = statistics.variance_split(values)
    assert found["init"]["share"] == pytest.approx(1)
    assert found["init"]["variance"] == pytest.approx(np.var([0, 1, 5], ddof=1))
    assert statistics.variance_split(np.ones((2, 2, 2))) is None
