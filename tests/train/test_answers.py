import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumrnn.config import TaskConfig
from sumrnn.devices import compiler
from sumrnn.models import network
from sumrnn.train import answers
from sumrnn.train import run as algorithm
from tests.conftest import SMALL


@given(size=st.integers(3, 30_000), share=st.floats(0.01, 0.9))
def test_blocks_hold_every_series_and_the_validation_series_first(size: int, share: float) -> None:
    task = TaskConfig(size=max(size, 400), validation_fraction=share)
    cut = answers.blocks(task)
    assert cut.rows <= min(answers.MOST_ROWS, task.size)
    assert (cut.all - 1) * cut.rows < task.size <= cut.all * cut.rows
    assert (cut.validation - 1) * cut.rows < task.validation_size <= cut.validation * cut.rows
    # Few series are answered in every epoch that need not be.
    assert cut.validation * cut.rows <= task.validation_size + max(answers.FEWEST_ROWS, 10)
    numbers = np.arange(task.size)
    starts = (min(n * cut.rows, task.size - cut.rows) for n in range(cut.all))
    parts = answers.join(task, [numbers[start : start + cut.rows] for start in starts])
    train, validation, test = map(len, parts)
    assert (train, validation, test) == (task.train_size, task.validation_size, task.test_size)
    assert np.concatenate((parts[1], parts[2], parts[0])).tolist() == numbers.tolist()


@pytest.mark.parametrize("most", [7, pytest.param(1_000, marks=pytest.mark.slow)])
def test_answers_in_blocks_are_the_answers_at_once(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_ROWS", most)
    monkeypatch.setattr(answers, "FEWEST_ROWS", 1)
    data, state, _ = compiler.compiled(SMALL).begin(algorithm.purposes(SMALL, 0))
    answer, cut = jax.jit(functools.partial(answers.answer, SMALL)), answers.blocks(SMALL.task)
    found = [answer(state.params, data, np.uint32(n)) for n in range(cut.all)]
    logits = answers.join(SMALL.task, [part.logits for part in found])
    for part, own in zip(data, logits, strict=True):
        chex.assert_shape(own, part.labels.shape)
        whole = network.logits(state.params, SMALL.model, part.digits)
        np.testing.assert_allclose(own, whole, rtol=1e-5, atol=1e-6)
    z, y = np.float64(logits[1]), np.asarray(data.validation.labels)
    p = 1 / (1 + np.exp(-z))
    expected = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p))), np.mean((z > 0) == y)
    np.testing.assert_allclose(answers.total(found[: cut.validation]), expected, rtol=1e-5)
