import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sumrnn.config import Config
from sumrnn.train import run as algorithm
from tests.conftest import SMALL


def with_train(**changed: object) -> Config:
    return dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, **changed))  # type: ignore[arg-type]


def test_the_step_size_rises_and_falls_over_all_steps() -> None:
    config = with_train(epochs=10, batch_size=50, learning_rate=0.01, warmup=0.1, decay="cosine")
    rate = algorithm.rate(config)
    assert callable(rate)
    steps = 10 * -(-config.task.train_size // 50)
    rising = round(0.1 * steps)
    found = np.array([float(rate(step)) for step in range(steps + 1)])
    expected = np.concatenate(
        [
            0.01 * np.arange(rising) / rising,
            0.005 * (1 + np.cos(np.pi * np.arange(steps - rising + 1) / (steps - rising))),
        ]
    )
    np.testing.assert_allclose(found, expected, atol=1e-8)
    constant = algorithm.rate(with_train(epochs=10, warmup=0.5, learning_rate=0.01))
    assert callable(constant)
    assert float(constant(steps)) == pytest.approx(0.01)
    assert algorithm.rate(with_train(learning_rate=0.01)) == 0.01


def test_long_gradients_are_shortened() -> None:
    """By the moments: Adam's step hardly depends on a gradient's length."""
    params, gradient = {"w": jnp.zeros(2)}, {"w": jnp.array([30.0, 40.0])}
    for clip, length in ((None, 50.0), (1.0, 1.0), (100.0, 50.0)):
        adam = algorithm.optimizer(with_train(clip=clip))
        _, state = adam.update(gradient, adam.init(params), params)
        (moments,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
        found = float(jnp.linalg.norm(moments.mu["w"])) / (1 - SMALL.train.beta1)
        assert found == pytest.approx(length, rel=1e-5)


def test_a_planned_step_size_counts_the_steps_that_are_made() -> None:
    config = with_train(epochs=6, learning_rate=0.01, decay="cosine")
    rate, steps = algorithm.rate(config), algorithm.steps(config)
    assert callable(rate)
    assert float(rate(steps)) == pytest.approx(0, abs=1e-9) != float(rate(steps - 1))


def is_adam(x: object) -> bool:
    return isinstance(x, optax.ScaleByAdamState)
