import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sumrnn import task
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import compiler
from sumrnn.devices.compiler import fit
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.runs import origin
from sumrnn.task import Split
from sumrnn.train import predictions, series
from sumrnn.train import run as algorithm
from sumrnn.train.series import Batch
from tests.conftest import SMALL


def with_train(**changed: Any) -> Config:
    return dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, **changed))


def beginning(config: Config = SMALL, seed: int = 0) -> algorithm.Beginning:
    seeds = algorithm.purpose_seeds(config, seed)
    start: algorithm.Beginning = compiler.compiled_functions(config).begin(seeds)
    return start


def test_digits_among_zeros_have_the_sums_and_durations_that_are_asked_for() -> None:
    train = {"series": "fresh", "focus": 0.6, "focus_reach": 2, "min_digits": 4}
    config = Config(
        TaskConfig(size=1_000, length=9, high=6, threshold=20),
        train=TrainConfig(batch_size=50, **train, min_steps=6, max_hold=100),  # type: ignore[arg-type]
    )
    draw = jax.jit(lambda key: series.fresh(config, key, steps=40, number=0))
    batch = jax.tree.map(np.asarray, draw(jax.random.key(7)))
    chex.assert_shape([batch.digits, batch.durations], (40, 50, 9))
    sums = batch.digits.sum(axis=-1, dtype=int)
    np.testing.assert_array_equal(batch.labels, sums >= 20)
    near = sums[:, 20:]
    assert set(near.ravel().tolist()) == {18, 19, 20, 21}
    # What has not begun lasts 0 and stands in front; a digit lasts 1, a zero up to 100.
    begun = batch.durations > 0
    assert (np.diff(begun.astype(int), axis=-1) >= 0).all()
    assert set(begun.sum(axis=-1).ravel().tolist()) == {6, 7, 8, 9}
    assert (batch.digits[~begun] == 0).all()
    assert (batch.durations[batch.digits > 0] == 1).all()
    assert batch.durations.max() <= 100
    holds = np.log(batch.durations[batch.durations > 1])
    assert 0.4 < holds.mean() / np.log(100) < 0.7


def rows_of(train: Split, rows: Any) -> Batch:
    return Batch(train.digits[rows], train.labels[rows])


def key_bits(config: Config, seed: int) -> list[tuple[int, ...]]:
    keys = algorithm.seed_keys(algorithm.purpose_seeds(config, seed))
    return [tuple(jax.random.key_data(key).tolist()) for key in keys]


def test_each_purpose_and_each_seed_has_its_own_key() -> None:
    bits = [pair for seed in range(20) for pair in key_bits(Config(), seed)]
    assert len(set(bits)) == len(bits) == 60


@pytest.mark.parametrize(
    ("index", "name"), [(0, "data_seed"), (1, "init_seed"), (2, "shuffle_seed")]
)
def test_a_pinned_seed_replaces_its_own_key_only(index: int, name: str) -> None:
    pinned = key_bits(Config(**{name: 99}), 5)
    plain, other = key_bits(Config(), 5), key_bits(Config(), 99)
    assert pinned[index] == other[index]
    assert pinned[:index] + pinned[index + 1 :] == plain[:index] + plain[index + 1 :]
    assert Config(**{name: 99}).unpinned == Config()


@pytest.mark.parametrize("batch_size", [1, 48, 50, 143, 144], ids=lambda size: f"batch {size}")
def test_an_epoch_uses_every_series_once(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a step in place that only notes when it is given each series."""
    config = with_train(batch_size=batch_size)
    size = config.task.train_size

    def note(
        config: Config, state: algorithm.State, batch: Batch, *, mask: Any, workspace: Any, **_: Any
    ) -> Any:
        places, used = state.params, state.opt_state
        rows, counts = batch.digits[:, 0], mask.astype(jnp.int32)
        places = places.at[rows].add(counts * (used + jnp.cumsum(counts)))
        state = algorithm.State(places, used + counts.sum())
        return state, (jnp.float32(0), jnp.int32(0)), workspace

    monkeypatch.setattr(algorithm, "train_step", note)
    data, _, shuffle = beginning()
    # The first digit tells the series apart.
    rows = jnp.zeros((size, config.task.length), jnp.uint8)
    rows = rows.at[:, 0].set(jnp.arange(size, dtype=jnp.uint8))
    train = data.train._replace(digits=rows)

    orders = []
    for number in (0, 1, 0):
        nothing = algorithm.State(jnp.zeros(size, jnp.int32), jnp.int32(0))
        state, *_ = algorithm.epoch(config, nothing, shuffle, train, number)
        assert int(state.opt_state) == size
        assert sorted(state.params.tolist()) == list(range(1, size + 1))
        orders.append(state.params.tolist())
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("focus", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_fresh_series_are_new_in_every_epoch_and_near_the_threshold_if_asked(focus: float) -> None:
    reach = {"focus_reach": 2} if focus else {}
    config = with_train(batch_size=50, series="fresh", focus=focus, **reach)
    config_task, keys = config.task, jax.random.split(jax.random.key(5), 40)
    draw = jax.jit(lambda key: series.fresh(config, key, steps=3, number=0))
    epochs = [draw(key) for key in keys]
    digits, labels = (np.stack(arrays) for arrays in zip(*(x[:2] for x in epochs), strict=True))
    chex.assert_shape(digits, (40, 3, 50, config_task.length))
    chex.assert_type([digits, labels], np.uint8)
    sums = digits.sum(axis=-1, dtype=int)
    np.testing.assert_array_equal(labels, sums >= config_task.threshold)
    assert (digits[0] != digits[1]).any()
    near = round(50 * focus)
    law = task.sum_law(config_task)
    counts = np.bincount(sums[:, :, : 50 - near].ravel(), minlength=len(law.sums))
    expected = law.probabilities * counts.sum()
    big = expected > 5
    expected *= counts[big].sum() / expected[big].sum()
    assert scipy.stats.chisquare(counts[big], expected[big]).pvalue > 1e-4
    if near:
        focused = np.bincount(sums[:, :, 50 - near :].ravel() - (config_task.threshold - 2))
        assert len(focused) == 4
        assert scipy.stats.chisquare(focused).pvalue > 1e-4


def test_focus_narrows_by_the_same_factor_each_epoch() -> None:
    config = with_train(epochs=4, series="fresh", focus=0.9, focus_start=8, focus_reach=1)
    key, threshold = jax.random.key(0), config.task.threshold
    draw = jax.jit(lambda number: series.fresh(config, key, steps=20, number=number))
    near = round(0.9 * config.train.batch_size)
    for number, reach in enumerate((8, 4, 2, 1)):
        sums = np.asarray(draw(np.uint32(number)).digits).sum(axis=-1, dtype=int)[:, -near:]
        assert (sums.min(), sums.max()) == (threshold - reach, threshold + reach - 1)


@pytest.mark.parametrize("batch_size", [48, pytest.param(50, marks=pytest.mark.slow)])
def test_an_epoch_is_its_steps_one_after_the_other(batch_size: int) -> None:
    config = with_train(batch_size=batch_size)
    functions = compiler.compiled_functions(config)
    data, state, shuffle = beginning(config)
    after, *means, finite = functions.epoch(state, shuffle, data.train, np.uint32(3))
    numbers = range(predictions.blocks(config.task).validation)
    blocks = [functions.predict(after.params, data, np.uint32(n)) for n in numbers]
    metrics = (*means, *predictions.total(blocks))
    assert bool(finite)

    order = jax.random.permutation(jax.random.fold_in(shuffle, 3), config.task.train_size)
    take, loss, hits = jax.jit(algorithm.train_step, static_argnums=0), 0.0, 0
    for start in range(0, len(order), batch_size):
        batch = rows_of(data.train, order[start : start + batch_size])
        state, (batch_loss, batch_hits), _ = take(config, state, batch)
        loss, hits = loss + float(batch_loss), hits + int(batch_hits)
    chex.assert_trees_all_close(after, state, rtol=1e-4, atol=1e-6)
    logits = network.logits(state.params, config.model, data.validation.digits)
    labels = np.asarray(data.validation.labels)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = algorithm.Metrics(
        loss / len(order),
        hits / len(order),
        -np.mean(np.where(labels == 1, np.log(p), np.log(1 - p))),
        np.mean((p > 0.5) == labels),
    )
    chex.assert_type(list(metrics), jnp.float32)
    np.testing.assert_allclose(metrics, expected, rtol=1e-4)


@pytest.mark.parametrize("clip", [pytest.param(None, marks=pytest.mark.slow), 0.05])
def test_two_steps_of_adam_follow_the_formula(clip: float | None) -> None:
    """With gradients that are shortened to a norm too: theirs is above 0.05."""
    config, adam = with_train(clip=clip), SMALL.train
    data, state, _ = beginning(config)
    params = jax.device_get(state.params)
    step = jax.jit(algorithm.train_step, static_argnums=0)
    m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))

    @jax.jit
    @jax.value_and_grad
    def loss(params: network.Weights, batch: Batch) -> chex.Array:
        z = network.logits(params, config.model, batch.digits)
        y = batch.labels.astype(z.dtype)
        return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).mean()

    for t in (1, 2):
        batch = rows_of(data.train, slice(50 * (t - 1), 50 * t))
        value, grads = jax.device_get(loss(params, batch))
        norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
        assert norm > 0.05
        grads = jax.tree.map(lambda g, norm=norm: g * (1 if clip is None else clip / norm), grads)
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
        before, (state, (total, hits), _) = state, step(config, state, batch)
        np.testing.assert_allclose(total, 50 * value, rtol=1e-5)
        assert 0 <= int(hits) <= 50
        chex.assert_type([total, hits], [jnp.float32, jnp.int32])
        chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
        chex.assert_trees_all_close(state.params, params, rtol=1e-4, atol=1e-6)
        # A step hardly depends on a gradient's length: the moments do.
        (moments,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
        chex.assert_trees_all_close(moments.mu, m, rtol=1e-4, atol=1e-7)


def is_adam(x: object) -> bool:
    return isinstance(x, optax.ScaleByAdamState)


def test_the_step_size_rises_and_falls_over_all_steps() -> None:
    planned = {"epochs": 10, "batch_size": 50, "learning_rate": 0.01}
    size = algorithm.step_size(with_train(**planned, warmup=0.1, decay="cosine"))
    assert callable(size)
    steps = 10 * -(-SMALL.task.train_size // 50)
    rising = round(0.1 * steps)
    falling = np.arange(steps - rising + 1) / (steps - rising)
    expected = [0.01 * np.arange(rising) / rising, 0.005 * (1 + np.cos(np.pi * falling))]
    sizes = [float(size(step)) for step in range(steps + 1)]
    np.testing.assert_allclose(sizes, np.concatenate(expected), atol=1e-8)
    constant = algorithm.step_size(with_train(**planned, warmup=0.5))
    assert callable(constant)
    assert float(constant(steps)) == pytest.approx(0.01)
    assert algorithm.step_size(with_train(learning_rate=0.01)) == 0.01


def test_a_run_may_be_over_before_its_step_size_falls() -> None:
    config = with_train(epochs=1, batch_size=96, learning_rate=3.0, warmup=0.9, decay="cosine")
    steps = -(-config.task.train_size // 96)
    size: Any = algorithm.step_size(config)
    np.testing.assert_allclose([size(k) for k in range(steps)], 3 * np.arange(steps) / steps)


@functools.partial(jax.jit, static_argnums=0)
def step_and_logits(config: Config, state: algorithm.State, batch: Batch) -> Any:
    after, counts, _ = algorithm.train_step(config, state, batch)
    logits = predictions.logits_by_shard(config, state.params, batch.digits)
    return after.opt_state, counts, logits


@pytest.mark.parametrize(("size", "shards"), [pytest.param(7, 3, marks=pytest.mark.slow), (2, 5)])
def test_shards_change_nothing_but_rounding(size: int, shards: int) -> None:
    """Also where they are uneven or more than there are series."""
    data, state, _ = beginning()
    batch = rows_of(data.train, slice(size))
    cut, whole = (
        step_and_logits(with_train(batch_shards=number), state, batch) for number in (shards, 1)
    )
    # The first step of Adam is about the sign of each gradient: its moments tell more.
    chex.assert_trees_all_close(cut[0], whole[0], rtol=1e-4, atol=1e-7)
    chex.assert_trees_all_close(cut[1:], whole[1:], rtol=1e-5, atol=1e-6)
    expected = network.logits(state.params, SMALL.model, batch.digits)
    np.testing.assert_allclose(cut[2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), shards=st.integers(1, 15))
def test_any_shards_change_nothing_but_rounding(size: int, shards: int) -> None:
    test_shards_change_nothing_but_rounding(size, shards)


@pytest.mark.parametrize("part", ["params", "second moment"])
def test_numbers_that_are_not_finite_are_seen(part: str) -> None:
    """Adam divides by an infinite second moment: the losses show nothing of it."""
    data, state, shuffle = beginning(seed=3)
    broken = state.params if part == "params" else state.opt_state[0].nu
    infinite = broken._replace(output=broken.output.at[-1].set(jnp.inf))
    state = jax.tree.map(
        lambda x: infinite if x is broken else x, state, is_leaf=lambda x: x is broken
    )
    state, loss, _, finite = compiler.compiled_functions(SMALL).epoch(
        state, shuffle, data.train, np.uint32(0)
    )
    assert not finite
    assert np.isfinite(loss) == (part != "params")


def test_a_run_is_a_function_of_config_and_seed() -> None:
    first, again, other = (fit(SMALL, seed) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first, again)
    assert first.history.loss[0] != other.history.loss[0]
    chex.assert_shape(list(first.history), (SMALL.train.epochs,))
    for part, logits in zip(first.data, first.logits, strict=True):
        chex.assert_shape(logits, part.labels.shape)
        chex.assert_type(logits, jnp.float32)


@pytest.mark.parametrize("recurrence", ["fused", pytest.param("scan", marks=pytest.mark.slow)])
def test_a_run_does_not_depend_on_jax_s_settings(recurrence: Any) -> None:
    config = dataclasses.replace(SMALL, model=ModelConfig(cells=8, recurrence=recurrence))
    usual, here = fit(config, 1), origin.program_digest(config)
    origin.program_digest.cache_clear()
    jax.config.update("jax_random_seed_offset", 5)
    try:
        with (
            jax.enable_x64(True),
            jax.default_prng_impl("rbg"),
            jax.threefry_partitionable(False),
            jax.default_matmul_precision("bfloat16"),
            jax.numpy_rank_promotion("raise"),
            jax.numpy_dtype_promotion("strict"),
            jax.transfer_guard("disallow"),
            jax.debug_nans(True),
        ):
            found = fit(config, 1)
            assert origin.program_digest(config) == here
    finally:
        jax.config.update("jax_random_seed_offset", 0)
    chex.assert_trees_all_equal(found, usual)
    chex.assert_trees_all_equal_dtypes(found, usual)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(UserError, match=f"^seed = {seed}: must be "):
        fit(SMALL, seed)


@pytest.mark.slow
def test_a_run_can_be_compiled_as_a_whole_and_mapped() -> None:
    """One program of all epochs is the same function, up to the rounding of its fusions."""
    seeds = jnp.array([3, 4], jnp.uint32)
    mapped = jax.jit(lambda seeds: jax.lax.map(lambda seed: fit(SMALL, seed), seeds))(seeds)
    for i, seed in enumerate(seeds.tolist()):
        alone = fit(SMALL, seed)
        one = jax.tree.map(lambda x, i=i: x[i], mapped)
        chex.assert_trees_all_equal(one.data, alone.data)
        chex.assert_trees_all_close(one.state, alone.state, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(one.logits, alone.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_network_learns_to_count(seed: int) -> None:
    config = Config(
        TaskConfig(size=1_500, length=6, high=4, threshold=12),
        ModelConfig(cells=16),
        TrainConfig(epochs=20, batch_size=25, learning_rate=1e-2),
    )
    assert task.sum_law(config.task).majority_accuracy < 0.6
    found = fit(config, seed)
    assert found.history.loss[-1] < found.history.loss[0] / 3
    labels = found.data.test.labels
    assert predictions.correct(found.logits[-1], labels).mean() > 0.95
