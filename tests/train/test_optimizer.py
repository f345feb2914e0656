import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sumrnn.config import Config
from sumrnn.train import optimizer
from tests.conftest import SMALL


def with_train(**changed: object) -> Config:
    return dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, **changed))  # type: ignore[arg-type]


def test_the_step_size_rises_and_falls_over_all_steps() -> None:
    config = with_train(epochs=10, batch_size=50, learning_rate=0.01, warmup=0.1, decay="cosine")
    rate = optimizer.rate(config)
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
    constant = optimizer.rate(with_train(epochs=10, warmup=0.5, learning_rate=0.01))
    assert callable(constant)
    assert float(constant(steps)) == pytest.approx(0.01)
    assert optimizer.rate(with_train(learning_rate=0.01)) == 0.01


def test_long_gradients_are_shortened() -> None:
    """By the moments: Adam's step hardly depends on a gradient's length."""
    params, gradient = {"w": jnp.zeros(2)}, {"w": jnp.array([30.0, 40.0])}
    for clip, length in ((None, 50.0), (1.0, 1.0), (100.0, 50.0)):
        adam = optimizer.make(with_train(clip=clip))
        _, state = adam.update(gradient, adam.init(params), params)
        (moments,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
        found = float(jnp.linalg.norm(moments.mu["w"])) / (1 - SMALL.train.beta1)
        assert found == pytest.approx(length, rel=1e-5)


def test_steps_wait_for_more_and_more_batches() -> None:
    config = with_train(epochs=6, batch_growth=3, learning_rate=0.01)
    batches = 6 * -(-config.task.train_size // config.train.batch_size)
    third = batches // 3
    assert batches % 9 == 0, "so that the numbers below are whole"
    assert optimizer.steps(config) == (third, third // 2, third // 3)
    gradients = np.random.default_rng(0).normal(size=(batches, 2)).astype(np.float32)
    made, adam = optimizer.make(config), optimizer.make(with_train(learning_rate=0.01))
    params = {"w": jnp.zeros(2)}
    state, plain = made.init(params), adam.init(params)
    ends = np.cumsum([1] * third + [2] * (third // 2) + [3] * (third // 3))
    first = 0
    for batch in range(batches):
        updates, state = made.update({"w": gradients[batch]}, state, params)
        if batch + 1 in ends:
            mean = {"w": jnp.asarray(gradients[first : batch + 1].mean(axis=0))}
            expected, plain = adam.update(mean, plain, params)
            chex.assert_trees_all_close(updates, expected, rtol=1e-4)
            first = batch + 1
        else:
            chex.assert_trees_all_equal(updates, {"w": jnp.zeros(2)})
    assert first == batches


def test_a_planned_step_size_counts_the_steps_that_are_made() -> None:
    config = with_train(epochs=6, batch_growth=3, learning_rate=0.01, decay="cosine")
    rate, steps = optimizer.rate(config), sum(optimizer.steps(config))
    assert callable(rate)
    assert float(rate(steps)) == pytest.approx(0, abs=1e-9) != float(rate(steps - 1))


def is_adam(x: object) -> bool:
    return isinstance(x, optax.ScaleByAdamState)
