import math
import os
import pathlib

import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import machine

GB = 10**9
NEW = {  # Nested groups of version 2, of which the inner one lets it use more.
    "groups": "0::/job/step",
    "job/step/memory.max": "max",
    "job/step/cpu.max": "1600000 100000",
    "job/memory.max": str(3 * GB),
    "job/cpu.max": "150000 100000",
}
OLD = {  # Version 1 in a container that sees its own groups alone.
    "groups": "5:cpu,cpuacct:/docker/4711\n4:memory:/docker/4711\n1:name=systemd:/\n0::/",
    "memory/memory.limit_in_bytes": str(2 * GB),
    "cpu/cpu.cfs_quota_us": "200000",
    "cpu/cpu.cfs_period_us": "100000",
}
FREE = {
    "groups": "3:cpu:/\n2:memory:/",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize(
    ("files", "memory", "cores"),
    [(NEW, 3 * GB, 1.5), (OLD, 2 * GB, 2.0), (FREE, 2.0**63, math.inf), ({}, math.inf, math.inf)],
)
def test_the_tightest_limit_counts(
    files: dict[str, str],
    memory: float,
    cores: float,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "CGROUP_FILE", tmp_path / "groups")
    monkeypatch.setattr(machine, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert machine.memory_limit() == pytest.approx(memory)
    assert machine.core_limit() == cores
    assert machine.core_count() == min(64, math.ceil(min(cores, 64)))
    assert machine.memory_bytes() <= memory


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("size", Config(TaskConfig(size=10**6))),
        ("length", Config(TaskConfig(length=10_000))),
        ("cells", Config(model=ModelConfig(cells=16_384))),
        ("batch_size", Config(train=TrainConfig(batch_size=7_200))),
        ("batch_shards", Config(train=TrainConfig(batch_shards=1_024))),
    ],
)
def test_what_memory_does_not_hold_is_named(field: str, config: Config) -> None:
    error = str(machine.too_large(config, 3 * 2**40, 2**33))
    assert error.startswith(f"{field} = ")
    assert "the run needs 3,072.0 GiB, of which there are 8.0 GiB" in error


@pytest.mark.parametrize(("share", "cores"), [("1", 1), ("2", 2), ("64", 3), ("", 3), ("x", 3)])
def test_a_job_of_slurm_uses_its_share_of_the_cores(
    share: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 6}, raising=False)
    monkeypatch.setattr(machine, "core_limit", lambda: math.inf)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", share)
    assert machine.core_count() == cores
    assert machine.core_numbers() == [1, 4, 6][:cores]
    assert machine.is_bound_to_cores() == (cores == 3)  # Else it may be on any of the three.


def test_the_machine_s_memory_is_known() -> None:
    assert 2**28 < machine.memory_bytes() < 2**50
