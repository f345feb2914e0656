"""Where a training step spends its time: python -m benchmarks.profile

Kernels of the compiled epoch by kind, from JAX's profiler.  Watching every kernel slows the
short ones, so that the shares, not the times, are what to read.
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_xprof_traceme=true"

import jax

from benchmarks import table
from sumrnn import placement
from sumrnn.config import Config, TaskConfig, TrainConfig

KINDS = {
    "matrix products": r"ynn_fusion|dot",
    "filling and copying arrays": r"wrapped_broadcast|copy|transpose|concatenate|.*update-slice",
    "exchange between devices": r"all_gather|all-gather",
    "element by element: gates, their derivatives, Adam": r".*fusion|wrapped_",
}
"""Patterns of the kernels' names, tried in this order."""
STEPS = 20


def shares(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Share of the kernels' time by kind; what calls other kernels is not counted."""
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        for kind, pattern in KINDS.items():
            if event.get("ph") == "X" and re.match(pattern, event["name"]):
                spent[kind] += event["dur"]
                break
    return {kind: spent[kind] / spent.total() for kind in KINDS}


def record(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The profiler's events of an epoch of `STEPS` steps of the exercise's size."""
    size = 50 * STEPS + 2
    task = TaskConfig(size=size, test_fraction=1 / size, validation_fraction=1 / (size - 1))
    with tempfile.TemporaryDirectory() as folder:

        def watch(moment: placement.Moment) -> None:
            if moment.epoch == 1:  # It compiled.
                jax.profiler.start_trace(folder)
            else:
                jax.profiler.stop_trace()

        placement.fit(Config(task, train=TrainConfig(epochs=2)), seeds, watch=watch)
        (file,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events: list[dict[str, Any]] = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        return events


def main() -> None:
    """Prints the shares of one run and of a batch of seeds."""
    placement.use_cores()
    found = [shares(record(range(seeds))) for seeds in (1, jax.device_count())]
    columns = ("kernels", "one run", f"{jax.device_count()} seeds at once")
    lines = [[kind, *(f"{100 * part[kind]:.0f} %" for part in found)] for kind in KINDS]
    print(table.markdown(columns, lines), end="")


if __name__ == "__main__":
    main()
