import dataclasses

import jax
import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig
from sumrnn.models.counter import counter
from sumrnn.probes import digits
from sumrnn.task import sum_law

TASK = TaskConfig(size=100, length=12, high=9, threshold=40)
CONFIG = Config(TASK, ModelConfig(2))


def test_the_threshold_moves_so_that_the_classes_stay_as_skewed() -> None:
    same = digits.with_digits(TASK, 12)
    assert same is not None
    assert (same.length, same.threshold) == (12, 40)
    for length in (6, 24):
        changed = digits.with_digits(TASK, length)
        assert changed is not None
        rates = [
            sum_law(dataclasses.replace(changed, threshold=changed.threshold + k)).positive_rate
            for k in (-1, 0, 1)
        ]
        assert np.argmin(np.abs(np.array(rates) - sum_law(TASK).positive_rate)) == 1
    assert digits.with_digits(TaskConfig(size=10, length=2, low=3, high=3, threshold=6), 4) is None
    assert digits.with_digits(TASK, 20_000) is None
    assert digits.with_digits(TaskConfig(length=150, high=255, threshold=15_000), 450) is None
    few = dataclasses.replace(TASK, size=1_000, test_fraction=0.02, validation_fraction=0.05)
    assert digits.with_digits(few, 24) == digits.with_digits(TASK, 24)
    one_class = dataclasses.replace(TASK, threshold=0)
    assert digits.with_digits(one_class, 12) is None


def test_every_number_of_digits_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(digits, "with_digits", lambda task, length: asked.append(length))
    for length, expected in (
        (1, [1, 2, 3]),
        (5, [2, 3, 4, 5, 6, 8, 10, 15]),
        (30, [15, 20, 25, 30, 33, 36, 45, 60, 90]),
    ):
        task = TaskConfig(size=100, length=length, threshold=length)
        assert list(digits.measure(Config(task, ModelConfig(2)), counter(task, 2))) == []
        assert asked == expected
        asked.clear()


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer numbers of digits, each of which is compiled."""
    monkeypatch.setattr(digits, "FACTORS", (2 / 3, 1, 1.2))


@pytest.mark.usefixtures("factors")
def test_the_counter_is_right_at_its_threshold_and_ranks_all_others() -> None:
    rows = list(digits.measure(CONFIG, counter(TASK, 2)))
    assert [row["digits"] for row in rows] == [8, 12, 14]
    for row in rows:
        assert (row["balanced_accuracy"] == 1) == (row["digits"] == 12)
        assert (row["moved_balanced_accuracy"], row["roc_auc"]) == (1, 1)


@pytest.mark.usefixtures("factors")
def test_a_network_that_looks_at_nothing_ranks_nothing() -> None:
    blind = jax.tree.map(np.zeros_like, counter(TASK, 2))
    for row in digits.measure(CONFIG, blind):
        assert [row[name] for name in digits.SCORES] == [0.5, 0.5, 0.5]
        assert row["positive_rate"] == pytest.approx(sum_law(TASK).positive_rate, abs=0.1)
