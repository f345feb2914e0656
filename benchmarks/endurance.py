"""What it costs that nothing is lost: the time of checkpoints, and a long run's memory and pace."""

from __future__ import annotations

import csv
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax

from benchmarks import process, table
from benchmarks.work import Work
from sumrnn import checkpoint, placement, recorder, runs
from sumrnn.command import Failed
from sumrnn.config import Config

TINY = ("--size", 500, "--length", 6, "--high", 4, "--threshold", 12, "--cells", 8)
"""The network of the long run."""
OFTEN = ("--checkpoint-every", 50)
PARTS = 10
"""Of the long run, in the table."""
SAMPLE = 40
"""Epochs between looks at the memory."""


def _memory(pid: int) -> float:
    """MiB that a process has in memory now."""
    asked = ["ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) / 1024


def long_run(epochs: int, limit: float, seed: int) -> dict[str, Any]:
    """Trains the tiny network by scripts/train.py, and looks at the process meanwhile.

    Returns:
      `seconds`: of each epoch; `memory`: [epoch, MiB] each.

    Raises:
      Failed: if the process fails or takes longer than the limit.
    """
    command = [sys.executable, process.ROOT / "scripts" / "train.py", *TINY, *OFTEN]
    command += ["--seed", seed, "--epochs", epochs, "--out", "run"]
    began, memory = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        training = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert training.stdout is not None
        try:
            for line in training.stdout:
                if line.startswith("epoch"):
                    epoch = int(line.removeprefix("epoch").partition("/")[0])
                    if epoch % SAMPLE == 0:
                        memory.append([epoch, _memory(training.pid)])
                if time.monotonic() - began > limit:
                    raise Failed(f"long run: not done within {limit} s (--limit)")
            if training.wait():
                raise Failed(f"long run: status {training.returncode}")
        finally:
            training.kill()
            training.wait()
        with (pathlib.Path(folder) / "run" / runs.HISTORY).open(encoding="utf-8") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return {"seconds": seconds, "memory": memory}


def cost(config: Config, repetitions: int) -> dict[str, float]:
    """Median seconds of an epoch and of a checkpoint of one run, and MiB of a checkpoint."""
    placement.use_cores()
    wave = placement.Wave(config, (0,), placement.plan(1, config))
    epochs, saves, rows = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        runs.create(path, config, 0, "cost")
        for number in range(1 + repetitions):  # The first one compiles.
            began = time.perf_counter()
            moment = wave.step()
            trained = time.perf_counter()
            rows.append(dict.fromkeys(checkpoint.COLUMNS, 0.0) | {"epoch": moment.epoch})
            state, shuffle = jax.tree.map(lambda x: x[0], moment.fetch())
            snapshot = checkpoint.like(config, moment.epoch)
            checkpoint.save(path, snapshot._replace(state=state, shuffle=shuffle))
            runs.write_history(path, rows)
            if number:
                epochs.append(trained - began)
                saves.append(time.perf_counter() - trained)
        place = checkpoint.folder(path, moment.epoch)
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return {"epoch": median(epochs), "checkpoint": median(saves), "mebibytes": size / 2**20}


def measure(
    work: Work, epochs: int, repetitions: int, limit: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures both; what JSON shall hold of it.

    Raises:
      Failed: if the long run fails.
    """
    found = cost(work.config(), repetitions)
    say(f"epoch {found['epoch']:.3f} s  checkpoint {1e3 * found['checkpoint']:.0f} ms")
    ran = long_run(epochs, limit, work.seed)
    say(f"{epochs} epochs  {sum(ran['seconds']):.1f} s")
    parts = [_part(ran, *ends) for ends in _ends(epochs)]
    return {"cost": found | {"share": recorder.SHARE}, "parts": parts, **ran}


def _ends(epochs: int) -> list[tuple[int, int]]:
    bounds = [epochs * k // PARTS for k in range(PARTS + 1)]
    return list(itertools.pairwise(bounds))


def _part(ran: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    memory = [mebibytes for epoch, mebibytes in ran["memory"] if first < epoch <= last]
    return {
        "epochs": [first + 1, last],
        "seconds": median(ran["seconds"][first:last]),
        "mean_seconds": sum(ran["seconds"][first:last]) / (last - first),
        "memory_mib": median(memory) if memory else None,
    }


COLUMNS = ("epochs", "s per epoch, median", "mean", "memory, MiB, median")


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    lines = [
        [
            "{:,} to {:,}".format(*part["epochs"]),
            table.number(part["seconds"], 5),
            table.number(part["mean_seconds"], 5),
            table.number(part["memory_mib"], 1),
        ]
        for part in found["parts"]
    ]
    cost = found["cost"]
    return (
        f"# What it costs that nothing is lost\n\n{table.origin(found)}\n\n"
        f"A checkpoint of one run of the exercise takes {1e3 * cost['checkpoint']:.0f} ms and "
        f"{cost['mebibytes']:.1f} MiB, an epoch {cost['epoch']:.3f} s (medians of "
        f"{found['repetitions']}); one after every epoch would take "
        f"{100 * cost['checkpoint'] / cost['epoch']:.1f} % of its time. By default one is written "
        f"when its time is {100 * cost['share']:.0f} % of that since the last one.\n\n"
        f"A long run of a tiny network (`scripts/train.py {' '.join(map(str, TINY + OFTEN))} "
        f"--epochs {len(found['seconds'])}`), its checkpoints included in the "
        f"mean:\n\n{table.markdown(COLUMNS, lines)}"
    )
