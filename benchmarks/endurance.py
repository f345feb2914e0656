"""What it costs that nothing is lost: the time of checkpoints, and a long run's memory and pace."""

from __future__ import annotations

import itertools
from statistics import median
from typing import Any

from benchmarks import process, table
from benchmarks.table import Column
from benchmarks.whole import train_py
from benchmarks.work import Work

TINY = ("--size", 500, "--length", 6, "--high", 4, "--threshold", 12, "--cells", 8)
"""The network of the long run."""
OFTEN = ("--checkpoint-every", 50)
PARTS = 10
"""Of the long run, in the table; fewer, if it has fewer epochs."""
SAMPLE = 40
"""Epochs between looks at the memory; fewer, if the parts have fewer."""


def measure(work: Work, epochs: int, repetitions: int, limit: float) -> dict[str, Any]:
    """So many checkpoints beside epochs of the work, and a long run; what JSON shall hold of it.

    Raises `UserError` if a process fails, or takes longer than the limit.
    """
    cost = process.once("checkpoints", limit, "cost", work=work, repetitions=repetitions)
    print(f"epoch {cost['epoch']:.3f} s  checkpoint {1e3 * cost['checkpoint']:.0f} ms", flush=True)
    sample = max(1, min(SAMPLE, epochs // PARTS))
    command = train_py(*TINY, *OFTEN, "--seed", work.seed, "--epochs", epochs)
    ran = process.once("long run", limit, "run", command=command, sample=sample)
    seconds, memory = ran["epochs"], ran["memory"]
    print(f"{epochs} epochs  {sum(seconds):.1f} s", flush=True)
    bounds = sorted({epochs * k // PARTS for k in range(PARTS + 1)})
    parts = []
    for first, last in itertools.pairwise(bounds):
        looks = [mebibytes for epoch, mebibytes in memory if first < epoch <= last]
        parts.append(
            {
                "epochs": [first + 1, last],
                "seconds": median(seconds[first:last]),
                "mean_seconds": sum(seconds[first:last]) / (last - first),
                "memory_mib": median(looks) if looks else None,
            }
        )
    return {"cost": cost, "parts": parts, "seconds": seconds, "memory": memory}


COLUMNS = (
    Column("epochs", "epochs"),
    Column("s per epoch, median", "seconds", 5),
    Column("mean", "mean_seconds", 5),
    Column("memory, MiB, median", "memory_mib", 1),
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    lines = [part | {"epochs": "{:,} to {:,}".format(*part["epochs"])} for part in found["parts"]]
    return table.page(found, COLUMNS, lines, tiny=" ".join(map(str, TINY + OFTEN)))
