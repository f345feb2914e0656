import math
import pathlib

import pytest

from sumrnn.devices import cgroup, memory, processor

GB = 10**9
NEW = {  # Nested groups of version 2, of which the inner one lets it use more.
    "own": "0::/job/step",
    "job/step/memory.max": "max",
    "job/step/cpu.max": "1600000 100000",
    "job/memory.max": str(3 * GB),
    "job/cpu.max": "150000 100000",
}
OLD = {  # Version 1 in a container that sees its own groups alone.
    "own": "5:cpu,cpuacct:/docker/4711\n4:memory:/docker/4711\n1:name=systemd:/\n0::/",
    "memory/memory.limit_in_bytes": str(2 * GB),
    "cpu/cpu.cfs_quota_us": "200000",
    "cpu/cpu.cfs_period_us": "100000",
}
FREE = {
    "own": "3:cpu:/\n2:memory:/",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "cpu/cpu.cfs_quota_us": "-1",
    "cpu/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize(
    ("files", "bytes_there", "cores"),
    [(NEW, 3 * GB, 1.5), (OLD, 2 * GB, 2.0), (FREE, 2.0**63, math.inf), ({}, math.inf, math.inf)],
)
def test_the_tightest_limit_counts(
    files: dict[str, str],
    bytes_there: float,
    cores: float,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "own")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert cgroup.memory() == pytest.approx(bytes_there)
    assert cgroup.cores() == cores
    assert processor.core_count() == min(64, math.ceil(min(cores, 64)))
    assert memory.machine_bytes() <= bytes_there
