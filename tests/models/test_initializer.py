import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.models.counter import counter, uneven_counter
from sumrnn.models.initializer import init
from tests.conftest import SMALL, initial


def with_model(**changed: Any) -> Config:
    return dataclasses.replace(SMALL, model=dataclasses.replace(SMALL.model, **changed))


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
def test_a_counter_is_built_as_training_takes_it(recurrence: str) -> None:
    config = with_model(initializer="counter", recurrence=recurrence)
    found: Any = initial(jax.random.key(0), config)
    chex.assert_trees_all_equal(network.to_flax(found), counter(config.task, config.model.cells))
    config = with_model(initializer="uneven-counter", recurrence=recurrence, input_center=1.0)
    found = initial(jax.random.key(0), config)
    chex.assert_trees_all_equal(network.to_flax(found), uneven_counter(config.task, config.model))


@pytest.mark.parametrize(
    "initializer", ["keras", "counter", pytest.param("flax", marks=pytest.mark.slow)]
)
def test_noise_is_normal_and_has_the_given_size(initializer: str) -> None:
    config = with_model(initializer=initializer, cells=40)
    noisy = dataclasses.replace(config, model=dataclasses.replace(config.model, noise=0.5))
    key = jax.random.key(1)
    before, after = init(key, config), init(key, noisy)
    shares = [
        np.asarray(b)[np.asarray(a) != 0] / np.asarray(a)[np.asarray(a) != 0] - 1
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    assert scipy.stats.kstest(np.concatenate(shares) / 0.5, "norm").pvalue > 1e-3
    shared = min(len(x) for x in shares)
    assert abs(np.corrcoef(shares[0][:shared], shares[1][:shared])[0, 1]) < 0.5
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(b[a == 0], 0.0)
    other = init(jax.random.key(2), noisy)
    assert not jnp.allclose(jax.tree.leaves(other)[1], jax.tree.leaves(after)[1])


@pytest.mark.parametrize("recurrence", ["fused", pytest.param("scan", marks=pytest.mark.slow)])
def test_memories_give_the_biases_of_two_gates(recurrence: str) -> None:
    config = with_model(cells=400, recurrence=recurrence)
    key, longer = jax.random.key(1), dataclasses.replace(config.model, memory=101.0)
    before = network.to_flax(init(key, config))
    after = network.to_flax(init(key, dataclasses.replace(config, model=longer)))
    steps = np.exp(after["lstm"]["hf"]["bias"])
    assert scipy.stats.kstest((steps - 1) / 99, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(after["lstm"]["hi"]["bias"], -after["lstm"]["hf"]["bias"])
    for gate in ("hi", "hf"):
        after["lstm"][gate]["bias"] = before["lstm"][gate]["bias"]
    chex.assert_trees_all_equal(before, after)


@pytest.mark.parametrize("changed", [{"input_center": 1.0}, {"input_scale": 2.0}])
def test_a_counter_takes_digits_as_they_are(changed: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(changed))} = .* must be left as it is"):
        ModelConfig(initializer="counter", **changed)  # type: ignore[arg-type]
