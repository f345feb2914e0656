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
    described = statistics.describe(values)
    assert described["runs"] == len(values)
    assert described["mean"] == pytest.approx(np.mean(values))
    assert described["median"] == pytest.approx(np.median(values))
    middle = np.sort(values)[len(values) // 4 : len(values) - len(values) // 4]
    assert described["iqm"] == pytest.approx(middle.mean())
    assert (described["min"], described["max"]) == (values.min(), values.max())
    if len(values) == 1:
        assert described["std"] is described["mean_interval"] is described["iqm_interval"] is None
    else:
        assert described["std"] == pytest.approx(np.std(values, ddof=1))
    for low, high in filter(None, (described["mean_interval"], described["iqm_interval"])):
        assert values.min() - 1e-12 <= low < high <= values.max() + 1e-12


def test_nothing_is_known_of_no_runs() -> None:
    described = statistics.describe(np.array([]))
    assert described.pop("runs") == 0
    assert set(described.values()) == {None}


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
    described = statistics.describe(np.array(values))
    assert described["mean"] == pytest.approx(values[0])
    assert described["mean_interval"] is described["iqm_interval"] is None


def test_a_location_that_no_resample_moves_has_no_interval() -> None:
    described = statistics.describe(np.array([0.5] + [1.0] * 39))
    assert described["iqm_interval"] is None
    assert described["mean_interval"][0] < described["mean_interval"][1]


def test_paired_differences_cancel_what_seeds_share() -> None:
    shared = scipy.stats.norm.rvs(size=30, random_state=1)
    difference = statistics.paired_difference(shared + 0.1, shared)
    assert difference["mean"] == pytest.approx(0.1)
    assert difference["mean_interval"] is None  # All equal but for rounding.
    assert difference["higher"] == difference["seeds"] == 30
    varied = statistics.paired_difference(shared + np.linspace(0, 0.2, 30), shared)["mean_interval"]
    assert 0.05 < varied[0] < 0.1 < varied[1] < 0.15
    assert statistics.paired_difference(np.array([]), np.array([]))["mean"] is None


def test_the_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    random = np.random.default_rng(2)
    first, second = random.integers(0, 9, 40) / 4 + 0.5, random.integers(0, 9, 40) / 4
    probability, interval = statistics.probability_of_improvement(first, second)
    u = scipy.stats.mannwhitneyu(first, second).statistic
    assert probability == pytest.approx(u / 40**2)
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
    assert statistics.probability_of_improvement(first + 9, second) == (1.0, None)
    assert statistics.probability_of_improvement(first, first)[0] == 0.5
    assert statistics.probability_of_improvement(first[:0], second[:0]) == (None, None)
    many = random.normal(size=2_000)
    assert statistics.probability_of_improvement(many, many + 0.1)[1] is None


def test_a_value_is_placed_among_the_runs() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.3, 0.5])
    assert statistics.rank(0.3, values) == {"value": 0.3, "below": 2, "equal": 2, "above": 1}


def test_the_variance_split_finds_the_components_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    levels = 40
    values = (
        3 * rng.standard_normal((levels, 1, 1))
        + 2 * rng.standard_normal((1, levels, 1))
        + 1 * rng.standard_normal((levels, levels, 1))
        + 1 * rng.standard_normal((levels,) * 3)
    )
    components = statistics.variance_components(values)
    assert components["data"]["variance"] == pytest.approx(9, rel=0.5)
    assert components["init"]["variance"] == pytest.approx(4, rel=0.5)
    assert components["shuffle"]["variance"] == pytest.approx(0, abs=0.05)
    assert components["interaction"]["variance"] == pytest.approx(2, rel=0.1)
    assert sum(part["share"] for part in components.values()) == pytest.approx(1)


def test_interaction_alone_is_not_taken_for_a_source() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((300, 3, 3, 1)) + np.zeros(3)
    main, interaction = [], []
    for cells in values:
        components = statistics.variance_components(cells)
        main.append(components["shuffle"]["variance"])
        interaction.append(components["interaction"]["variance"])
    assert max(main) == pytest.approx(0, abs=1e-12)
    assert np.mean(interaction) == pytest.approx(1, abs=0.25)


def test_the_variance_split_of_one_source_alone() -> None:
    values = np.zeros((2, 3, 4)) + np.array([0.0, 1.0, 5.0])[None, :, None]
    components = statistics.variance_components(values)
    assert components["init"]["share"] == pytest.approx(1)
    assert components["init"]["variance"] == pytest.approx(np.var([0, 1, 5], ddof=1))
    assert statistics.variance_components(np.ones((2, 2, 2))) is None
