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


def needed(program: Any) -> int:
    """Bytes that a compiled program takes on a device, as the compiler counts them."""
    found = program.memory_analysis()
    parts = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return int(sum(parts) - found.alias_size_in_bytes)


def returned(program: Any) -> int:
    """Bytes that the results of a compiled program take on a device."""
    return int(program.memory_analysis().output_size_in_bytes)


def there(device: jax.Device) -> float:
    """Bytes that runs may take of a device's memory; CPU devices share the machine's."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return float(stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0))
    return max(0.0, of_machine() - PROCESS_BYTES)


def of_machine() -> float:
    """Bytes of the machine's or the container's memory, whichever is less; inf if not told."""
    found = [cgroup.memory()]
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return min(found)


def too_large(config: Config, bytes_needed: float, bytes_there: float) -> UserError:
    """The error for a run that memory does not hold; names the field that is out of proportion."""
    fields = ("size", "length", "cells", "batch_size", "batch_shards")
    values, usual = (
        {**vars(of.task), **vars(of.model), **vars(of.train)} for of in (config, Config())
    )
    field = max(fields, key=lambda name: values[name] / usual[name])
    return invalid(
        field,
        values[field],
        f"small enough for memory: the run needs {bytes_needed / 2**30:,.1f} GiB, of which there "
        f"are {bytes_there / 2**30:,.1f} GiB",
    )


def give_back() -> None:
    """Hands memory that is free again back to the system, which glibc would keep for itself.

    The compiler leaves a hundred MiB of it with each program.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # Not every system has glibc.
        ctypes.CDLL(None).malloc_trim(0)
