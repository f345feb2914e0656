"""Whether memory holds a run: what its compiled programs need, beside what there is."""

import contextlib
import ctypes
import os
from typing import Any

import jax

from sumrnn.config import Config
from sumrnn.devices import cgroup
from sumrnn.errors import UserError, invalid

PROCESS_BYTES = 500 << 20
"""Of the machine's memory, for Python, JAX and the compiler, whatever is run."""


def bytes_needed(program: Any) -> int:
    """The bytes that a compiled program takes on a device, as the compiler counts them."""
    sizes = program.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return int(total - sizes.alias_size_in_bytes)


def bytes_returned(program: Any) -> int:
    """The bytes that the results of a compiled program take on a device."""
    return int(program.memory_analysis().output_size_in_bytes)


def available(device: jax.Device) -> float:
    """The bytes that runs may take of a device's memory; CPU devices share the machine's."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return float(stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0))
    return max(0.0, machine_bytes() - PROCESS_BYTES)


def machine_bytes() -> float:
    """The bytes of the machine's or the container's memory, whichever is less; inf if unknown."""
    limits = [cgroup.memory()]
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(limits)


def too_large(config: Config, bytes_needed: float, bytes_available: float) -> UserError:
    """The error for a run that memory does not hold; names the field that is out of proportion."""
    fields = ("size", "length", "cells", "batch_size", "batch_shards")
    values, usual = ({**vars(c.task), **vars(c.model), **vars(c.train)} for c in (config, Config()))
    field = max(fields, key=lambda name: values[name] / usual[name])
    return invalid(
        field,
        values[field],
        f"small enough for memory: the run needs {bytes_needed / 2**30:,.1f} GiB, of which there "
        f"are {bytes_available / 2**30:,.1f} GiB",
    )


def give_back() -> None:
    """Hands memory that is free again back to the system, which glibc would keep for itself.

    The compiler leaves a hundred MiB of it with each program.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # Not every system has glibc.
        ctypes.CDLL(None).malloc_trim(0)
