"""What Linux lets this process's control group use, as containers and schedulers set it."""

import contextlib
import math
import pathlib
from collections.abc import Iterator

MEMBERSHIP = pathlib.Path("/proc/self/cgroup")
"""Names the groups that this process is in."""
ROOT = pathlib.Path("/sys/fs/cgroup")
"""Where the groups are."""


def memory() -> float:
    """The bytes of memory that this process may use; inf if there is no limit."""
    limits = [texts[0] for texts in _read("memory", ["memory.max"], ["memory.limit_in_bytes"])]
    return min((float(text) for text in limits if text != "max"), default=math.inf)


def cores() -> float:
    """The number of cores whose time this process may use; inf if there is no limit."""
    limits = []
    for texts in _read("cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        quota, period = " ".join(texts).split()
        if quota not in ("max", "-1"):
            limits.append(int(quota) / int(period))
    return min(limits, default=math.inf)


def _read(controller: str, names: list[str], old_names: list[str]) -> Iterator[list[str]]:
    """The content of files of this process's group and of all groups above it.

    They have other names in version 1, where each controller has groups of its own.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = MEMBERSHIP.read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, wanted = (ROOT / controller, old_names) if controllers else (ROOT, names)
        # In a container the path may be that outside of it, of which only the top is there.
        innermost = top / group.lstrip("/")
        for folder in (innermost, *innermost.parents):
            with contextlib.suppress(OSError):
                yield [(folder / name).read_text().strip() for name in wanted]
            if folder == top:
                break
