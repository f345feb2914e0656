from typing import Any

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices.evaluation import evaluate
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.models.counter import counter, uneven_counter
from sumrnn.presets import PRESETS, preset
from sumrnn.task import draw_series_with_sums, log_pmf_table, spread
from tests.conftest import answer, initial


def wrong(
    task: TaskConfig, each: int, cells: int = 1, recurrence: Any = "fused", zeros: int = 0
) -> int:
    """Of so many series at each reachable sum, and of the two most uneven at each.

    Zeros stand at random among the digits.
    """
    config = ModelConfig(cells, recurrence=recurrence)
    sums = np.arange(task.length * task.low, task.length * task.high + 1)
    draw = jax.jit(draw_series_with_sums, static_argnums=2)
    repeated = np.repeat(sums, each).astype(np.int32)
    drawn = np.asarray(draw(jax.random.key(0), repeated, task, log_pmfs=log_pmf_table(task)))
    span = task.high - task.low
    full, rest = np.divmod(sums - sums[0], max(1, span))
    uneven = np.full((len(sums), task.length), task.low)
    for row, (many, left) in enumerate(zip(full, rest, strict=True)):
        uneven[row, :many] = task.high
        uneven[row, many : many + 1] += left
    digits = np.concatenate([drawn, uneven, uneven[:, ::-1]]).astype(np.uint8)
    if zeros:
        counts, length = np.full(len(digits), task.length), task.length + zeros
        spans = np.full(len(digits), length)
        digits = np.asarray(
            spread(jax.random.key(1), digits, counts, spans=spans, length=length)[0]
        )
    logits = np.asarray(answer(network.from_flax(counter(task, cells), config), config, digits))
    assert np.isfinite(logits).all()
    return int(((logits > 0) != (digits.sum(axis=1, dtype=int) >= task.threshold)).sum())


@pytest.mark.parametrize("high", [9, pytest.param(8, marks=pytest.mark.slow)])
def test_it_answers_the_exercises_right_at_every_sum(high: int) -> None:
    assert wrong(TaskConfig(high=high), each=30, cells=200) == 0


def test_it_answers_them_right_among_zeros() -> None:
    assert wrong(TaskConfig(), each=3, cells=200, zeros=70) == 0


def test_a_zero_leaves_its_state_as_it_is() -> None:
    digits = np.asarray(jax.random.randint(jax.random.key(3), (20, 30), 0, 10), np.uint8)
    weights, config = network.pack(counter(TaskConfig(), 3)), ModelConfig(3)
    later = np.pad(digits, ((0, 0), (100, 1_000)))
    np.testing.assert_array_equal(answer(weights, config, digits), answer(weights, config, later))


def test_its_answers_grow_sure_half_a_digit_from_the_threshold() -> None:
    """By enumeration: the logit is some ten times the distance in half digits."""
    task = TaskConfig(size=100, length=4, high=4, threshold=8)
    digits = np.stack(np.meshgrid(*[np.arange(5)] * 4), axis=-1).reshape(-1, 4).astype(np.uint8)
    logits = np.asarray(answer(network.pack(counter(task)), ModelConfig(1), digits))
    halves = 2 * digits.sum(axis=1, dtype=int) - 15
    near = np.abs(halves) == 1
    np.testing.assert_allclose(logits[near], 10.0 * halves[near], rtol=0.35)


def test_it_is_a_counter_in_flax_s_own_network() -> None:
    assert wrong(TaskConfig(), each=5, cells=20, recurrence="scan") == 0


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_answers_any_task_right(data: st.DataObject) -> None:
    length, low = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 12))
    high = data.draw(st.integers(low, low + 12))
    threshold = data.draw(st.integers(length * low, length * high))
    task = TaskConfig(size=100, length=length, low=low, high=high, threshold=threshold)
    assert wrong(task, each=3) == 0


@pytest.mark.parametrize(
    ("length", "high"), [pytest.param(*x, marks=pytest.mark.slow) for x in ((20, 255), (330, 9))]
)
def test_it_counts_as_far_as_float32(length: int, high: int) -> None:
    for threshold in (1, length * high // 2, length * high):
        task = TaskConfig(size=100, length=length, high=high, threshold=threshold)
        assert wrong(task, each=1) == 0


def test_where_float32_ends_it_says_so() -> None:
    with pytest.raises(UserError, match=r"^length = 2000: .* \(2001\) at most 116 here"):
        counter(TaskConfig(size=100, length=2_000, threshold=9_000))
    with pytest.raises(
        UserError, match=r"^length = 1: .* length \+ cells \(634\) at most 596 here"
    ):
        counter(TaskConfig(size=100, length=1, high=247, threshold=38), 633)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sheet-solved", *PRESETS])
def test_an_uneven_one_counts_with_weights_of_a_trained_size(name: str) -> None:
    config = preset(name)
    params = uneven_counter(config.task, config.model)
    for steps in (None, 100):
        assert evaluate(config, params, steps=steps, size=8_000)["error"] < 1e-5
    assert max(abs(params["output"]["kernel"])) < 6
    assert 0.03 < max(abs(params["lstm"]["ig"]["kernel"][0])) < 0.2
    assert len(set(params["lstm"]["ig"]["kernel"][0])) == config.model.cells


def test_an_uneven_one_takes_scaled_digits() -> None:
    digits = np.asarray(jax.random.randint(jax.random.key(3), (20, 30), 0, 10), np.uint8)
    plain, scaled = ModelConfig(9), ModelConfig(9, input_center=4.5, input_scale=3.0)
    logits = [
        answer(network.pack(uneven_counter(TaskConfig(), model)), model, digits)
        for model in (plain, scaled)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)
    # By the formula, in float64: the state is a sum of tanh, let in by the same share.
    params = jax.tree.map(lambda x: np.asarray(x, float), uneven_counter(TaskConfig(), plain))
    let_in = 1 / (1 + np.exp(-params["lstm"]["hi"]["bias"]))
    states = let_in * np.tanh(digits[..., None] * params["lstm"]["ig"]["kernel"]).sum(axis=1)
    expected = np.tanh(states) / 2 @ params["output"]["kernel"][:, 0] + params["output"]["bias"]
    np.testing.assert_allclose(logits[0], expected, atol=1e-3)


@pytest.mark.parametrize("cells", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize(
    ("length", "low", "high", "threshold"),
    [(1, 0, 9, 5), (4, 0, 9, 0), (4, 0, 9, 36), (5, 3, 3, 15), (6, 2, 4, 19), (30, 0, 9, 270)],
)
def test_an_uneven_one_has_finite_weights_for_any_task(
    length: int, low: int, high: int, threshold: int, cells: int
) -> None:
    task = TaskConfig(size=100, length=length, low=low, high=high, threshold=threshold)
    config = Config(task, ModelConfig(cells), TrainConfig(batch_size=10))
    assert evaluate(config, uneven_counter(task, config.model), size=2_000)["error"] == 0


@pytest.mark.parametrize(("length", "threshold"), [(48, 432), (113, 0), (330, 10)])
def test_an_uneven_one_says_where_a_threshold_is_too_rare(length: int, threshold: int) -> None:
    task = TaskConfig(size=100, length=length, threshold=threshold)
    with pytest.raises(UserError, match=f"^threshold = {threshold}: must be a sum less rare"):
        uneven_counter(task, ModelConfig(2))


def test_an_uneven_one_says_where_its_table_would_be_large() -> None:
    with pytest.raises(UserError, match=r"^length = 500: must be short enough for an uneven"):
        uneven_counter(TaskConfig(size=100, length=500, threshold=2_000), ModelConfig())


def test_its_parameters_are_those_of_the_network() -> None:
    drawn = network.to_flax(initial(jax.random.key(0), Config(model=ModelConfig(cells=5))))
    chex.assert_trees_all_equal_shapes_and_dtypes(counter(TaskConfig(), 5), jax.device_get(drawn))
