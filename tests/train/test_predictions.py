import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sumrnn.config import TaskConfig
from sumrnn.devices import compiler
from sumrnn.train import predictions
from sumrnn.train import run as algorithm
from tests.conftest import SMALL, answer


@given(size=st.integers(3, 30_000), share=st.floats(0.01, 0.9))
def test_blocks_hold_every_series_and_the_validation_series_first(size: int, share: float) -> None:
    task = TaskConfig(size=max(size, 400), validation_fraction=share)
    cut = predictions.blocks(task)
    assert cut.rows <= min(predictions.MAX_ROWS, task.size)
    assert (cut.all - 1) * cut.rows < task.size <= cut.all * cut.rows
    assert (cut.validation - 1) * cut.rows < task.validation_size <= cut.validation * cut.rows
    # Few series are answered in every epoch that need not be.
    assert cut.validation * cut.rows <= task.validation_size + max(predictions.MIN_ROWS, 10)
    numbers = np.arange(task.size)
    starts = (min(n * cut.rows, task.size - cut.rows) for n in range(cut.all))
    parts = predictions.join(task, [numbers[start : start + cut.rows] for start in starts])
    train, validation, test = map(len, parts)
    assert (train, validation, test) == (task.train_size, task.validation_size, task.test_size)
    assert np.concatenate((parts[1], parts[2], parts[0])).tolist() == numbers.tolist()


@pytest.mark.parametrize("max_rows", [7, pytest.param(1_000, marks=pytest.mark.slow)])
def test_predictions_in_blocks_are_those_at_once(
    max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MAX_ROWS", max_rows)
    monkeypatch.setattr(predictions, "MIN_ROWS", 1)
    data, state, _ = compiler.compiled_functions(SMALL).begin(algorithm.purpose_seeds(SMALL, 0))
    predict = jax.jit(functools.partial(predictions.predict, SMALL))
    layout = predictions.blocks(SMALL.task)
    blocks = [predict(state.params, data, np.uint32(n)) for n in range(layout.all)]
    logits = predictions.join(SMALL.task, [block.logits for block in blocks])
    for part, part_logits in zip(data, logits, strict=True):
        chex.assert_shape(part_logits, part.labels.shape)
        whole = answer(state.params, SMALL.model, part.digits)
        np.testing.assert_allclose(part_logits, whole, rtol=1e-5, atol=1e-6)
    z, y = np.float64(logits[1]), np.asarray(data.validation.labels)
    p = 1 / (1 + np.exp(-z))
    expected = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p))), np.mean((z > 0) == y)
    total = predictions.total(blocks[: layout.validation])
    np.testing.assert_allclose(total, expected, rtol=1e-5)
