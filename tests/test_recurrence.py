import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn import model, recurrence, train
from sumrnn.config import ModelConfig


def case(cells: int, batch: int, length: int, seed: int) -> tuple[model.Params, np.ndarray]:
    params = model.init(jax.random.key(seed), ModelConfig(cells=cells))
    digits = jax.random.randint(jax.random.key(seed + 1), (batch, length), 0, 10)
    return params, np.asarray(digits, np.uint8)


def loss(params: model.Params, recurrence: str, cells: int, digits: np.ndarray) -> chex.Array:
    labels = jnp.arange(len(digits)) % 2
    config = ModelConfig(cells=cells, recurrence=recurrence)  # type: ignore[arg-type]
    return train.losses(model.logits(params, config, digits), labels).mean()


def assert_equal_gradients(cells: int, batch: int, length: int, seed: int) -> None:
    """Loss and gradient to 1e-5 of the gradient's largest entry: sums in another order."""
    params, digits = case(cells, batch, length, seed)
    both = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
    value, found = both(params, "fused", cells, digits)
    expected_value, expected = both(params, "scan", cells, digits)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(found, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("cells", "batch", "length"), [(1, 1, 1), (7, 64, 5), (24, 3, 40), (50, 50, 30)]
)
def test_it_is_the_scanned_cell_in_value_and_gradient(cells: int, batch: int, length: int) -> None:
    assert_equal_gradients(cells, batch, length, seed=3)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    cells=st.sampled_from([1, 7, 50, 200]),
    batch=st.integers(1, 64),
    length=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_scanned_cell_at_every_size(
    cells: int, batch: int, length: int, seed: int
) -> None:
    assert_equal_gradients(cells, batch, length, seed)


@pytest.mark.parametrize("rows", [1, recurrence.PIECE - 1, recurrence.PIECE, 257, 400])
def test_pieces_sum_to_the_whole_product(rows: int) -> None:
    left, right = (jax.random.normal(jax.random.key(i), (rows, 3 + i)) for i in (0, 1))
    exact = np.asarray(left, np.float64).T @ np.asarray(right, np.float64)
    np.testing.assert_allclose(recurrence._product(left, right), exact, atol=1e-4)


class LastHiddenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_gradients_are_finite_differences_in_float64(self) -> None:
        with jax.enable_x64(True):
            keys = jax.random.split(jax.random.key(0), 4)
            shapes = {"inputs": (12,), "recurrent": (3, 12), "bias": (12,)}
            weights = recurrence.Weights(
                *(
                    jax.random.normal(key, shape, jnp.float64)
                    for key, shape in zip(keys, shapes.values(), strict=False)
                )
            )
            inputs = jax.random.normal(keys[3], (5, 7), jnp.float64)

            def total(weights: recurrence.Weights, inputs: chex.Array) -> chex.Array:
                hidden = recurrence.last_hidden(weights, inputs)
                return (hidden * jnp.arange(1.0, 4.0)).sum()

            found = self.variant(jax.grad(total, argnums=(0, 1)))(weights, inputs)
            numeric = jax.test_util.check_grads
            numeric(total, (weights, inputs), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)
            chex.assert_type(jax.tree.leaves(found), jnp.float64)
            chex.assert_trees_all_equal_shapes(found, (weights, inputs))

    def test_it_can_be_mapped(self) -> None:
        weights, inputs = (
            recurrence.Weights(jnp.ones(8) / 9, jnp.ones((2, 8)) / 5, jnp.ones(8) / 7),
            jnp.linspace(0, 9, 24).reshape(2, 3, 4),
        )
        mapped = jax.vmap(recurrence.last_hidden, in_axes=(None, 0))(weights, inputs)
        for one, alone in zip(mapped, inputs, strict=True):
            np.testing.assert_allclose(
                one, recurrence.last_hidden(weights, alone), rtol=1e-5, atol=1e-6
            )
