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
    """What Linux tells of the first core, by its own names; nothing elsewhere."""
    found = dict[str, str]()
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found


def model() -> str:
    """Such as "AuthenticAMD family 25 model 17"; the architecture if nothing is told."""
    known = [word + facts()[name] for name, word in NAMES.items() if facts().get(name)]
    return " ".join(known) or platform.machine()


def numbers() -> list[int]:
    """The cores that this process may use, as the system counts them; at least one.

    They are as many as a container or a job of Slurm has of them.
    """
    here = _mask()
    share = os.environ.get("SLURM_CPUS_PER_TASK", "")  # Slurm need not confine its jobs to it.
    given = int(share) if share.isdecimal() else len(here)
    return here[: max(1, math.ceil(min(len(here), given, cgroup.cores())))]


def _mask() -> list[int]:
    """The cores that the system lets this process run on."""
    known = hasattr(os, "sched_getaffinity")  # Not every system can restrict them.
    return sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))


def is_masked() -> bool:
    """Whether `numbers` are all cores that this process may run on.

    If not, a quota gives it the time of as many, on whichever of them.
    """
    return numbers() == _mask()


def cores() -> int:
    """How many cores this process may use."""
    return len(numbers())
