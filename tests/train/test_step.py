import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn.config import Config
from sumrnn.devices import compiler
from sumrnn.models import network
from sumrnn.task import Split
from sumrnn.train import answers
from sumrnn.train import run as algorithm
from tests.conftest import SMALL


def with_shards(config: Config, shards: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_shards=shards))


@pytest.fixture(scope="module")
def begun() -> algorithm.Begun:
    """The start of a run; do not change it."""
    return compiler.compiled(SMALL).begin(algorithm.purposes(SMALL, 0))


def batch_of(begun: algorithm.Begun, first: int, size: int) -> Split:
    return Split(*(array[first : first + size] for array in begun.data.train))


class TrainStepTest(chex.TestCase):
    @chex.variants(with_jit=True)
    def test_two_steps_of_adam_follow_the_formula(self) -> None:
        config, adam = SMALL, SMALL.train
        begun = compiler.compiled(SMALL).begin(algorithm.purposes(SMALL, 0))
        state, params = begun.state, jax.device_get(begun.state.params)
        take = self.variant(lambda state, batch: algorithm.train_step(config, state, batch))
        m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))

        @jax.jit
        @jax.value_and_grad
        def loss(params: network.Weights, batch: Split) -> chex.Array:
            z = network.logits(params, config.model, batch.digits)
            y = batch.labels.astype(z.dtype)
            return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).mean()

        for t in (1, 2):
            batch = batch_of(begun, 50 * (t - 1), 50)
            value, grads = jax.device_get(loss(params, batch))
            m = jax.tree.map(lambda m, g: adam.beta1 * m + (1 - adam.beta1) * g, m, grads)
            v = jax.tree.map(lambda v, g: adam.beta2 * v + (1 - adam.beta2) * g**2, v, grads)
            params = jax.tree.map(
                lambda p, m, v, t=t: (
                    p
                    - adam.learning_rate
                    * (m / (1 - adam.beta1**t))
                    / (np.sqrt(v / (1 - adam.beta2**t)) + adam.epsilon)
                ),
                params,
                m,
                v,
            )
            after, (total, hits) = take(state, batch)
            np.testing.assert_allclose(total, 50 * value, rtol=1e-5)
            assert 0 <= int(hits) <= 50
            chex.assert_type([total, hits], [jnp.float32, jnp.int32])
            chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
            chex.assert_trees_all_close(after.params, params, rtol=1e-4, atol=1e-6)
            state = after


@functools.partial(jax.jit, static_argnums=0)
def step_and_logits(config: Config, state: algorithm.State, batch: Split) -> Any:
    after, counts = algorithm.train_step(config, state, batch)
    return after.opt_state, counts, answers.predict(config, state.params, batch.digits)


@pytest.mark.parametrize(("size", "shards"), [pytest.param(7, 3, marks=pytest.mark.slow), (2, 5)])
def test_shards_change_nothing_but_rounding(size: int, shards: int, begun: algorithm.Begun) -> None:
    """Also where they are uneven or more than there are series."""
    batch = batch_of(begun, 0, size)
    found, expected = (
        step_and_logits(with_shards(SMALL, number), begun.state, batch) for number in (shards, 1)
    )
    # The first step of Adam is about the sign of each gradient: its moments tell more.
    chex.assert_trees_all_close(found[0], expected[0], rtol=1e-4, atol=1e-7)
    chex.assert_trees_all_close(found[1:], expected[1:], rtol=1e-5, atol=1e-6)
    whole = network.logits(begun.state.params, SMALL.model, batch.digits)
    np.testing.assert_allclose(found[2], whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), shards=st.integers(1, 15))
def test_any_shards_change_nothing_but_rounding(size: int, shards: int) -> None:
    begun = compiler.compiled(SMALL).begin(algorithm.purposes(SMALL, 0))
    test_shards_change_nothing_but_rounding(size, shards, begun)
