"""A run has the same bits wherever it is: pure, alone, in any company, on any devices."""

import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import chex
import jax
import jax.export
import numpy as np
import pytest
from jax.sharding import Mesh

from sumrnn.config import Config, ModelConfig
from sumrnn.devices import compiler
from sumrnn.devices.compiler import fit
from sumrnn.devices.mesh import SEED, CompiledFunctions, Plan, prepare
from sumrnn.devices.wave import Start, Wave, fit_many
from sumrnn.errors import UserError
from sumrnn.train.run import Metrics, Result
from sumrnn.train.shards import SHARD, Placement
from tests.conftest import ROOT, SECONDS, SMALL

SCANNED = dataclasses.replace(SMALL, model=ModelConfig(cells=8, recurrence="scan"))
FOUR_SHARDS = dataclasses.replace(
    SMALL,
    train=dataclasses.replace(
        SMALL.train,
        batch_shards=4,
        batch_size=41,
        warmup=0.1,
        decay="cosine",
        clip=1.0,
    ),
)
"""With a padded shard in every batch, a last batch of 21 series, and all that a step can have."""


def plan(devices: int, per_run: int = 1, per_device: int = 1, at_once: bool = False) -> Plan:
    """Seeds on so many devices, each run's shards on `per_run` of them."""
    grid = np.array(jax.devices()[:devices]).reshape(-1, per_run)
    return Plan(Mesh(grid, (SEED, SHARD)), per_device, at_once)


def run(seeds: list[int], placement: Plan, config: Config = SMALL) -> Result:
    compiled, results = CompiledFunctions(config, placement), []
    for first in range(0, len(seeds), placement.wave_size):
        wave = Wave(compiled, config, seeds[first : first + placement.wave_size])
        while wave.epoch < config.train.epochs:
            wave.step()
        results.append(wave.result())
    return compiler.with_names(jax.tree.map(lambda *arrays: np.concatenate(arrays), *results))


def pure(seeds: list[int], config: Config = SMALL) -> Result:
    """The oracle: the function that is a run."""
    results = [jax.device_get(fit(config, seed)) for seed in seeds]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *results)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SMALL, id="two shards"),
        pytest.param(FOUR_SHARDS, id="four shards", marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_bits_of_the_pure_function_wherever_it_is(config: Config) -> None:
    """A sum that is compiled differently rounds differently for some seeds only."""
    assert jax.device_count() == 2
    seeds = list(range(12 if config == SMALL else 4))
    expected = pure(seeds, config)
    placements = (plan(2), plan(2, per_run=2))
    for placement in placements if config == SMALL else placements[1:]:
        chex.assert_trees_all_equal(run(seeds, placement, config), expected)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, SCANNED, FOUR_SHARDS], ids=["fused", "scan", "shards"])
def test_many_runs_have_the_bits_of_the_pure_function(config: Config) -> None:
    seeds = list(range(100, 164))
    expected = pure(seeds, config)
    for placement in (plan(1), plan(2), plan(2, per_run=2)):
        chex.assert_trees_all_equal(run(seeds, placement, config), expected)


@pytest.mark.slow
def test_many_at_once_are_the_same_runs_up_to_rounding() -> None:
    """What a GPU does: vmap inside each device."""
    seeds = [1, 2, 3, 4]
    expected = pure(seeds)
    result = run(seeds, plan(2, per_run=2, per_device=4, at_once=True))
    chex.assert_trees_all_equal(result.data, expected.data)
    chex.assert_trees_all_close(result.logits, expected.logits, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(result.history, expected.history, rtol=1e-3, atol=1e-4)


def test_the_functions_are_lowered_for_accelerators() -> None:
    """As they are made for them, whether or not one is here."""
    functions = compiler.functions(FOUR_SHARDS.canonical, Placement(at_once=True))
    shapes = jax.ShapeDtypeStruct((4, 3), np.uint32), jax.ShapeDtypeStruct((4,), np.uint32)
    data, state, shuffle = jax.eval_shape(jax.vmap(functions.begin), shapes[0])
    arguments = {
        "begin": shapes[:1],
        "epoch": (state, shuffle, data.train, shapes[1]),
        "predict": (state.params, data, shapes[1]),
    }
    for name, args in arguments.items():
        function = jax.jit(jax.vmap(getattr(functions, name)))
        exported = jax.export.export(function, platforms=["cuda", "tpu"])(*args)
        assert exported.platforms == ("cuda", "tpu")
        chex.assert_tree_shape_prefix(exported.out_avals, (4,))


def test_fit_many_has_a_leading_axis_of_seeds_and_shows_every_epoch() -> None:
    seen = []
    result = fit_many(
        SMALL, [9, 8, 7], watch=lambda m: seen.append((m.seeds, m.epoch, m.metrics.loss.shape))
    )
    assert seen == [((9, 8), 1, (2,)), ((9, 8), 2, (2,)), ((7,), 1, (1,)), ((7,), 2, (1,))]
    chex.assert_shape(list(result.history), (3, SMALL.train.epochs))
    chex.assert_tree_shape_prefix(result, (3,))
    chex.assert_trees_all_equal(result, pure([9, 8, 7]))


def test_pinned_seeds_are_those_of_the_pure_function() -> None:
    config = dataclasses.replace(SMALL, data_seed=3, init_seed=4)
    chex.assert_trees_all_equal(fit_many(config, [5, 6]), pure([5, 6], config))


def test_a_wave_goes_on_where_another_one_was() -> None:
    """On other devices, in other company, and to the same bits."""
    first = Wave(CompiledFunctions(SMALL, plan(2)), SMALL, (3, 12))
    moment = first.step()
    history = jax.tree.map(lambda x: x[:, None], moment.metrics)
    start = jax.tree.map(lambda x: x[1:], Start(moment.fetch(), history))
    second = Wave(CompiledFunctions(SMALL, plan(2, per_run=2)), SMALL, (12,), start=start)
    assert second.epoch == 1
    assert second.step().epoch == SMALL.train.epochs
    chex.assert_trees_all_equal(compiler.with_names(second.result()), pure([12]))


def test_a_run_whose_numbers_are_not_finite_is_told_from_the_others() -> None:
    compiled = CompiledFunctions(SMALL, plan(2))
    state = Wave(compiled, SMALL, (3, 4)).step().fetch()
    output = np.array(state.params.output)
    output[1, -1] = np.inf
    state = state._replace(params=state.params._replace(output=output))
    history = Metrics(*np.zeros((4, 2, 1), np.float32))
    moment = Wave(compiled, SMALL, (3, 4), start=Start(state, history)).step()
    assert moment.finite.tolist() == [True, False]


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one for each program that the backend compiles, or finds in the cache."""
    names: list[str] = []

    def note(event: str, seconds: float, **details: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(details.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("seeds", [pytest.param([5], marks=pytest.mark.slow), [5, 6, 7]])
def test_nothing_is_compiled_twice(seeds: list[int], compilations: list[str]) -> None:
    # A config of its own, so that no other test has compiled it.
    config = dataclasses.replace(SMALL, model=ModelConfig(cells=4 + len(seeds)))
    counts = []
    fit_many(config, seeds, watch=lambda _: counts.append(len(compilations)))
    fit_many(config, seeds)
    # The beginning, the epoch, and the predictions; all else is trivial.
    assert set(counts) == {len(compilations)} == {3}


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [2**32]])
def test_impossible_seeds_are_refused(seeds: list[int]) -> None:
    with pytest.raises(UserError, match=r"^seeds = "):
        fit_many(SMALL, seeds)


@pytest.mark.parametrize(
    ("cells", "epochs", "size"),
    [
        pytest.param(200, 1, 800, marks=pytest.mark.slow),
        pytest.param(50, 1, 800, marks=pytest.mark.slow),
        pytest.param(200, 3, 10_000, marks=pytest.mark.slow),
    ],
)
def test_the_bits_do_not_depend_on_the_number_of_cores(
    cells: int, epochs: int, size: int, tmp_path: pathlib.Path
) -> None:
    """Whole processes, with thread pools as on machines of 1 and 16 cores."""
    digests = {}
    for cores in (1, 16):
        out = tmp_path / str(cores)
        options = ("--seed", 12, "--epochs", epochs, "--size", size, "--cells", cells)
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/train.py", "--out", out, *map(str, options)],
            env=os.environ | {"NPROC": str(cores), "OPENBLAS_NUM_THREADS": str(cores)},
            capture_output=True,
            text=True,
            timeout=3 * SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests[cores] = hashlib.sha256((out / "predictions.npz").read_bytes()).hexdigest()
    assert len(set(digests.values())) == 1, digests


def test_memory_of_a_prepared_run_is_what_its_arrays_need() -> None:
    """At least data and state, at most some hundred times as much."""
    arrays = jax.tree.leaves((pure([1]).data, pure([1]).state))
    bare = sum(x.nbytes for x in arrays)
    assert bare < prepare(SMALL, 1).bytes_needed < 1_000 * bare
