import dataclasses

import jax
import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig
from sumrnn.models.counter import counter
from sumrnn.probes import lengths
from sumrnn.task import sum_law
from tests.conftest import SMALL


@pytest.fixture(autouse=True)
def factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer numbers of steps, each of which is compiled."""
    monkeypatch.setattr(lengths, "FACTORS", (1, 1.5, 100 / 3))


def config(cells: int) -> Config:
    return dataclasses.replace(SMALL, model=ModelConfig(cells))


def test_the_counter_holds_the_sum_among_any_zeros() -> None:
    rows = list(lengths.measure(config(2), counter(SMALL.task, 2)))
    assert [row["steps"] for row in rows] == [5, 8, 167]
    for row in rows:
        assert (row["accuracy"], row["balanced_accuracy"]) == (1, 1)
        assert 0.99 < row["accuracy_low"] < row["accuracy_high"] == 1


def test_a_network_that_never_looks_has_the_constant_answer_at_every_length() -> None:
    blind = jax.tree.map(np.zeros_like, counter(SMALL.task, 2))
    blind["output"]["bias"] += 1
    law = sum_law(SMALL.task)
    for row in lengths.measure(config(2), blind):
        assert row["accuracy"] == pytest.approx(law.positive_rate)
        assert row["balanced_accuracy"] == pytest.approx(0.5)
