import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef

from sumrnn.config import TaskConfig
from sumrnn.scores import exact, metrics
from sumrnn.scores import strata as strata_lib
from sumrnn.scores.strata import Counts
from sumrnn.task import sum_law

SHEET, NOTEBOOK = TaskConfig(), TaskConfig(high=8)
SHORT = TaskConfig(size=100, length=2, high=3, threshold=3)
"""Sums 0 to 6 with 1, 2, 3, 4, 3, 2, 1 of 16 series each."""
RATES = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.5, 0.9, 0.97, 0.99, 0.999, 0.9999, 1.0)
"""Error rates, the same at every sum of a class."""
QUICK = (1e-3, 0.01, 0.99, 0.999)


def error_rates(task: TaskConfig, kind: str) -> np.ndarray:
    """Error rates of the strata, of networks that err in different places."""
    strata = strata_lib.task_strata(task)
    means = [float(sums @ pmf) for sums, pmf in zip(strata.sums, strata.pmfs, strict=True)]
    far = abs(np.array(means) - (task.threshold - 0.5))
    rates = {
        "an exercise's": 0.5 * np.exp(-far / np.where(strata.labels == 1, 1.5, 4)),
        "perfect": np.zeros(len(far)),
        "nearly perfect": np.where(far < 1, 0.01, 0),
        "errs far away": np.where(far > 20, 1e-4, 0),
        "constant": (strata.labels == 0).astype(float),
        "errs in some": np.where(far < 3, 0.995 * (strata.labels == 0), 0),
        "shifted": np.where(strata.labels == 1, 0.001, 0.98 * (far < 10)),
    }
    for label, name in enumerate(metrics.CLASSES):
        rates |= {f"{name} {rate}": np.where(strata.labels == label, rate, 0) for rate in RATES}
    rates |= {f"both {rate}": np.full(len(far), rate) for rate in RATES}
    return rates[kind]


def evaluated(task: TaskConfig, rates: np.ndarray, size: int, random: Any) -> Counts:
    """The errors in an exact evaluation with so many series."""
    strata = strata_lib.task_strata(task)
    pilot = strata_lib.pilot_allocation(strata, size // 2)
    wrong = random.binomial(pilot, rates)
    refined = strata_lib.refined_allocation(strata, Counts(pilot, wrong), size // 2)
    return Counts(pilot + refined, wrong + random.binomial(refined, rates))


def test_strata_are_single_sums_near_the_threshold_and_hold_every_sum() -> None:
    for task in (SHEET, NOTEBOOK, SHORT, TaskConfig(threshold=0), TaskConfig(threshold=270)):
        strata, law = strata_lib.task_strata(task), sum_law(task)
        np.testing.assert_array_equal(np.concatenate(strata.sums), law.sums)
        assert math.isclose(strata.probabilities.sum(), 1, rel_tol=1e-12)
        for sums, pmf, label in zip(strata.sums, strata.pmfs, strata.labels, strict=True):
            assert math.isclose(pmf.sum(), 1, rel_tol=1e-12)
            assert set((sums >= task.threshold).astype(int)) == {label}
            assert len(sums) == 1 or abs(sums - (task.threshold - 0.5)).min() > 12


def test_scores_are_those_of_all_series_there_are() -> None:
    """Of two digits from 0 to 3, with every series at each sum answered by hand."""
    wrong_share = {0: 0, 1: 0.5, 2: 1 / 3, 3: 0.25, 4: 0, 5: 0, 6: 1}
    multiplicities = {0: 1, 1: 2, 2: 3, 3: 4, 4: 3, 5: 2, 6: 1}
    labels, predicted = [], []
    for total, count in multiplicities.items():
        errors = round(count * wrong_share[total])
        labels += [int(total >= 3)] * count
        predicted += [int(total < 3)] * errors + [int(total >= 3)] * (count - errors)
    counts = Counts(
        np.full(7, 1_200), np.array([round(1_200 * wrong_share[total]) for total in multiplicities])
    )
    scores = exact.scores(SHORT, counts)
    logits = np.where(np.array(predicted) == 1, 1.0, -1.0)
    expected = metrics.scores(np.array(labels), logits, majority_class=1)
    for name in ("accuracy", "skill", "balanced_accuracy", "matthews_correlation"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-12)
        low, high = scores[f"{name}_interval"]
        assert low < scores[name] < high
    assert scores["matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predicted))
    assert [stratum["wrong"] for stratum in scores["strata"]] == counts.wrong.tolist()
    assert sum(stratum["probability"] for stratum in scores["strata"]) == pytest.approx(1)


def coverage(kind: str, size: int, runs: int) -> dict[str, float]:
    """Share of the intervals of evaluations of so many series that hold the truth, by score."""
    rates, random = error_rates(SHEET, kind), np.random.default_rng(3)
    truth = exact.scores(SHEET, Counts(np.full(28, 10**12), np.rint(rates * 1e12).astype(np.int64)))
    held = dict.fromkeys(("accuracy", "balanced_accuracy", "matthews_correlation"), 0)
    for _ in range(runs):
        scores = exact.scores(SHEET, evaluated(SHEET, rates, size, random))
        for name in held:
            # Undefined, because every prediction was the same, it claims nothing.
            low, high = scores[f"{name}_interval"] or (-math.inf, math.inf)
            held[name] += low - 1e-12 <= (truth[name] or 0) <= high + 1e-12
            assert scores[name] is None or -1 <= low <= scores[name] <= high <= 1
    return {name: count / runs for name, count in held.items()}


@pytest.mark.parametrize(
    "kind",
    [
        *("an exercise's", "perfect", "nearly perfect", "errs far away", "constant"),
        *("errs in some", "shifted"),
        *(f"{where} {rate}" for where in (*metrics.CLASSES, "both") for rate in QUICK),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(kind: str) -> None:
    assert min(coverage(kind, size=43_200, runs=60).values()) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("size", [3_000, 43_200])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("where", [*metrics.CLASSES, "both"])
def test_intervals_hold_the_truth_at_every_rate(where: str, rate: float, size: int) -> None:
    assert min(coverage(f"{where} {rate}", size, runs=400).values()) >= 0.92


def test_scores_of_constant_and_contrary_networks_are_whole_numbers() -> None:
    """Sums are rounded once: no accuracy of 2e-16, none above 1, no skill of -2e-15."""
    for task in (SHEET, NOTEBOOK, TaskConfig(threshold=131), TaskConfig(length=299, threshold=999)):
        strata = strata_lib.task_strata(task)
        series = strata_lib.pilot_allocation(strata, 10_000)
        minority = strata.labels == int(sum_law(task).positive_rate < 0.5)
        constant = exact.scores(task, Counts(series, series * minority))
        assert (constant["skill"], constant["balanced_accuracy"]) == (0, 0.5)
        assert constant["matthews_correlation"] is None
        for wrong, value in ((series, 0.0), (series * 0, 1.0)):
            scores = exact.scores(task, Counts(series, wrong))
            assert scores["accuracy"] == scores["balanced_accuracy"] == value
            assert scores["error"] == 1 - value
            assert scores["matthews_correlation"] == pytest.approx(2 * value - 1, abs=1e-12)
            for name in ("accuracy", "error", "balanced_accuracy"):
                low, high = scores[f"{name}_interval"]
                assert 0 <= low < high <= 1


def test_wrong_and_right_answers_are_treated_alike() -> None:
    """The intervals of a network and of its opposite are mirror images."""
    series = strata_lib.pilot_allocation(strata_lib.task_strata(SHEET), 43_200)
    wrong = np.random.default_rng(1).binomial(series, error_rates(SHEET, "an exercise's"))
    ours, theirs = (exact.scores(SHEET, Counts(series, k)) for k in (wrong, series - wrong))
    for name, total in (("accuracy", 1), ("balanced_accuracy", 1), ("matthews_correlation", 0)):
        assert ours[name] == pytest.approx(total - theirs[name])
        low, high = ours[f"{name}_interval"]
        np.testing.assert_allclose(
            (low, high), [total - x for x in theirs[f"{name}_interval"][::-1]], rtol=1e-9
        )


@pytest.mark.parametrize("task", [SHEET, NOTEBOOK], ids=["sheet", "notebook"])
def test_a_perfect_network_is_known_twenty_times_better_than_by_the_test_series(
    task: TaskConfig,
) -> None:
    random = np.random.default_rng(0)
    low, high = metrics.interval(task.test_size, task.test_size)
    scores = exact.scores(task, evaluated(task, error_rates(task, "perfect"), 43_200, random))
    assert scores["accuracy"] == scores["accuracy_interval"][1] == 1
    assert high - low > 20 * (1 - scores["accuracy_interval"][0])


def test_one_class_leaves_scores_undefined() -> None:
    always = TaskConfig(threshold=0)
    size = len(strata_lib.task_strata(always).labels)
    scores = exact.scores(always, Counts(np.full(size, 10), np.zeros(size, np.int64)))
    assert scores["accuracy"] == 1
    for name in ("skill", "balanced_accuracy", "matthews_correlation"):
        assert scores[name] is scores[f"{name}_interval"] is None


@settings(deadline=None)
@given(
    length=st.integers(1, 40),
    high=st.integers(0, 9),
    place=st.floats(0, 1),
    size=st.integers(10_000, 50_000),
    seed=st.integers(0, 99),
)
def test_every_series_is_shared_out(
    length: int, high: int, place: float, size: int, seed: int
) -> None:
    task = TaskConfig(size=50, length=length, high=high, threshold=round(place * length * high))
    strata = strata_lib.task_strata(task)
    rates = np.random.default_rng(seed).uniform(0, 1, len(strata.labels))
    for allocation in (
        strata_lib.pilot_allocation(strata, size),
        strata_lib.refined_allocation(
            strata, Counts(np.full(len(rates), 100), np.rint(100 * rates)), size
        ),
    ):
        assert allocation.sum() == size
        assert allocation.min() >= 1
        sums, numbers = strata_lib.systematic_sums(strata, allocation)
        assert len(sums) == len(numbers) == size
        for number, (possible, count) in enumerate(zip(strata.sums, allocation, strict=True)):
            assert set(sums[numbers == number]) <= set(possible)
            assert (numbers == number).sum() == count
