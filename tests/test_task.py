import functools
import itertools
import math
from fractions import Fraction

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats

from sumrnn import task as task_lib
from sumrnn.config import TaskConfig
from sumrnn.presets import PRESETS

ODD = TaskConfig(size=37, length=7, low=3, high=11, threshold=50)


@st.composite
def tasks(draw: st.DrawFn) -> TaskConfig:
    low = draw(st.integers(0, 255))
    high = draw(st.integers(low, min(255, low + 12)))
    length = draw(st.integers(1, 12))
    threshold = draw(st.integers(length * low, length * high))
    return TaskConfig(size=40, length=length, low=low, high=high, threshold=threshold)


class GenerateTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_shapes_and_types(self) -> None:
        generate = self.variant(lambda key: task_lib.generate(key, ODD))
        data = generate(jax.random.key(0))
        chex.assert_shape(data.digits, (37, 7))
        chex.assert_shape(data.labels, (37,))
        chex.assert_type([data.digits, data.labels], np.uint8)

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_key_decides_everything(self) -> None:
        generate = self.variant(lambda key: task_lib.generate(key, ODD))
        first, again, other = (generate(jax.random.key(seed)) for seed in (1, 1, 2))
        chex.assert_trees_all_equal(first, again)
        assert (first.digits != other.digits).any()


@hypothesis.settings(max_examples=5, deadline=None)
@hypothesis.given(tasks(), st.integers(0, 2**32 - 1))
def test_labels_are_plain_sums_within_inclusive_bounds(task: TaskConfig, seed: int) -> None:
    digits, labels = map(np.asarray, task_lib.generate(jax.random.key(seed), task))
    assert digits.min() >= task.low
    assert digits.max() <= task.high
    for series, label in zip(digits.tolist(), labels.tolist(), strict=True):
        assert label == (sum(series) >= task.threshold)


@pytest.mark.parametrize(("low", "high"), [(0, 9), (0, 8), (2, 3), (0, 255)])
def test_digits_are_uniform_with_both_bounds(low: int, high: int) -> None:
    length = 30
    task = TaskConfig(size=5_000, length=length, low=low, high=high, threshold=length * high)
    digits = np.asarray(task_lib.generate(jax.random.key(3), task).digits)
    counts = np.bincount(digits.ravel(), minlength=high + 1)[low:]
    assert counts.size == high - low + 1
    assert counts.min() > 0
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "pair",
    [
        lambda digits: (digits[:, :-1], digits[:, 1:]),
        lambda digits: (digits[:-1], digits[1:]),
        lambda digits: (digits[:, 0], digits[:, -1]),
    ],
    ids=["next in the series", "same place in the next series", "first and last"],
)
def test_digits_are_independent(pair) -> None:
    digits = np.asarray(task_lib.generate(jax.random.key(4), TaskConfig()).digits)
    first, second = (part.ravel().astype(int) for part in pair(digits))
    table = np.bincount(10 * first + second, minlength=100).reshape(10, 10)
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_splits_are_disjoint_and_in_order() -> None:
    task = TaskConfig(size=103, test_fraction=0.31, validation_fraction=0.17)
    data = task_lib.generate(jax.random.key(0), task)
    # Rows that tell themselves apart, so that a row used twice would be seen.
    rows = np.zeros((103, 30), np.uint8)
    rows[:, 0] = np.arange(103)
    splits = task_lib.split(data._replace(digits=rows), task)
    assert [len(part.digits) for part in splits] == [59, 12, 32]
    np.testing.assert_array_equal(np.concatenate([p.digits for p in splits])[:, 0], range(103))
    np.testing.assert_array_equal(np.concatenate([p.labels for p in splits]), data.labels)


def exact_law(task: TaskConfig) -> dict[int, Fraction]:
    """The oracle: rational arithmetic, digit by digit."""
    span = task.high - task.low + 1
    law = {0: Fraction(1)}
    for _ in range(task.length):
        following: dict[int, Fraction] = {}
        for total, probability in law.items():
            for digit in range(task.low, task.high + 1):
                following.setdefault(total + digit, Fraction(0))
                following[total + digit] += probability / span
        law = following
    return law


def assert_law_is_exact(task: TaskConfig) -> None:
    expected = exact_law(task)
    law = task_lib.sum_law(task)
    assert law.sums.tolist() == sorted(expected)
    for total, probability in zip(law.sums.tolist(), law.probabilities.tolist(), strict=True):
        assert probability == pytest.approx(float(expected[total]), rel=1e-12, abs=0)
    positive = sum((p for total, p in expected.items() if total >= task.threshold), Fraction(0))
    assert law.positive_rate == pytest.approx(float(positive), rel=1e-12, abs=0)
    assert law.majority_accuracy == pytest.approx(float(max(positive, 1 - positive)), abs=1e-12)
    assert law.mean == pytest.approx(task.length * (task.low + task.high) / 2, rel=1e-12)
    span = task.high - task.low + 1
    assert law.std == pytest.approx(math.sqrt(task.length * (span**2 - 1) / 12), rel=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_law_of_the_presets_is_exact(name: str) -> None:
    assert_law_is_exact(PRESETS[name])


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(tasks())
def test_law_is_exact(task: TaskConfig) -> None:
    assert_law_is_exact(task)


def test_law_of_the_presets_in_numbers() -> None:
    sheet, notebook = (task_lib.sum_law(PRESETS[name]) for name in ("sheet", "notebook"))
    assert sheet.positive_rate == pytest.approx(0.988250429042, abs=1e-12)
    assert notebook.positive_rate == pytest.approx(0.926136211979, abs=1e-12)
    assert (sheet.majority_class, notebook.majority_class) == (1, 1)


def test_data_follow_the_law() -> None:
    task = TaskConfig(size=50_000)
    labels = np.asarray(task_lib.generate(jax.random.key(5), task).labels)
    rate = task_lib.sum_law(task).positive_rate
    assert scipy.stats.binomtest(int(labels.sum()), labels.size, rate).pvalue > 1e-3


@pytest.mark.parametrize(
    ("length", "error"),
    [(30, 4e-15), (1_000, 1.3e-13), pytest.param(10_000, 1.3e-12, marks=pytest.mark.slow)],
)
def test_law_is_as_exact_as_it_says(length: int, error: float) -> None:
    """Against whole numbers: of digits 0 and 1, so many series have a sum as a binomial says."""
    law = task_lib.sum_law(TaskConfig(length=length, high=1, threshold=0))
    binomial, worst = 1, Fraction(0)
    for k, probability in enumerate(law.probabilities.tolist()):
        exact = Fraction(binomial, 2**length)
        if exact > 1e-300:
            worst = max(worst, abs(Fraction(probability) - exact) / exact)
        binomial = binomial * (length - k) // (k + 1)
    assert worst <= error


def series_with_sums(task: TaskConfig, sums: np.ndarray, seed: int = 0) -> np.ndarray:
    draw = jax.jit(task_lib.draw_series_with_sums, static_argnums=2)
    table, key = task_lib.log_pmf_table(task), jax.random.key(seed)
    digits = draw(key, sums.astype(np.int32), task, log_pmfs=table)
    chex.assert_type(digits, np.uint8)
    chex.assert_shape(digits, (len(sums), task.length))
    return np.asarray(digits)


def test_series_of_a_sum_are_all_as_likely() -> None:
    """Against every series of three digits from 1 to 4, by chi-square."""
    task, repeats = TaskConfig(size=100, length=3, low=1, high=4, threshold=7), 300
    series = np.array(list(itertools.product(range(1, 5), repeat=3)))
    for total in range(4, 12):
        possible = series[series.sum(axis=1) == total]
        drawn = series_with_sums(task, np.full(repeats * len(possible), total), seed=total)
        counts = [(drawn == digits).all(axis=1).sum() for digits in possible]
        assert sum(counts) == len(drawn)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    "task", [TaskConfig(), TaskConfig(high=8), TaskConfig(size=50, length=200, threshold=900)]
)
def test_every_sum_can_be_drawn(task: TaskConfig) -> None:
    sums = np.arange(task.length * task.low, task.length * task.high + 1)
    digits = series_with_sums(task, sums)
    np.testing.assert_array_equal(digits.sum(axis=1, dtype=np.int64), sums)
    assert digits.max() <= task.high


def test_drawn_by_the_law_of_sums_digits_are_uniform() -> None:
    task, law = TaskConfig(), task_lib.sum_law(TaskConfig())
    sums = np.random.default_rng(0).choice(law.sums, 20_000, p=law.probabilities)
    digits = series_with_sums(task, sums)
    for place in (0, 1, 15, 29):
        assert scipy.stats.chisquare(np.bincount(digits[:, place], minlength=10)).pvalue > 1e-4
    pairs = np.bincount(10 * digits[:, 3].astype(int) + digits[:, 4], minlength=100)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-4


@pytest.mark.parametrize("low", [0, 2])
def test_the_table_has_the_law_of_each_length(low: int) -> None:
    table = task_lib.log_pmf_table(TaskConfig(low=low, threshold=100))
    for length in (1, 7, 30):
        law = task_lib.sum_law(TaskConfig(length=length, low=low, threshold=length * low))
        probabilities = np.exp(table[length, : len(law.sums)].astype(np.float64))
        np.testing.assert_allclose(probabilities, law.probabilities, rtol=2e-5)
        assert np.isneginf(table[length, len(law.sums) :]).all()


@pytest.mark.parametrize("low", [0, 2])
def test_fewer_digits_have_the_sum_and_stand_last(low: int) -> None:
    """Uniformly among all series of the sum: two digits of 0 to 3 above `low`, in five steps."""
    task = TaskConfig(size=40, length=5, low=low, high=low + 3, threshold=5 * low)
    size, sums = 6_000, 2 * low + 3
    draw = jax.jit(
        functools.partial(
            task_lib.draw_series_with_sums, config=task, log_pmfs=task_lib.log_pmf_table(task)
        )
    )
    counts = np.full(size, 2)
    digits = np.asarray(draw(jax.random.key(0), np.full(size, sums), counts=counts)).astype(int)
    assert (digits[:, :3] == 0).all()
    assert (digits.sum(axis=1) == sums).all()
    pairs = np.bincount(digits[:, 3] - low, minlength=4)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.data())
def test_digits_among_zeros_keep_their_order(data: st.DataObject) -> None:
    width, length = data.draw(st.sampled_from([(1, 1), (1, 7), (6, 6), (5, 12)]))
    counts = data.draw(st.lists(st.integers(1, width), min_size=3, max_size=3))
    spans = np.array([data.draw(st.integers(count, length)) for count in counts])
    digits = np.arange(1, 3 * width + 1, dtype=np.uint8).reshape(3, width)
    key = jax.random.key(data.draw(st.integers(0, 99)))
    spread = jax.jit(task_lib.spread, static_argnames="length")
    series = jax.device_get(spread(key, digits, np.array(counts), spans=spans, length=length))
    chex.assert_shape(list(series), (3, length))
    rows = zip(*series, digits, counts, spans, strict=True)
    for values, are_digits, are_inside, row, count, span in rows:
        assert are_inside.tolist() == [step >= length - span for step in range(length)]
        assert not (are_digits & ~are_inside).any()
        assert values[are_digits].tolist() == row[width - count :].tolist()
        assert (values[~are_digits] == 0).all()


def test_every_place_among_zeros_is_as_likely() -> None:
    size = 12_000
    digits, counts = np.ones((size, 3), np.uint8), np.full(size, 2)
    spans = np.full(size, 4)
    series = task_lib.spread(jax.random.key(1), digits, counts, spans=spans, length=5)
    patterns, observed = np.unique(np.asarray(series.are_digits), axis=0, return_counts=True)
    assert len(patterns) == math.comb(4, 2)
    assert scipy.stats.chisquare(observed).pvalue > 1e-3
