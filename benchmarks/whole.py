"""The whole exercise as a process, from start to end: this package and the notebook's way."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks import process, table
from sumrnn.config import TrainConfig

NOTEBOOK = "Keras on TensorFlow, the notebook"
NEEDS = ("keras", "tensorflow")


def commands(seed: int, epochs: int, shards: int) -> dict[str, list[str]]:
    """What is run, by label; `shards` adds a program where it is not the default."""
    train = [sys.executable, str(process.ROOT / "scripts" / "train.py"), "--overwrite"]
    train += ["--seed", str(seed), "--epochs", str(epochs), "--out", "run"]
    default = TrainConfig().batch_shards
    found = {f"sumrnn, train.py, batch_shards {default} (default)": train}
    if shards != default:
        found[f"sumrnn, train.py, batch_shards {shards}"] = [*train, "--batch-shards", str(shards)]
    notebook = str(process.ROOT / "benchmarks" / "notebook.py")
    return found | {
        NOTEBOOK: [sys.executable, notebook, "--epochs", str(epochs), "--out", "confusion.png"]
    }


def measure(
    asked: Mapping[str, list[str]],
    repetitions: int,
    limit: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs the programs in turn, again and again.

    Args:
      asked: as from `commands`.
      repetitions: of all.
      limit: seconds for a process.
      say: is told a line for each round.

    Returns:
      What JSON shall hold of it.

    Raises:
      Failed: if a process fails.
    """
    missing = any(importlib.util.find_spec(package) is None for package in NEEDS)
    present = [label for label in asked if label != NOTEBOOK or not missing]
    measured: dict[str, list[dict[str, float]]] = {label: [] for label in present}
    for number in range(repetitions):
        for label in present:
            with tempfile.TemporaryDirectory() as folder:
                done = process.run(label, asked[label], pathlib.Path(folder), limit)
            measured[label].append(done)
        seconds = "  ".join(f"{label}: {measured[label][-1]['seconds']:.1f} s" for label in present)
        say(f"round {number + 1}/{repetitions}  {seconds}")
    reference = [done["seconds"] for done in measured[present[0]]]
    rows = [
        {"label": label, "installed": label in measured}
        | (_numbers(measured[label], reference) if label in measured else {})
        for label in asked
    ]
    return {"repetitions": repetitions, "rows": rows}


def _numbers(done: Sequence[Mapping[str, float]], reference: Sequence[float]) -> dict[str, Any]:
    seconds = [one["seconds"] for one in done]
    pairs = zip(seconds, reference, strict=True)
    return {
        "seconds": seconds,
        "median": median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "times_as_long": median(own / other for own, other in pairs),
        "cpu_seconds": median(one["cpu_seconds"] for one in done),
        "memory_mib": max(one["mebibytes"] for one in done),
    }


COLUMNS = (
    "program",
    "wall clock, s, median",
    "min",
    "max",
    "times as long",
    "processor time, s",
    "peak memory, MiB",
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    lines = [
        [
            row["label"],
            *(table.number(row[name], 1) for name in ("median", "min", "max")),
            table.number(row["times_as_long"]),
            table.number(row["cpu_seconds"], 1),
            table.number(row["memory_mib"], 0),
        ]
        if row["installed"]
        else [row["label"], "not installed", *[table.NONE] * (len(COLUMNS) - 2)]
        for row in found["rows"]
    ]
    return (
        f"# The whole exercise as one process\n\n{table.origin(found)}\n\n"
        f"10,000 series of 30 digits, 200 cells, {found['epochs']} epochs, from the start of "
        f"Python to its end, in turn, {found['repetitions']} of each. train.py also writes "
        f"every logit, a checkpoint, the report and its figures; the notebook's program, "
        f"`benchmarks/notebook.py`, prints its scores and draws one confusion matrix. *Times as "
        f"long* is the median over the rounds of the ratio to the first row.\n\n"
        f"{table.markdown(COLUMNS, lines)}"
    )
