import dataclasses

import jax
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import compiler, machine, mesh
from sumrnn.errors import UserError
from tests.conftest import SMALL


def test_the_plan_fits_the_seeds() -> None:
    assert dict(mesh.plan(1, shards=2).mesh.shape) == {"seed": 1, "shard": 2}
    assert dict(mesh.plan(2, shards=2).mesh.shape) == {"seed": 2, "shard": 1}
    assert dict(mesh.plan(1, shards=3).mesh.shape) == {"seed": 1, "shard": 1}
    assert dict(mesh.plan(5, shards=2, rows=1).mesh.shape) == {"seed": 1, "shard": 2}
    assert mesh.plan(1, shards=2).wave_size == 1
    # A CPU device takes one seed at a time, whatever is asked.
    assert mesh.plan(5, shards=2, per_device=2).wave_size == 2


@pytest.mark.slow
def test_compiled_functions_are_kept_for_conditions_that_differ_in_their_seeds() -> None:
    assert mesh.prepare(SMALL, 2) is mesh.prepare(dataclasses.replace(SMALL, data_seed=1), 3)


@pytest.mark.parametrize("per_device", [0, -1])
def test_seeds_per_device_must_be_positive(per_device: int) -> None:
    with pytest.raises(UserError, match=f"per_device = {per_device}: must be at least 1"):
        mesh.prepare(SMALL, 3, per_device)


@pytest.mark.parametrize("devices", [0, 10**6, 10**20])
def test_devices_must_be_positive_and_not_too_many(devices: int) -> None:
    with pytest.raises(UserError, match=f"devices = {devices}: must be between 1 and 4096"):
        mesh.use_cores(devices)


def test_devices_cannot_be_made_when_jax_has_begun() -> None:
    mesh.use_cores(jax.local_device_count())  # It has begun alike.
    with pytest.raises(UserError, match=r"^devices = 7: must be asked for before JAX computes"):
        mesh.use_cores(7)


def test_without_compiling_nothing_can_be_placed() -> None:
    with jax.disable_jit(), pytest.raises(UserError, match=r"^jax_disable_jit = True: must be Fa"):
        mesh.CompiledFunctions(SMALL, mesh.plan(1, 2))


@pytest.mark.slow
def test_fewer_devices_are_used_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    on_two = mesh.prepare(SMALL, 2)
    assert on_two.plan.rows == 2
    monkeypatch.setattr(machine, "available_bytes", lambda device: on_two.bytes_needed - 1)
    on_one = mesh.prepare(SMALL, 2)
    assert (on_one.plan.rows, on_one.plan.wave_size) == (1, 1)
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10.0)
    with pytest.raises(UserError, match=r"small enough for memory: the run needs 0\.0"):
        mesh.prepare(SMALL, 2)


@pytest.mark.slow
def test_seeds_that_a_device_does_not_hold_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a GPU, whose seeds are computed at once."""
    single = mesh.plan(1, shards=1).mesh
    monkeypatch.setattr(mesh, "plan", lambda *_, **__: mesh.Plan(single, 4, at_once=True))
    assert mesh.prepare(SMALL, 4, per_device=4).plan.wave_size == 4
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10.0)
    with pytest.raises(UserError, match=r"^per_device = 4: must be fewer seeds: a device"):
        mesh.prepare(SMALL, 4, per_device=4)


def test_memory_counts_exact_evaluation_before_a_run_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = mesh.prepare(SMALL, 2)
    needed, kept = compiler.peak_bytes, compiler.output_bytes(compiled.begin)
    bound = 2 * (kept + compiled.max_draw_bytes)
    del compiled.bytes_needed  # It is kept.
    assert compiled.bytes_needed >= bound
    large = 10**12

    def at_the_end(function: object) -> int:
        return large if function is compiled.draw else needed(function)

    monkeypatch.setattr(compiler, "peak_bytes", at_the_end)
    for limit, counted in ((mesh.TRUSTED_BYTES, False), (0, True)):
        monkeypatch.setattr(mesh, "TRUSTED_BYTES", limit)
        del compiled.bytes_needed
        assert (compiled.bytes_needed > large) == counted
    del compiled.bytes_needed


WIDE = TaskConfig(size=20_000, length=10, high=200, threshold=900)
LONG = TaskConfig(size=100, length=1_300, threshold=3_000)


@pytest.mark.slow
@pytest.mark.parametrize("task", [SMALL.task, WIDE, LONG], ids=["small", "wide", "long"])
def test_what_exact_evaluation_needs_is_known_before_it_is_compiled(task: TaskConfig) -> None:
    """Of wide digits and long series it needs more than all before it."""
    config = Config(task, ModelConfig(cells=2), TrainConfig(epochs=1, batch_size=50))
    compiled = mesh.prepare(config, 2)
    drawn = compiler.peak_bytes(compiled.draw)
    before = max(map(compiler.peak_bytes, (compiled.begin, compiled.epoch, compiled.predict)))
    assert compiled.bytes_needed >= 2 * max(drawn, before)
    assert drawn <= compiled.max_draw_bytes
    if task is not SMALL.task:
        assert drawn > before
        assert drawn < 2 * compiled.log_pmfs.nbytes + 2**26  # One table for all seeds.
