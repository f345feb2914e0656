import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn import model, task, train
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.task import Split
from tests.conftest import SMALL


def with_batch(config: Config, batch_size: int) -> Config:
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, batch_size=batch_size)
    )


def with_shards(config: Config, shards: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_shards=shards))


def setup(config: Config, seed: int = 0) -> tuple[train.Keys, task.Splits, train.State]:
    keys = train.keys(config, seed)
    return keys, train.make_data(config, keys.data), train.init(config, keys.init)


def fit(config: Config, seed: int) -> tuple[train.State, list[train.Metrics], task.Splits]:
    keys, data, state = setup(config, seed)
    history = []
    for number in range(config.train.epochs):
        state, metrics = train.epoch(config, state, keys.shuffle, data, number)
        history.append(metrics)
    return state, history, data


def key_bits(keys: train.Keys) -> list[tuple[int, ...]]:
    return [tuple(jax.random.key_data(key).tolist()) for key in keys]


def test_each_purpose_and_each_seed_has_its_own_key() -> None:
    bits = [pair for seed in range(20) for pair in key_bits(train.keys(Config(), seed))]
    assert len(set(bits)) == len(bits) == 60


@pytest.mark.parametrize(
    ("index", "name"), [(0, "data_seed"), (1, "init_seed"), (2, "shuffle_seed")]
)
def test_a_pinned_seed_replaces_its_own_key_only(index: int, name: str) -> None:
    pinned = key_bits(train.keys(Config(**{name: 99}), 5))
    plain, other = key_bits(train.keys(Config(), 5)), key_bits(train.keys(Config(), 99))
    assert pinned[index] == other[index]
    assert pinned[:index] + pinned[index + 1 :] == plain[:index] + plain[index + 1 :]


class TrainStepTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_two_steps_of_adam_follow_the_formula(self) -> None:
        config = SMALL
        adam = config.train
        _, data, state = setup(config)
        batches = [
            Split(data.train.digits[i : i + 50], data.train.labels[i : i + 50]) for i in (0, 50)
        ]
        step = self.variant(lambda state, batch: train.train_step(config, state, batch))
        params, m, v = state.params, *(jax.tree.map(jnp.zeros_like, state.params) for _ in range(2))
        for t, batch in enumerate(batches, start=1):

            def loss(params: model.Params, batch: Split = batch) -> chex.Array:
                z = model.logits(params, config.model, batch.digits)
                y = batch.labels
                return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).mean()

            value, grads = jax.value_and_grad(loss)(params)
            m = jax.tree.map(lambda m, g: adam.beta1 * m + (1 - adam.beta1) * g, m, grads)
            v = jax.tree.map(lambda v, g: adam.beta2 * v + (1 - adam.beta2) * g**2, v, grads)
            params = jax.tree.map(
                lambda p, m, v, t=t: (
                    p
                    - adam.learning_rate
                    * (m / (1 - adam.beta1**t))
                    / (jnp.sqrt(v / (1 - adam.beta2**t)) + adam.epsilon)
                ),
                params,
                m,
                v,
            )
            state, (total, hits) = step(state, batch)
            np.testing.assert_allclose(total, 50 * value, rtol=1e-5)
            assert 0 <= int(hits) <= 50
            chex.assert_trees_all_close(state.params, params, rtol=1e-4, atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_shapes_and_types_do_not_change(self) -> None:
        _, data, state = setup(SMALL)
        batch = Split(data.train.digits[:50], data.train.labels[:50])
        step = self.variant(lambda state, batch: train.train_step(SMALL, state, batch))
        after, (loss, hits) = step(state, batch)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
        chex.assert_shape([loss, hits], ())
        chex.assert_type([loss, hits], [jnp.float32, jnp.int32])
        chex.assert_trees_all_equal_shapes(state.params, after.params)


@settings(max_examples=5, deadline=None)
@given(size=st.integers(1, 12), shards=st.integers(1, 15))
def test_shards_change_nothing_but_rounding(size: int, shards: int) -> None:
    """Also where they are uneven or more than there are series."""
    _, data, state = setup(SMALL)
    batch = Split(data.train.digits[:size], data.train.labels[:size])
    step = train.train_step.__wrapped__
    found, found_counts = step(with_shards(SMALL, shards), state, batch)
    expected, expected_counts = step(with_shards(SMALL, 1), state, batch)
    # The first step of Adam is about the sign of each gradient: its moments tell more.
    chex.assert_trees_all_close(found.opt_state, expected.opt_state, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found_counts, expected_counts, rtol=1e-5)
    logits = train.predict(with_shards(SMALL, shards), state.params, batch.digits)
    whole = model.logits(state.params, SMALL.model, batch.digits)
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 48, 50, 143, 144], ids=lambda size: f"batch {size}")
def test_an_epoch_uses_every_series_once(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a step in place that only notes when it is given each series."""
    config = with_batch(SMALL, batch_size)
    size = config.task.train_size

    def note(config: Config, state: train.State, batch: Split, *_: Any) -> Any:
        places, used = state.params, state.opt_state
        rows = batch.digits[:, 0]
        places = places.at[rows].add(used + jnp.arange(1, rows.size + 1, dtype=jnp.int32))
        return train.State(places, used + rows.size), (jnp.float32(0), jnp.int32(0))

    monkeypatch.setattr(train, "train_step", note)
    monkeypatch.setattr(train, "predict", lambda config, params, digits, *_: jnp.zeros(len(digits)))
    keys, data, _ = setup(config)
    # The first digit tells the series apart.
    rows = (
        jnp.zeros((size, config.task.length), jnp.uint8)
        .at[:, 0]
        .set(jnp.arange(size, dtype=jnp.uint8))
    )
    data = data._replace(train=data.train._replace(digits=rows))

    orders = []
    for number in (0, 1, 0):
        nothing = train.State(jnp.zeros(size, jnp.int32), jnp.int32(0))
        state, _ = train.epoch.__wrapped__(config, nothing, keys.shuffle, data, number)
        assert int(state.opt_state) == size
        assert sorted(state.params.tolist()) == list(range(1, size + 1))
        orders.append(state.params.tolist())
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("batch_size", [48, 50])
def test_an_epoch_is_its_steps_one_after_the_other(batch_size: int) -> None:
    config = with_batch(SMALL, batch_size)
    keys, data, state = setup(config)
    found, metrics = train.epoch(config, state, keys.shuffle, data, 3)

    order = jax.random.permutation(jax.random.fold_in(keys.shuffle, 3), config.task.train_size)
    loss, hits = 0.0, 0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = Split(data.train.digits[rows], data.train.labels[rows])
        state, (batch_loss, batch_hits) = train.train_step(config, state, batch)
        loss, hits = loss + float(batch_loss), hits + int(batch_hits)
    chex.assert_trees_all_close(found, state, rtol=1e-4, atol=1e-6)
    logits = model.logits(state.params, config.model, data.validation.digits)
    labels = np.asarray(data.validation.labels)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = train.Metrics(
        loss / len(order),
        hits / len(order),
        -np.mean(np.where(labels == 1, np.log(p), np.log(1 - p))),
        np.mean((p > 0.5) == labels),
    )
    chex.assert_type(list(metrics), jnp.float32)
    np.testing.assert_allclose(metrics, expected, rtol=1e-4)


def test_prediction_in_pieces_is_prediction_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, state = setup(SMALL)
    whole = model.logits(state.params, SMALL.model, data.train.digits)
    monkeypatch.setattr(train, "PREDICTION_ROWS", 37)
    pieces = train.predict(SMALL, state.params, data.train.digits)
    chex.assert_shape(pieces, (SMALL.task.train_size,))
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)


def test_a_run_is_a_function_of_config_and_seed() -> None:
    first, again, other = (fit(SMALL, seed)[:2] for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    assert first[1][0].loss != other[1][0].loss


def test_a_seed_axis_can_be_put_in_front() -> None:
    """One compiled call for several seeds gives what each gives alone."""

    def first_epoch(seed: chex.Numeric) -> tuple[train.State, train.Metrics]:
        keys, data, state = setup(SMALL, seed)
        return train.epoch(SMALL, state, keys.shuffle, data, 0)

    seeds = jnp.array([3, 4, 5], jnp.uint32)
    batch = jax.jit(lambda seeds: jax.lax.map(first_epoch, seeds))(seeds)
    for i, seed in enumerate(seeds.tolist()):
        alone = first_epoch(seed)
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], batch), alone, rtol=1e-4, atol=1e-6
        )


def test_predictions_cover_every_split() -> None:
    state, _, data = fit(SMALL, 0)
    logits = train.predictions(SMALL, state.params, data)
    for part, answer in zip(data, logits, strict=True):
        chex.assert_shape(answer, part.labels.shape)
        chex.assert_type(answer, jnp.float32)


@pytest.mark.parametrize("seed", range(3))
def test_the_network_learns_to_count(seed: int) -> None:
    config = Config(
        TaskConfig(size=1_500, length=6, high=4, threshold=12),
        ModelConfig(cells=16),
        TrainConfig(epochs=20, batch_size=25, learning_rate=1e-2),
    )
    constant = task.law(config.task).majority_accuracy
    assert constant < 0.6
    state, history, data = fit(config, seed)
    assert history[-1].loss < history[0].loss / 3
    logits = train.predict(config, state.params, data.test.digits)
    assert train.correct(logits, data.test.labels).mean() > 0.95
