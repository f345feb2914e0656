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
from collections.abc import Sequence

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_xprof_traceme=true"

import jax

from benchmarks import table
from benchmarks.table import Column
from benchmarks.work import Work
from sumrnn.devices import mesh
from sumrnn.devices.wave import Wave

KINDS = {
    "matrix products": r"ynn_fusion|dot",
    "filling and copying arrays": r"wrapped_broadcast|copy|transpose|concatenate|.*update-slice",
    "exchange between devices": r"all_gather|all-gather",
    "element by element: gates, their derivatives, Adam": r".*fusion|wrapped_",
}
"""Patterns of the kernels' names, tried in this order."""
STEPS = 20


def shares(seeds: Sequence[int]) -> dict[str, float]:
    """Share of the kernels' time by kind, in an epoch of `STEPS` steps of the exercise's size."""
    config = Work(size=Work.batch_size * STEPS).config()
    wave = Wave(mesh.prepare(config, len(seeds)), config, seeds)
    wave.step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            wave.step()
        (file,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        # What calls other kernels has no kind.
        kinds = (kind for kind, pattern in KINDS.items() if re.match(pattern, event["name"]))
        if event.get("ph") == "X" and (kind := next(kinds, None)):
            spent[kind] += event["dur"]
    return {kind: spent[kind] / spent.total() for kind in KINDS}


def main() -> None:
    """Prints the shares of one run and of a batch of seeds."""
    mesh.use_cores()
    several = jax.device_count()
    one, many = shares([0]), shares(range(several))
    columns = [Column("kernels", "kind"), Column("one run", "one", 0, is_share=True)]
    columns.append(Column(f"{several} seeds at once", "many", 0, is_share=True))
    rows = [{"kind": kind, "one": one[kind], "many": many[kind]} for kind in KINDS]
    print(table.markdown(columns, rows), end="")


if __name__ == "__main__":
    main()
