"""Cells by name: each beside its equations in plain NumPy, in value and gradient."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices.compiler import fit
from sumrnn.devices.evaluation import evaluate
from sumrnn.errors import UserError
from sumrnn.exchange import formats
from sumrnn.models import network
from sumrnn.models.cells import CELLS
from sumrnn.models.initializer import init
from tests.conftest import answer, initial

NAMES = typing.get_args(typing.get_type_hints(ModelConfig)["cell"])
OTHERS = [name for name in NAMES if name != "lstm"]
Layer = Callable[..., np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(w: Layer, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Cho et al. 2014, with the reset gate after the product, as Flax has it."""
    r, z = sigmoid(w("ir", x) + w("hr", h)), sigmoid(w("iz", x) + w("hz", h))
    return (1 - z) * np.tanh(w("in", x) + r * w("hn", h)) + z * h


def mgu(w: Layer, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Zhou et al. 2016."""
    f = sigmoid(w("if", x) + w("hf", h))
    return (1 - f) * np.tanh(w("in", x) + f * w("hn", h)) + f * h


STEPS: dict[str, Callable[[Layer, np.ndarray, np.ndarray], np.ndarray]] = {
    "gru": gru,
    "mgu": mgu,
    "simple": lambda w, x, h: np.tanh(w("i", x) + w("h", h)),
    "simple-relu": lambda w, x, h: np.maximum(0, w("i", x) + w("h", h)),
    "linear": lambda w, x, h: sigmoid(w("log_memory")) * h + w("input", x),
}


def numpy_logits(name: str, params: Any, digits: np.ndarray) -> np.ndarray:
    """float64 [batch], by the equations of the cell."""

    def layer(key: str, x: np.ndarray | None = None) -> np.ndarray:
        weights = params[name][key]
        if x is None:
            return np.asarray(weights, float)
        out: np.ndarray = x @ np.asarray(weights["kernel"], float)
        return out + np.asarray(weights["bias"], float) if "bias" in weights else out

    hidden = np.zeros((len(digits), len(np.ravel(params["output"]["kernel"]))))
    for column in digits.T.astype(float):
        hidden = STEPS[name](layer, column[:, None], hidden)
    kernel, bias = (np.asarray(params["output"][x], float) for x in ("kernel", "bias"))
    logits: np.ndarray = (hidden @ kernel + bias)[:, 0]
    return logits


def drawn(name: str) -> tuple[ModelConfig, Any, np.ndarray]:
    model = ModelConfig(cells=3, cell=name)  # type: ignore[arg-type]
    params = jax.device_get(initial(jax.random.key(2), Config(model=model)))
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * noise.normal(size=x.shape).astype("f4"), params)
    return model, params, noise.integers(0, 4, (5, 6)).astype(np.uint8)


def test_every_cell_has_equations_here() -> None:
    assert set(NAMES) == set(CELLS) == {"lstm", *STEPS}


@pytest.mark.parametrize("name", OTHERS)
def test_a_cell_is_its_equations_in_value_and_gradient(name: str) -> None:
    model, params, digits = drawn(name)
    expected = numpy_logits(name, params, digits)
    np.testing.assert_allclose(answer(params, model, digits), expected, rtol=1e-4, atol=1e-5)
    found = jax.jit(jax.grad(lambda params: answer(params, model, digits).sum()))(params)
    for seed in range(3):
        random = np.random.default_rng(seed)
        direction = jax.tree.map(lambda x, r=random: r.normal(size=x.shape), params)
        moved = [
            numpy_logits(name, jax.tree.map(lambda x, d, e=e: x + e * d, params, direction), digits)
            for e in (1e-6, -1e-6)
        ]
        slope = (moved[0] - moved[1]).sum() / 2e-6
        products = jax.tree.map(lambda g, d: float((g * d).sum()), found, direction)
        assert sum(jax.tree.leaves(products)) == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    ["lstm", "linear", *(pytest.param(x, marks=pytest.mark.slow) for x in NAMES)],
)
def test_series_of_other_lengths_and_states_step_by_step_are_the_same(name: str) -> None:
    model, params, digits = drawn(name)
    params = network.to_flax(params)
    weights = network.from_flax(params, model)
    ragged = jax.jit(network.ragged_logits, static_argnums=1)(
        params, model, digits, np.array([6, 1, 3, 6, 3])
    )
    for row, length in enumerate((6, 1, 3, 6, 3)):
        alone = answer(weights, model, digits[row : row + 1, :length])
        np.testing.assert_allclose(ragged[row], alone[0], rtol=1e-4, atol=1e-5)
    states = jax.jit(network.states, static_argnums=1)
    cell, hidden, after = states(params, model, np.pad(digits, ((0, 0), (0, 1))))
    out = hidden[5] @ params["output"]["kernel"] + params["output"]["bias"]
    expected = answer(weights, model, digits)
    np.testing.assert_allclose(out[:, 0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[5], cell[6], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["gru", "linear", *(pytest.param(x, marks=pytest.mark.slow) for x in NAMES)]
)
def test_a_series_may_begin_later(name: str) -> None:
    model, params, digits = drawn(name)
    model = dataclasses.replace(model, recurrence="scan")
    params = network.to_flax(params)
    later = np.pad(digits, ((0, 0), (2, 0)), constant_values=3)
    durations = np.pad(np.ones_like(digits), ((0, 0), (2, 0)))

    def total(params: Any, digits: Any, durations: Any = None) -> Any:
        out = network.logits(params, model, digits, durations=durations)
        return (out * np.arange(1, 6)).sum()

    values = jax.jit(jax.value_and_grad(total))
    chex.assert_trees_all_close(
        values(params, later, durations), values(params, digits), rtol=1e-4, atol=1e-5
    )


SMALL = Config(
    TaskConfig(size=300, length=5, high=3, threshold=8),
    ModelConfig(cells=4),
    TrainConfig(epochs=2, batch_size=50, learning_rate=1e-2),
)


@pytest.mark.parametrize(
    "name", ["simple", *(pytest.param(x, marks=pytest.mark.slow) for x in STEPS)]
)
def test_every_cell_trains_and_is_evaluated(name: str) -> None:
    later = dataclasses.replace(SMALL.train, series="fresh", min_digits=3, min_steps=4)
    model = ModelConfig(4, cell=name)  # type: ignore[arg-type]
    config = dataclasses.replace(SMALL, model=model, train=later)
    run = fit(config, 1)
    assert set(run.state.params) == {name, "output"}
    assert run.history.loss[1] < run.history.loss[0]
    assert 0 < evaluate(config, run.state.params, steps=9, size=500)["accuracy"] < 1
    with pytest.raises(UserError, match=f"^cell = '{name}': must be lstm, which formats describe"):
        formats.write("keras", run.state.params, config)


@pytest.mark.parametrize("recurrence", ["fused", pytest.param("scan", marks=pytest.mark.slow)])
def test_forget_gates_have_the_bias_that_is_asked_for(recurrence: str) -> None:
    for bias, expected in ((None, 1.0), (0.0, 0.0), (2.5, 2.5)):
        model = ModelConfig(4, forget_bias=bias, recurrence=recurrence)  # type: ignore[arg-type]
        lstm = network.to_flax(init(jax.random.key(0), Config(model=model)))["lstm"]
        np.testing.assert_array_equal(lstm["hf"]["bias"], expected)
        chex.assert_trees_all_equal(lstm["hi"]["bias"], np.zeros(4, np.float32))
