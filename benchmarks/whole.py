"""The whole exercise as a process, from start to end: this package and the notebook's way."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks import process, speed, table, turns
from benchmarks.machine import Idle
from benchmarks.table import Column
from benchmarks.turns import Program
from benchmarks.work import Work
from sumrnn.config import TrainConfig

NOTEBOOK = Program("notebook", "Keras on TensorFlow, the notebook", {}, ("keras", "tensorflow"))


def measure(
    work: Work, shards: Sequence[int], epochs: int, repetitions: int, limit: float
) -> dict[str, Any]:
    """Runs the programs in turn; what JSON shall hold of it.

    One of them has the fastest of the `batch_shards`, as epochs of the work show before.  Raises
    `UserError` if a process fails, or takes longer than the limit.
    """
    default = TrainConfig.batch_shards
    chosen = speed.programs(work, ("sumrnn", "shards"), shards, seeds=1)
    fastest = chosen[0].label
    if len(chosen) > 1:
        fastest = speed.measure(work, chosen, repetitions, limit)["fastest"]
    best = next(p for p in chosen if p.label == fastest).settings.get("batch_shards", default)
    train = train_py("--seed", work.seed, "--epochs", epochs)
    label = "sumrnn, train.py, batch_shards"
    asked = {Program("train.py", f"{label} {default} (default)"): train}
    if best != default:
        program = Program("shards", f"{label} {best}", {"batch_shards": best})
        asked[program] = [*train, "--batch-shards", str(best)]
    notebook = str(process.ROOT / "benchmarks" / "notebook.py")
    asked[NOTEBOOK] = [sys.executable, notebook, "--epochs", str(epochs)]
    return {"epochs": epochs, "best_batch_shards": best, **compare(asked, repetitions, limit)}


def train_py(*options: object) -> list[str]:
    """The command that trains a network in the folder run."""
    script = process.ROOT / "scripts" / "train.py"
    return list(map(str, (sys.executable, script, *options, "--out", "run")))


def compare(
    asked: Mapping[Program, Sequence[str]], repetitions: int, limit: float
) -> dict[str, Any]:
    """Runs commands in turn; the first one is what others are compared with."""
    present = {
        program: functools.partial(process.once, program.label, limit, "run", command=command)
        for program, command in asked.items()
        if program.installed
    }
    idle = Idle()
    measured = {
        program: {
            "seconds": [one["seconds"] for one in answers],
            "cpu_seconds": median(one["cpu_seconds"] for one in answers),
            "memory_mib": max(one["memory_mib"] for one in answers),
        }
        for program, answers in turns.take(present, repetitions, idle).items()
    }
    rows = turns.rows(list(asked), measured, next(iter(present)))
    return {"rows": rows, "busy_cores": idle.cores}


COLUMNS = (
    *turns.columns("wall clock, s", 1),
    Column("processor time, s", "cpu_seconds", 1),
    Column("peak memory, MiB", "memory_mib", 0),
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    return table.page(found, COLUMNS, found["rows"])
