"""Where a training step spends its time: kernels of the compiled epoch by kind."""

from __future__ import annotations

import collections
import gzip
import json
import os
import pathlib
import re
import tempfile
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import Column, Program, Row, Tables
from benchmarks.peers import Work
from sumrnn.devices import machine

if TYPE_CHECKING:
    from benchmarks.command import Arguments

KINDS = {
    "matrix products": r"ynn_fusion|dot",
    "filling and copying arrays": r"wrapped_broadcast|copy|transpose|concatenate|.*update-slice",
    "exchange between devices": r"all_gather|all-gather",
    "element by element: gates, their derivatives, Adam": r".*fusion|wrapped_",
}
"""Patterns of the kernels' names, tried in this order."""
STEPS = 20
TABLE = "programs"


def plan(arguments: Arguments) -> tuple[Row, Tables]:
    """The programs: one run, and a run for each core."""
    cores = machine.core_count()
    programs = [
        Program("one run", harness.call("profile.shares", seeds=1)),
        Program(f"{cores} seeds at once", harness.call("profile.shares", seeds=cores)),
    ]
    return {}, {TABLE: programs}


def shares(seeds: int) -> Row:
    """The share of the kernels' time by kind, in an epoch of `STEPS` steps of the exercise."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_xprof_traceme=true"
    import jax

    import sumrnn

    with tempfile.TemporaryDirectory() as folder:

        def watch(moment: Any) -> None:
            """Traces the second epoch, after that which compiles."""
            if moment.epoch == 1:
                jax.profiler.start_trace(folder)
            else:
                jax.profiler.stop_trace()

        sumrnn.use_cores()
        work = Work(size=Work().batch_size * STEPS)
        sumrnn.fit_many(work.config(epochs=2), range(seeds), watch=watch)
        (file,) = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        # What calls other kernels has no kind.
        kinds = (kind for kind, pattern in KINDS.items() if re.match(pattern, event["name"]))
        if event.get("ph") == "X" and (kind := next(kinds, None)):
            spent[kind] += event["dur"]
    return {kind: spent[kind] / spent.total() for kind in KINDS}


def page(results: Row) -> str:
    """The table, with what it needs to be understood."""
    columns = [Column("program", "label"), *(Column(kind, kind, ".0%") for kind in KINDS)]
    return harness.page(
        results,
        "Where a training step spends its time",
        """Shares of the kernels' time, by JAX's profiler. Watching every kernel slows the short
        ones, so that the shares, not the times, are what to read.""",
        harness.table(columns, results["tables"][TABLE]),
    )
