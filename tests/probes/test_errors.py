import dataclasses

import jax
import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig
from sumrnn.models.counter import counter
from sumrnn.probes import errors
from sumrnn.task import sum_law

TASK = TaskConfig(size=100, length=12, high=9, threshold=50)
CONFIG = Config(TASK, ModelConfig(2))
LAW = sum_law(TASK)


def test_the_counter_never_errs_and_its_rows_hold_every_sum() -> None:
    rows = list(errors.measure(CONFIG, counter(TASK, 2)))
    assert [row["first"] for row in rows] == [0, *range(38, 63)]
    assert [row["last"] for row in rows] == [*range(37, 62), 108]
    assert sum(row["probability"] for row in rows) == pytest.approx(1)
    for row in rows:
        inside = (LAW.sums >= row["first"]) & (LAW.sums <= row["last"])
        assert row["probability"] == pytest.approx(LAW.probabilities[inside].sum())
        assert (row["wrong"], row["followed"]) == (0, 0)
        # Its logit is at least some 7, on the right side.
        last = errors.BINS - 1 if row["first"] >= 50 else 0
        assert row[f"count_{last}"] == row["series"]
        mean = row[f"confidence_{last}"] / row["series"]
        assert abs(mean - (row["first"] >= 50)) < 1e-2


def test_a_network_that_always_says_yes_misjudges_every_negative() -> None:
    blind = jax.tree.map(np.zeros_like, counter(TASK, 2))
    blind["output"]["bias"] += 1
    for row in errors.measure(CONFIG, blind):
        negative = row["first"] < 50
        assert row["wrong"] == negative * row["series"]
        assert row["followed"] == negative * (2**errors.FOLLOWED - 1)
        assert row["count_7"] == row["series"]
        assert row["confidence_7"] == pytest.approx(row["series"] / (1 + np.exp(-1)))


def test_every_run_is_asked_about_the_same_series() -> None:
    config = dataclasses.replace(CONFIG, model=ModelConfig(2, initializer="counter"))
    params = counter(dataclasses.replace(TASK, threshold=52), 2)
    first, second = (list(errors.measure(c, params)) for c in (CONFIG, config))
    assert first == second
    assert [row["wrong"] for row in first if row["first"] in (49, 50, 51, 52)] == [0, 400, 400, 0]
