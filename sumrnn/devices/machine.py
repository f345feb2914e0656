"""The machine: its memory and processor, and how much of both this process may use.

JAX is not imported here, so that commands can know the cores before they start it.
"""

import contextlib
import ctypes
import functools
import math
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sumrnn.config import Config
from sumrnn.errors import UserError, invalid

if TYPE_CHECKING:
    import jax

CGROUP_FILE = pathlib.Path("/proc/self/cgroup")
"""Names the control groups of Linux that this process is in."""
CGROUP_ROOT = pathlib.Path("/sys/fs/cgroup")
"""The folder of all control groups, whose limits containers and schedulers set."""
CPUINFO = pathlib.Path("/proc/cpuinfo")
"""Describes the cores of the processor."""
MODEL_FIELDS = {
    "vendor_id": "",
    "cpu family": "family ",
    "model": "model ",
    "CPU implementer": "implementer ",
    "CPU part": "part ",
}
"""Fields of `CPUINFO` by which compilers tell processors of x86 and ARM apart, with a prefix each
for `processor_model`."""
PROCESS_BYTES = 500 << 20
"""Bytes of memory that Python, JAX and the compiler take, whatever is computed."""


def core_numbers() -> list[int]:
    """The numbers of the cores that this process may use, by the system's count; at least one.

    They are as many as the affinity mask, the control group and a job of Slurm allow.
    """
    affinity = _affinity()
    share = os.environ.get("SLURM_CPUS_PER_TASK", "")  # Slurm need not confine its jobs to it.
    count = int(share) if share.isdecimal() else len(affinity)
    return affinity[: max(1, math.ceil(min(len(affinity), count, core_limit())))]


def core_count() -> int:
    """The number of cores that this process may use, at least 1."""
    return len(core_numbers())


def is_bound_to_cores() -> bool:
    """Whether `core_numbers` are all cores that the system lets this process run on.

    Otherwise a quota grants it the time of so many cores, on whichever the system chooses.
    """
    return core_numbers() == _affinity()


def _affinity() -> list[int]:
    """The numbers of the cores that the system lets this process run on."""
    known = hasattr(os, "sched_getaffinity")  # Not every system can restrict them.
    return sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))


def core_limit() -> float:
    """The number of cores whose time the control group grants this process; inf if unlimited."""
    limits = []
    for texts in _cgroup_texts("cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        quota, period = " ".join(texts).split()
        if quota not in ("max", "-1"):
            limits.append(int(quota) / int(period))
    return min(limits, default=math.inf)


def memory_limit() -> float:
    """The bytes of memory that the control group grants this process; inf if unlimited."""
    contents = _cgroup_texts("memory", ["memory.max"], ["memory.limit_in_bytes"])
    return min((float(text) for [text] in contents if text != "max"), default=math.inf)


def _cgroup_texts(controller: str, names: list[str], old_names: list[str]) -> Iterator[list[str]]:
    """The contents of the named files, for this process's control group and all above it.

    In version 1 files have their old names, and each controller has groups of its own.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = CGROUP_FILE.read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, files = (CGROUP_ROOT / controller, old_names) if controllers else (CGROUP_ROOT, names)
        # In a container the path may be that outside of it, of which only the top exists.
        innermost = top / group.lstrip("/")
        for folder in (innermost, *innermost.parents):
            with contextlib.suppress(OSError):
                yield [(folder / name).read_text().strip() for name in files]
            if folder == top:
                break


@functools.cache
def cpuinfo() -> dict[str, str]:
    """The fields of the first core in `CPUINFO`; empty on systems other than Linux."""
    values = dict[str, str]()
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            values.setdefault(name.strip(), value.strip())
    return values


def processor_model() -> str:
    """The processor's model, such as "AuthenticAMD family 25 model 17", or its architecture."""
    fields = cpuinfo()
    known = [prefix + fields[name] for name, prefix in MODEL_FIELDS.items() if fields.get(name)]
    return " ".join(known) or platform.machine()


def memory_bytes() -> float:
    """The bytes of the machine's or the container's memory, whichever is less; inf if unknown."""
    limits = [memory_limit()]
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(limits)


def available_bytes(device: "jax.Device") -> float:
    """The bytes of memory that runs may take on a device; CPU devices share the machine's."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return float(stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0))
    return max(0.0, memory_bytes() - PROCESS_BYTES)


def too_large(config: Config, bytes_needed: float, bytes_available: float) -> UserError:
    """The error for a run that memory does not hold.

    It names the field of the config that is the largest multiple of its default.
    """
    names = ("size", "length", "cells", "batch_size", "batch_shards")
    values, usual = ({**vars(c.task), **vars(c.model), **vars(c.train)} for c in (config, Config()))
    field = max(names, key=lambda name: values[name] / usual[name])
    return invalid(
        field,
        values[field],
        f"small enough for memory: the run needs {bytes_needed / 2**30:,.1f} GiB, of which there "
        f"are {bytes_available / 2**30:,.1f} GiB",
    )


def trim_heap() -> None:
    """Returns freed memory to the system, which glibc would keep for this process.

    The compiler leaves a hundred MiB of it with each program.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # Not every system has glibc.
        ctypes.CDLL(None).malloc_trim(0)
