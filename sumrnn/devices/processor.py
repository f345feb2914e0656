"""The processor: what it is, and which of its cores this process may use.  Without JAX."""

import contextlib
import functools
import math
import os
import pathlib
import platform

from sumrnn.devices import cgroup

CPUINFO = pathlib.Path("/proc/cpuinfo")
NAMES = {
    "vendor_id": "",
    "cpu family": "family ",
    "model": "model ",
    "CPU implementer": "implementer ",
    "CPU part": "part ",
}
"""What compilers tell x86 and ARM apart by, and the words before it."""


@functools.cache
def facts() -> dict[str, str]:
    """What Linux tells of the first core, by Linux's names; nothing elsewhere."""
    values = dict[str, str]()
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            values.setdefault(name.strip(), value.strip())
    return values


def model() -> str:
    """The processor's model, such as "AuthenticAMD family 25 model 17", or its architecture."""
    known = [word + facts()[name] for name, word in NAMES.items() if facts().get(name)]
    return " ".join(known) or platform.machine()


def core_numbers() -> list[int]:
    """The cores that this process may use, as the system counts them; at least one.

    They are as many as a container or a job of Slurm has of them.
    """
    mask = _mask()
    share = os.environ.get("SLURM_CPUS_PER_TASK", "")  # Slurm need not confine its jobs to it.
    count = int(share) if share.isdecimal() else len(mask)
    return mask[: max(1, math.ceil(min(len(mask), count, cgroup.cores())))]


def _mask() -> list[int]:
    """The cores that the system lets this process run on."""
    known = hasattr(os, "sched_getaffinity")  # Not every system can restrict them.
    return sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))


def is_masked() -> bool:
    """Whether `core_numbers` are all cores that this process may run on.

    If not, a quota gives it the time of as many, on whichever of them.
    """
    return core_numbers() == _mask()


def core_count() -> int:
    """The number of cores that this process may use."""
    return len(core_numbers())
