from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from sumrnn.config import Config, ModelConfig
from sumrnn.models import lstm, network
from sumrnn.train import predictions
from tests.conftest import initial


def case(cells: int, batch: int, length: int, seed: int) -> tuple[network.Params, np.ndarray]:
    config = Config(model=ModelConfig(cells=cells))
    params = network.to_flax(initial(jax.random.key(seed), config))
    digits = jax.random.randint(jax.random.key(seed + 1), (batch, length), 0, 10)
    return params, np.asarray(digits, np.uint8)


def loss(params: network.Params, recurrence: str, cells: int, digits: np.ndarray) -> chex.Array:
    labels = jnp.arange(len(digits)) % 2
    config = ModelConfig(cells=cells, recurrence=recurrence)  # type: ignore[arg-type]
    logits = network.logits(network.from_flax(params, config), config, digits)
    return predictions.losses(logits, labels).mean()


def assert_equal_gradients(
    cells: int, batch: int, length: int, seed: int, share: float = 1e-5
) -> None:
    """Loss, and gradient to a share of its largest entry: sums in another order."""
    params, digits = case(cells, batch, length, seed)
    both = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
    value, found = both(params, "fused", cells, digits)
    expected_value, expected = both(params, "scan", cells, digits)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(found, expected, rtol=0, atol=share * largest)


LARGE = ((201, 2, 2), (50, 50, 30))


@pytest.mark.parametrize(
    ("cells", "batch", "length"),
    [
        (7, 64, 5),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in ((1, 1, 1), (201, 2, 2), (50, 50, 30))),
    ],
)
def test_it_is_the_scanned_cell_in_value_and_gradient(cells: int, batch: int, length: int) -> None:
    assert_equal_gradients(cells, batch, length, seed=3)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    cells=st.sampled_from([1, 7, 50, 142, 200]),
    batch=st.integers(1, 64),
    length=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_scanned_cell_at_every_size(
    cells: int, batch: int, length: int, seed: int
) -> None:
    assert_equal_gradients(cells, batch, length, seed, share=1e-4)  # Terms may nearly cancel.


class LastHiddenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @pytest.mark.slow  # Those of the whole network are, by default.
    def test_gradients_are_finite_differences_in_float64(self) -> None:
        with jax.enable_x64(True):
            weights = random_weights(3, jnp.float64)
            inputs = jax.random.normal(jax.random.key(1), (5, 7), jnp.float64)

            def total(weights: chex.Array, inputs: chex.Array) -> chex.Array:
                hidden = lstm.last_hidden(weights, inputs)
                return (hidden * jnp.arange(1.0, 4.0)[None]).sum()

            found = self.variant(jax.grad(total, argnums=(0, 1)))(weights, inputs)
            numeric = jax.test_util.check_grads
            numeric(total, (weights, inputs), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
            chex.assert_type(jax.tree.leaves(found), jnp.float64)
            chex.assert_trees_all_equal_shapes(found, (weights, inputs))

    @pytest.mark.slow
    def test_it_can_be_mapped(self) -> None:
        weights, inputs = random_weights(2), jnp.linspace(0, 9, 24).reshape(2, 3, 4)
        mapped = jax.vmap(gradients, in_axes=(None, 0))(weights, inputs)
        for i, alone in enumerate(inputs):
            one = jax.tree.map(lambda x, i=i: x[i], mapped)
            chex.assert_trees_all_close(one, gradients(weights, alone), rtol=1e-5, atol=1e-6)

    @pytest.mark.slow
    def test_it_can_be_put_on_several_devices(self) -> None:
        weights, inputs = random_weights(2), jnp.linspace(0, 9, 24).reshape(2, 3, 4)
        mesh = Mesh(np.array(jax.devices()[:2]), ("x",))

        def local(inputs: chex.Array) -> tuple[chex.Array, chex.Array]:
            return jax.tree.map(lambda x: x[None], gradients(weights, inputs[0]))

        spec = PartitionSpec("x")
        found = jax.jit(
            jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        )(inputs)
        expected = jax.vmap(gradients, in_axes=(None, 0))(weights, inputs)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def random_weights(cells: int, dtype: Any = jnp.float32) -> chex.Array:
    return jax.random.normal(jax.random.key(0), (cells + 2, 4 * cells), dtype)


def gradients(weights: chex.Array, inputs: chex.Array) -> tuple[chex.Array, chex.Array]:
    found: tuple[chex.Array, chex.Array] = jax.grad(
        lambda weights, inputs: (lstm.last_hidden(weights, inputs) ** 2).sum(),
        argnums=(0, 1),
    )(weights, inputs)
    return found


@pytest.mark.parametrize("length", [2, *(pytest.param(x, marks=pytest.mark.slow) for x in (1, 5))])
def test_a_workspace_changes_no_number_and_comes_back(length: int) -> None:
    weights, inputs = random_weights(3), jnp.linspace(0, 9, 4 * length).reshape(4, length)

    @jax.jit
    def used(workspace: lstm.Workspace) -> tuple[chex.Array, lstm.Workspace]:
        def loss(weights: chex.Array, workspace: lstm.Workspace) -> chex.Array:
            return (lstm.last_hidden(weights, inputs, None, workspace) ** 2).sum()

        return jax.grad(loss, argnums=(0, 1))(weights, workspace)

    zeros = lstm.lstm_workspace(4, length, 3)
    expected, after = used(zeros)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, zeros)
    for before in (after, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), zeros)):
        chex.assert_trees_all_equal(used(before)[0], expected)
    assert float(jnp.abs(after.cell).sum()) > 0


def numpy_last_hidden(weights: np.ndarray, inputs: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Series by series: a step is repeated as often as its duration says, with the same gates."""
    cells, hidden = weights.shape[1] // 4, []
    for series, lasting in zip(inputs, durations, strict=True):
        h = c = np.zeros(cells)
        for x, duration in zip(series, lasting, strict=True):
            z = np.split(np.concatenate((h, (x, 1.0))) @ weights, 4)
            i, f, o = (1 / (1 + np.exp(-z[k])) for k in (0, 1, 3))
            for _ in range(int(duration)):
                c = f * c + i * np.tanh(z[2])
            h = o * np.tanh(c)
        hidden.append(h)
    return np.array(hidden)


@pytest.mark.parametrize("with_workspace", [pytest.param(False, marks=pytest.mark.slow), True])
def test_steps_that_last_repeat_with_the_same_gates(with_workspace: bool) -> None:
    random = np.random.default_rng(5)
    durations = random.integers(0, 6, (4, 5)).astype(float)
    inputs = random.normal(size=(4, 5))
    with jax.enable_x64(True):
        weights = random_weights(3, jnp.float64)
        workspace = None
        if with_workspace:
            workspace = lstm.lstm_workspace(4, 5, 3, lasting=True, dtype=jnp.float64)

        @jax.jit
        def hidden(weights: chex.Array, inputs: chex.Array) -> chex.Array:
            return lstm.last_hidden(weights, inputs, durations, workspace)

        expected = numpy_last_hidden(np.asarray(weights), inputs, durations)
        np.testing.assert_allclose(hidden(weights, inputs), expected, rtol=1e-9)
        arguments = (weights, jnp.asarray(inputs))
        numeric = jax.test_util.check_grads
        numeric(hidden, arguments, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_a_step_of_a_thousand_is_exact_enough_in_float32() -> None:
    weights = random_weights(4).at[:, 4:8].multiply(8.0)  # Forget gates that are nearly 0 or 1.
    inputs = np.linspace(-2.0, 2.0, 12, dtype=np.float32).reshape(4, 3)
    durations = np.array([1, 1_000, 30], np.float32) * np.ones((4, 1), np.float32)
    value_and_grad = jax.value_and_grad(
        lambda weights: lstm.last_hidden(weights, inputs, durations).sum()
    )
    hidden, gradient = jax.jit(value_and_grad)(weights)
    expected = numpy_last_hidden(np.asarray(weights, float), inputs, durations).sum()
    np.testing.assert_allclose(hidden, expected, rtol=1e-4)
    assert np.isfinite(gradient).all()


def test_steps_that_last_zero_are_none() -> None:
    weights, inputs = random_weights(3), np.linspace(0, 9, 20, dtype=np.float32).reshape(4, 5)
    durations = np.ones((4, 5), np.float32)
    durations[:, :2] = 0
    found = jax.jit(lstm.last_hidden)(weights, inputs, durations)
    expected = jax.jit(lstm.last_hidden)(weights, inputs[:, 2:])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
