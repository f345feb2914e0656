import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sumrnn.config import Config, ModelConfig
from sumrnn.models import network
from sumrnn.models.lstm import GATES
from sumrnn.train import predictions
from sumrnn.train import run as algorithm
from sumrnn.train.series import Batch
from tests.conftest import SMALL, answer, initial

TINY = ModelConfig(cells=3)
DIGITS = np.array([[0, 9, 3, 1], [5, 5, 0, 2], [9, 9, 9, 9]], np.uint8)
LABELS = np.array([0, 1, 1], np.uint8)


def drawn(seed: int, model: ModelConfig) -> network.Params:
    """Initial parameters by the names of Flax."""
    return network.to_flax(initial(jax.random.key(seed), Config(model=model)))


def random_params(config: ModelConfig, scale: float = 0.4) -> network.Params:
    """Parameters with no zeros, so that every path counts."""
    params = drawn(0, config)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    normal = [
        scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, normal)


def numpy_logits(params: network.Params, digits: np.ndarray) -> np.ndarray:
    """The oracle: an LSTM in float64 written from its equations."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    lstm, output = params["lstm"], params["output"]
    c = h = np.zeros((len(digits), lstm["hi"]["kernel"].shape[0]))
    for x in digits.T[..., None].astype(np.float64):
        i, f, g, o = (
            x @ lstm[f"i{gate}"]["kernel"]
            + h @ lstm[f"h{gate}"]["kernel"]
            + lstm[f"h{gate}"]["bias"]
            for gate in "ifgo"
        )
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return (h @ output["kernel"] + output["bias"])[:, 0]


def numpy_loss(params: network.Params) -> float:
    z = numpy_logits(params, DIGITS)
    return float(np.mean(np.log1p(np.exp(-z)) * LABELS + np.log1p(np.exp(z)) * (1 - LABELS)))


class LogitsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_values_are_those_of_a_numpy_lstm(self) -> None:
        params = random_params(TINY)
        logits = self.variant(lambda p, d: network.logits(network.pack(p), TINY, d))(params, DIGITS)
        chex.assert_shape(logits, (3,))
        chex.assert_type(logits, jnp.float32)
        expected = numpy_logits(jax.tree.map(np.float64, params), DIGITS)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)

    @chex.variants(with_jit=True)
    def test_gradients_are_finite_differences_in_float64(self) -> None:
        def loss(params: network.Params) -> chex.Array:
            return predictions.losses(
                network.logits(network.pack(params), TINY, DIGITS), LABELS
            ).mean()

        params = random_params(TINY)
        grads = self.variant(jax.grad(loss))(params)
        exact = jax.tree.map(np.float64, params)
        small = 1e-5
        for leaf, grad in zip(jax.tree.leaves(exact), jax.tree.leaves(grads), strict=True):
            for index in np.ndindex(leaf.shape):
                value = leaf[index]
                leaf[index] = value + small
                above = numpy_loss(exact)
                leaf[index] = value - small
                below = numpy_loss(exact)
                leaf[index] = value
                np.testing.assert_allclose(
                    grad[index], (above - below) / (2 * small), rtol=1e-3, atol=1e-6
                )


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
def test_scaled_inputs_are_the_network_of_scaled_digits(recurrence: Any) -> None:
    plain = ModelConfig(cells=3, recurrence=recurrence)
    scaled = ModelConfig(3, recurrence=recurrence, input_center=-1.0, input_scale=0.5)
    weights = initial(jax.random.key(0), Config(model=plain))
    digits = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = answer(weights, scaled, digits)
    expected = answer(weights, plain, (2 * (digits + 1)).astype(np.uint8))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_keras_initializer_sees_the_gates_as_one_matrix() -> None:
    config = ModelConfig()
    params = drawn(0, config)
    lstm = params["lstm"]
    inputs = np.concatenate([lstm[f"i{gate}"]["kernel"] for gate in GATES], axis=1)
    recurrent = np.concatenate([lstm[f"h{gate}"]["kernel"] for gate in GATES], axis=1)
    limit = math.sqrt(6 / 801)
    assert inputs.shape == (1, 800)
    uniform = scipy.stats.uniform(-limit, 2 * limit)
    assert scipy.stats.kstest(inputs[0], uniform.cdf).pvalue > 1e-3
    assert np.abs(inputs).max() <= limit
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(200), atol=1e-5)
    for gate in GATES:
        assert (np.asarray(lstm[f"h{gate}"]["bias"]) == float(gate == "f")).all()
    output = np.asarray(params["output"]["kernel"])
    limit = math.sqrt(6 / 201)
    assert 0.9 * limit < np.abs(output).max() <= limit
    assert (np.asarray(params["output"]["bias"]) == 0).all()


def test_flax_initializer_is_flax_s_own() -> None:
    config = ModelConfig(initializer="flax")
    lstm = drawn(0, config)["lstm"]
    for gate in GATES:
        kernel = np.asarray(lstm[f"h{gate}"]["kernel"])
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(200), atol=1e-5)
        assert (np.asarray(lstm[f"h{gate}"]["bias"]) == 0).all()
    # LeCun-normal with one input: standard deviation 1 per gate, against Keras's 0.05.
    inputs = np.concatenate([lstm[f"i{gate}"]["kernel"] for gate in GATES], axis=1)
    assert inputs.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("initializer", ["keras", pytest.param("flax", marks=pytest.mark.slow)])
def test_initializers_agree_in_shape_and_depend_on_the_key(initializer: str) -> None:
    config = ModelConfig(cells=6, initializer=initializer)
    first, again, other = (drawn(seed, config) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, drawn(0, ModelConfig(cells=6)))
    for name in ("ii", "hf"):
        assert (first["lstm"][name]["kernel"] != other["lstm"][name]["kernel"]).any()


def dots(jaxpr: jax.extend.core.Jaxpr) -> list[jax.extend.core.JaxprEqn]:
    found = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    for eqn in jaxpr.eqns:
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(inner, "jaxpr"):
                found += dots(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                found += dots(inner)
    return found


def test_every_product_of_a_training_step_is_full_float32() -> None:
    state = algorithm.begin(SMALL, algorithm.purpose_seeds(SMALL, 0)).state
    batch = Batch(np.zeros((4, 5), np.uint8), np.zeros(4, np.uint8))
    jaxpr = jax.make_jaxpr(algorithm.train_step, static_argnums=0)(SMALL, state, batch)
    products = dots(jaxpr.jaxpr)
    assert len(products) >= 6  # Input, recurrent and output, forwards and backwards.
    for product in products:
        precision = product.params["precision"]
        assert set(np.ravel(precision)) == {jax.lax.Precision.HIGHEST}


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
def test_the_names_of_flax_lead_there_and_back(recurrence: Any) -> None:
    config = ModelConfig(cells=3, recurrence=recurrence)
    weights = initial(jax.random.key(1), Config(model=config))
    several = jax.tree.map(lambda x: np.stack([x, 2 * x]), weights)
    for one in (weights, jax.device_get(weights), several):
        params = network.to_flax(one)
        chex.assert_trees_all_equal(network.from_flax(params, config), one)
        chex.assert_shape(params["lstm"]["hf"]["kernel"], (..., 3, 3))
        chex.assert_shape([params["output"]["kernel"], params["output"]["bias"]], (..., 1))
    expected = numpy_logits(jax.tree.map(np.float64, network.to_flax(weights)), DIGITS)
    np.testing.assert_allclose(answer(weights, config, DIGITS), expected, atol=1e-6)
