"""What computes, and whether others are at work on it."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import time
from typing import Any

from sumrnn.devices import processor

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}
"""Names of vector instructions by the flags of Linux, the widest first."""

MODEL = ("cpu family", "model")
"""Of x86, where clouds hide the name of what they sell."""


def here() -> dict[str, Any]:
    """The processor by name, model and vector instructions, its cores, and the system."""
    known = processor.facts()
    words = [known.get("model name") or platform.processor() or platform.machine()]
    words += [f"{part.removeprefix('cpu ')} {known[part]}" for part in MODEL if part in known]
    flags = f"{known.get('flags', '')} {known.get('Features', '')}".split()
    words += [vectors for flag, vectors in VECTORS.items() if flag in flags][:1]
    return {"processor": ", ".join(words), "cores": processor.cores(), "system": platform.system()}


def folder() -> str:
    """A name for the results of such a machine: processor, model, vectors and cores."""
    found = here()
    words = f"{found['processor']} {found['cores']} cores".lower()
    return "-".join(re.findall(r"[a-z0-9]+", words.replace("avx-512", "avx512")))


class Idle:
    """Waits, and counts the cores that are busy meanwhile."""

    def __init__(self) -> None:
        self.waited, self._spent = 0.0, 0.0

    def wait(self, seconds: float) -> None:
        """While nothing of this benchmark is at work."""
        before, began = _busy(), time.perf_counter()
        time.sleep(seconds)
        self._spent += _busy() - before
        self.waited += time.perf_counter() - began

    @property
    def cores(self) -> float | None:
        """Busy on average while it waited; None where the system does not tell."""
        return self._spent / self.waited if _busy() and self.waited else None


def _busy() -> float:
    """Seconds of processor time since the machine began, of all cores; 0 if not told."""
    try:
        first, *_ = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:  # Not Linux.
        return 0.0
    user, nice, system, _, _, *others = map(int, first.split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
