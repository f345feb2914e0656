import dataclasses
import hashlib
import math
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sumrnn import placement, runs, train
from sumrnn.config import Config, ConfigError, ModelConfig
from tests.conftest import ROOT, SECONDS, SMALL

SCANNED = dataclasses.replace(SMALL, model=ModelConfig(cells=8, recurrence="scan"))
FOUR_SHARDS = dataclasses.replace(
    SMALL, train=dataclasses.replace(SMALL.train, batch_shards=4, batch_size=41)
)
"""With a padded shard in every batch, and a last batch of 21 series."""


def plan(
    devices: int, per_device: int = 1, at_once: bool = False, per_run: int = 1
) -> placement.Plan:
    """Seeds on so many devices, each run's shards on `per_run` of them."""
    used = np.array(jax.devices()[:devices]).reshape(-1, per_run)
    return placement.Plan(Mesh(used, (placement.SEED, placement.SHARD)), per_device, at_once)


def with_shards(shards: int) -> Config:
    return dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, batch_shards=shards))


def run(seeds: list[int], where: placement.Plan, config: Config = SMALL) -> placement.Batch:
    cut = placement.waves(seeds, where)
    assert [len(mine) for mine in cut[:-1]] == [where.wave] * (len(cut) - 1)
    found = []
    for mine in cut:
        wave = placement.Wave(config, mine, where)
        while wave.epoch < config.train.epochs:
            wave.step()
        found.append(wave.result()[1:])
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return placement.Batch(tuple(seeds), *joined)


def of_seed(batch: placement.Batch, seed: int) -> chex.ArrayTree:
    return jax.tree.map(lambda x: x[batch.seeds.index(seed)], batch[1:])


@pytest.mark.parametrize("config", [SMALL, SCANNED, FOUR_SHARDS], ids=["fused", "scan", "shards"])
def test_a_seed_has_the_same_bits_wherever_it_runs(config: Config) -> None:
    """Alone and in any company, on one device and on two, one or more per device or per run."""
    assert jax.device_count() == 2
    alone = of_seed(run([12], plan(1), config), 12)
    places = [([12], plan(2, per_run=2)), ([5, 12, 3], plan(2, per_device=2, per_run=2))]
    if config == SMALL:
        places += [([5, 4, 3, 2, 12], plan(2)), ([5, 12, 3, 2, 1], plan(2, per_device=2))]
    for seeds, where in places:
        chex.assert_trees_all_equal(of_seed(run(seeds, where, config), 12), alone)


def test_no_seed_tells_how_many_devices_its_shards_had() -> None:
    """A sum that is compiled differently rounds differently for some seeds only."""
    seeds = list(range(16))
    alone, spread = run(seeds, plan(1)), run(seeds, plan(2, per_run=2))
    chex.assert_trees_all_equal(spread, alone)


def test_it_is_the_run_that_the_pure_functions_make() -> None:
    batch = placement.fit(SMALL, [3, 4, 5])
    for seed in (3, 5):
        keys = train.keys(SMALL, seed)
        data, state = train.make_data(SMALL, keys.data), train.init(SMALL, keys.init)
        for number in range(SMALL.train.epochs):
            state, metrics = train.epoch(SMALL, state, keys.shuffle, data, number)
        found_state, history, found_data, logits = of_seed(batch, seed)
        chex.assert_trees_all_equal(found_data, data)
        chex.assert_trees_all_close(found_state, state, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose([x[-1] for x in history], list(metrics), rtol=1e-4)
        expected = train.predictions(SMALL, state.params, data)
        chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_shapes_have_a_leading_axis_of_seeds() -> None:
    batch = placement.fit(SMALL, [9, 8, 7])
    assert batch.seeds == (9, 8, 7)
    chex.assert_shape(list(batch.history), (3, SMALL.train.epochs))
    chex.assert_type(list(batch.history), np.float32)
    for part, logits in zip(batch.data, batch.logits, strict=True):
        chex.assert_shape(logits, part.labels.shape)
        assert part.digits.shape[0] == 3
    chex.assert_tree_shape_prefix(batch.state, (3,))


def test_many_at_once_are_the_same_runs_up_to_rounding() -> None:
    """What a GPU does: vmap inside each device."""
    # vmap and shard_map of a whole run hang on some versions; mapped alone they must not.
    one_by_one, at_once = run([1, 2, 3, 4], plan(2, 2)), run([1, 2, 3, 4], plan(2, 2, True))
    chex.assert_trees_all_equal(at_once.data, one_by_one.data)
    chex.assert_trees_all_close(at_once.logits, one_by_one.logits, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(at_once.history, one_by_one.history, rtol=1e-3, atol=1e-4)
    halved = run([1, 2, 3, 4], plan(2, 2, True, per_run=2))
    chex.assert_trees_all_close(halved.logits, one_by_one.logits, rtol=1e-3, atol=1e-4)


def test_the_plan_fits_the_seeds() -> None:
    assert dict(placement.plan(1, SMALL).mesh.shape) == {"seed": 1, "shard": 2}
    assert dict(placement.plan(2, SMALL).mesh.shape) == {"seed": 2, "shard": 1}
    assert dict(placement.plan(1, with_shards(3)).mesh.shape) == {"seed": 1, "shard": 1}
    assert placement.plan(1, SMALL).wave == 1
    assert placement.plan(5, SMALL).wave == 2
    assert placement.plan(5, SMALL, per_device=2).wave == 4
    assert placement.plan(3, SMALL, per_device=100).wave == 4
    with pytest.raises(ConfigError, match="per_device = 0: must be at least 1"):
        placement.plan(3, SMALL, per_device=0)


def test_watch_sees_every_epoch_of_every_wave() -> None:
    seen = []
    placement.fit(
        SMALL, [1, 2, 3], watch=lambda m: seen.append((m.seeds, m.epoch, m.metrics.loss.shape))
    )
    assert seen == [((1, 2), 1, (2,)), ((1, 2), 2, (2,)), ((3,), 1, (1,)), ((3,), 2, (1,))]


def test_a_wave_goes_on_where_another_one_was() -> None:
    """On other devices, in other company, and to the same bits."""
    whole = run([12, 3], plan(2))
    first = placement.Wave(SMALL, (3, 12), plan(1, per_device=2))
    moment = first.step()
    state, shuffle = moment.fetch()
    history = jax.tree.map(lambda x: x[:, None], moment.metrics)
    start = jax.tree.map(lambda x: x[1:], placement.Start(state, shuffle, history))
    second = placement.Wave(SMALL, (12,), plan(2, per_run=2), start)
    assert second.epoch == 1
    assert second.step().epoch == SMALL.train.epochs
    chex.assert_trees_all_equal(of_seed(second.result(), 12), of_seed(whole, 12))


@pytest.mark.parametrize("where", ["params", "second moment"])
def test_numbers_that_are_not_finite_are_seen_in_their_run(where: str) -> None:
    first = placement.Wave(SMALL, (3, 4), plan(2))
    state, shuffle = first.step().fetch()
    broken = state.params if where == "params" else state.opt_state[0].nu
    leaf = np.array(broken["output"]["bias"])
    leaf[1] = np.inf
    broken["output"]["bias"] = leaf
    history = train.Metrics(*np.zeros((4, 2, 1), np.float32))
    moment = placement.Wave(SMALL, (3, 4), plan(2), placement.Start(state, shuffle, history)).step()
    assert moment.finite.tolist() == [True, False]
    # Adam divides by an infinite second moment: the losses show nothing of it.
    assert np.isfinite(moment.metrics.val_loss).tolist() == [True, where != "params"]


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one for each program that the backend compiles."""
    found: list[str] = []

    def note(event: str, seconds: float, **details: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(str(details.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield found
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("seeds", [[5], [5, 6, 7]], ids=["one run on two devices", "two waves"])
def test_nothing_is_compiled_twice(seeds: list[int], compilations: list[str]) -> None:
    # A config of its own, so that no other test has compiled it.
    config = dataclasses.replace(SMALL, model=ModelConfig(cells=4 + len(seeds)))
    counts = []
    placement.fit(config, seeds, watch=lambda *_: counts.append(len(compilations)))
    first, *later = counts
    assert first > 0
    assert later[0] == first, compilations
    if len(seeds) == 3:  # Prediction follows the first wave; the second has all it needs.
        assert later[1] == later[2] == len(compilations), compilations
    placement.fit(config, seeds)
    assert len(compilations) == (later[-1] if len(seeds) == 3 else first + 1), compilations


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [2**32]])
def test_impossible_seeds_are_refused(seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"^seeds = "):
        placement.fit(SMALL, seeds)


NETWORKS = {"exercise": (), "quarter": ("--cells", "50")}
"""Names of the networks whose bits are compared, and their options."""


@pytest.mark.parametrize(
    ("network", "epochs", "size"),
    [
        ("exercise", 1, 800),
        pytest.param("quarter", 1, 800, marks=pytest.mark.slow),
        pytest.param("exercise", 3, 10_000, marks=pytest.mark.slow),
    ],
)
def test_the_bits_do_not_depend_on_the_number_of_cores(
    network: str, epochs: int, size: int, tmp_path: pathlib.Path
) -> None:
    """Whole processes, with thread pools as on machines of 1, 2 and 16 cores."""
    found = {}
    for cores in (1, 2, 16):
        out = tmp_path / str(cores)
        options = ("--seed", 12, "--epochs", epochs, "--size", size, *NETWORKS[network])
        done = subprocess.run(
            [
                *("env", f"NPROC={cores}", f"OPENBLAS_NUM_THREADS={cores}"),
                *(sys.executable, ROOT / "scripts/train.py", "--out", out),
                *map(str, options),
            ],
            capture_output=True,
            text=True,
            timeout=3 * SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        predictions = (out / runs.PREDICTIONS).read_bytes()
        found[cores] = hashlib.sha256(predictions).hexdigest()
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("devices", [0, 10**6, 10**20])
def test_devices_must_be_positive_and_not_too_many(devices: int) -> None:
    with pytest.raises(ConfigError, match=f"devices = {devices}: must be at least 1, at most"):
        placement.use_cores(devices)


@pytest.mark.parametrize(
    ("field", "cluster"),
    [
        ("coordinator", ("localhost:٣٣", 1, 0)),
        ("coordinator", ("\udcff:1", 1, 0)),
        ("coordinator", ("localhost", 1, 0)),
        ("processes", ("localhost:1", 10**20, 0)),
        ("process_id", ("localhost:1", 2, 2)),
    ],
)
def test_what_would_end_the_runtime_is_refused(field: str, cluster: tuple[str, int, int]) -> None:
    with pytest.raises(ConfigError, match=f"^{field} = "):
        placement.join(*cluster)


def changed(**changes: float) -> Config:
    """The exercise with some fields changed, whichever part they are in."""
    parts = {name: getattr(Config(), name) for name in ("task", "model", "train")}
    return Config(
        **{
            name: dataclasses.replace(
                part, **{field: changes[field] for field in changes if hasattr(part, field)}
            )
            for name, part in parts.items()
        }
    )


@pytest.mark.parametrize(
    ("changes", "at_once", "mebibytes"),
    # Peaks of processes on CPU, less the 500 MiB that the smallest run takes.
    [
        ({"size": 4_000_000, "cells": 1, "batch_size": 100_000}, False, 2_711),
        ({"size": 6_000, "batch_size": 4_000}, False, 563),
        ({"size": 6_000, "batch_size": 4_000, "batch_shards": 1}, False, 1_151),
        ({"size": 100, "length": 5, "threshold": 20, "cells": 1_600, "batch_size": 10}, False, 642),
        (
            {
                "size": 100,
                "length": 5,
                "threshold": 20,
                "cells": 800,
                "batch_size": 10,
                "batch_shards": 32,
            },
            False,
            693,
        ),
        ({"size": 4_000, "length": 2_000, "cells": 20, "batch_size": 1_000}, False, 883),
    ],
)
def test_the_memory_of_a_run_is_about_what_was_measured(
    changes: dict[str, float], at_once: bool, mebibytes: int
) -> None:
    estimate = sum(placement.memory_of_a_run(changed(**changes), at_once).values())
    assert 0.9 < estimate / 2**20 / mebibytes < 2


def test_shards_at_once_take_more_memory() -> None:
    one, all_ = (placement.memory_of_a_run(Config(), at_once) for at_once in (False, True))
    assert all_["batch_size"] == 2 * one["batch_size"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 60_000_000}, "size"),
        ({"size": 200_000, "length": 10_000}, "length"),
        ({"size": 1_000_000, "batch_size": 500_000}, "batch_size"),
        ({"cells": 16_384}, "cells"),
        ({"cells": 1_000, "batch_shards": 1_024}, "batch_shards"),
    ],
)
def test_what_memory_does_not_hold_is_refused_before_compiling(
    changes: dict[str, float],
    field: str,
    monkeypatch: pytest.MonkeyPatch,
    compilations: list[str],
) -> None:
    monkeypatch.setattr(placement, "machine_memory", lambda: 16 * 2.0**30)
    pattern = rf"^{field} = {changes[field]}: must be small enough for memory: the run needs about "
    with pytest.raises(ConfigError, match=pattern + r"[\d,.]+ GiB, this machine has 15.5 GiB"):
        placement.fit(changed(**changes), [1])
    assert compilations == []


def test_only_as_many_devices_work_as_memory_holds_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(placement.memory_of_a_run(SMALL, at_once=False).values())
    for runs_held, devices in ((1.5, 1), (2.5, 2)):
        memory = placement.PROCESS_BYTES + runs_held * needed
        monkeypatch.setattr(placement, "machine_memory", lambda memory=memory: memory)
        assert placement.plan(5, SMALL).mesh.size == devices
    monkeypatch.setattr(placement, "machine_memory", lambda: 0.0)
    with pytest.raises(ConfigError, match=r"this machine has 0\.0 GiB"):
        placement.plan(1, SMALL)


@pytest.mark.parametrize(
    ("text", "limit"), [("1048576\n", 2**20), ("max\n", math.inf), (None, math.inf)]
)
def test_a_container_may_have_less_memory_than_the_machine(
    text: str | None, limit: float, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(placement, "CGROUP_LIMITS", ())
    machine = placement.machine_memory()
    assert machine > 2**20
    if text is not None:
        (tmp_path / "limit").write_text(text)
    monkeypatch.setattr(placement, "CGROUP_LIMITS", (str(tmp_path / "limit"),))
    assert placement.machine_memory() == min(machine, limit)
