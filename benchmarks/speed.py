"""Training speed: beside other libraries, as sizes grow, and of whole processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import Column, Program, Row, Tables
from benchmarks.peers import MATRIX, START, Work
from sumrnn.config import TrainConfig
from sumrnn.devices import machine
from sumrnn.seeds import check_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.command import Arguments

PROGRAMS, MACHINE = "equal work", "matrix product"
WHOLE, LONG = "whole processes", "long runs"
"""Names of tables; the others are those of `FACTORS`."""
EPOCHS = 5
"""Epochs that a turn times, of which its figure is the median; 1 for larger work than the base."""
FACTORS: dict[str, tuple[str, Iterable[float | Fraction]]] = {
    "digits per series": ("length", (1, Fraction(10, 3), 10, Fraction(100, 3))),
    "LSTM cells": ("cells", (0.25, 0.5, 1, 2, 4)),
    "training series": ("size", (0.25, 1, 4, 16)),
    "seeds": ("seeds", (1, 2, 4, 8, 16)),
    "shards of a batch": ("batch_shards", (0.5, 1, 2)),
}
"""What grows, by name: its field, and multiples of the base."""
FEWER = 4
"""Length and cells grow on this part of the training series, to take less time."""
TINY = ("--size", 500, "--length", 6, "--high", 4, "--threshold", 12, "--cells", 8)
"""The network of the long runs."""


def plan(arguments: Arguments) -> tuple[Row, Tables]:
    """What the page shall say of the work, and the programs; raises `UserError` if impossible."""
    sizes = (arguments.size, arguments.length, arguments.cells, arguments.batch_size)
    work = Work(*sizes, arguments.seed)
    return {"work": work._asdict()}, {
        "start": [Program("equal work", harness.call("peers.make_start", sizes=work._asdict()))],
        PROGRAMS: programs(work, 1 if arguments.quick else EPOCHS),
        MACHINE: [Program("a large product", harness.call("peers.matrix"))],
        **growth(work, arguments.quick),
        WHOLE: whole_processes(work.seed),
        LONG: long_runs(work.seed, (20,) if arguments.quick else (400, 2_000)),
    }


def programs(work: Work, epochs: int) -> list[Program]:
    """All programs that train equal work."""

    def program(label: str, name: str, *needs: str, **changes: Any) -> Program:
        changed = work._replace(**changes)._asdict()
        details = {"program": name, "sizes": changed, "epochs": epochs, "start": START}
        return Program(label, harness.call("peers.train", **details), needs)

    cores = machine.core_count()
    return [
        program("sumrnn, one run", "sumrnn"),
        program(f"sumrnn, {cores} seeds at once, per seed", "sumrnn", seeds=cores),
        program("sumrnn, one run, nn.scan", "sumrnn", batch_shards=1, recurrence="scan"),
        program("Keras on TensorFlow", "keras-tensorflow", "keras", "tensorflow"),
        program("Keras on JAX", "keras-jax", "keras"),
        program("PyTorch", "pytorch", "torch"),
    ]


def growth(base: Work, quick: bool) -> Tables:
    """Tables in which one thing grows, in a quick check only the smallest point.

    Raises `UserError` if a point is no possible work.
    """
    tables = {}
    fewer = base._replace(size=max(base.size // FEWER, base.batch_size))
    for name, (field, factors) in FACTORS.items():
        fixed = fewer if field in ("length", "cells") else base
        least = base.batch_size if field == "size" else 1
        values = sorted({max(least, round(factor * getattr(base, field))) for factor in factors})
        tables[name] = list[Program]()
        for value in values[: 1 if quick else None]:
            work = fixed._replace(**{field: value})
            work.config()
            check_seeds("seeds", range(work.seed, work.seed + work.seeds))
            epochs = 1 if quick or work.flops * work.seeds > base.flops else EPOCHS
            details = {"program": "sumrnn", "sizes": work._asdict(), "epochs": epochs}
            command, facts = harness.call("peers.train", **details), {"flops": work.flops}
            tables[name].append(Program(f"{name}: {value:,}", command, facts=facts))
    return tables


def whole_processes(seed: int) -> list[Program]:
    """An epoch of the exercise, from the start of a command to its end."""
    notebook = str(harness.ROOT / "benchmarks" / "notebook.py")
    train = harness.script("train", "--seed", seed, "--epochs", 1, "--out", "run")
    return [
        Program("train.py, 1 epoch", train),
        Program(
            "Keras on TensorFlow, the notebook, 1 epoch",
            (sys.executable, notebook, "--epochs", "1"),
            ("keras", "tensorflow"),
        ),
    ]


def long_runs(seed: int, epochs: Iterable[int]) -> list[Program]:
    """Whole runs of a tiny network, of so many epochs each."""
    options = (*TINY, "--seed", seed, "--checkpoint-every", 50)
    return [
        Program(
            f"train.py, {n:,} epochs of a tiny network, a checkpoint after every 50",
            harness.script("train", *options, "--epochs", n, "--out", f"run-{n}"),
        )
        for n in epochs
    ]


def with_shares(results: Row) -> list[Row]:
    """The rows of equal work with their share of the speed of a large matrix product."""
    (product,) = results["tables"][MACHINE]
    flops = Work(**results["work"]).flops
    return [
        row | {"share": flops / row["seconds"] / product["flops_per_second"]}
        for row in results["tables"][PROGRAMS]
    ]


def page(results: Row) -> str:
    """The tables, with what they need to be understood."""
    work, tables = Work(**results["work"]), results["tables"]
    (product,) = tables[MACHINE]
    memory = Column("peak memory, MiB", "memory_mib", ",.0f")
    compared = Column("times as long as the first of its kind", "times_as_long", ".2f")
    columns = (
        Column("program", "label"),
        Column("s per epoch", "seconds", ".3f", spread=True),
        compared,
        Column("share of matrix speed", "share", ".0%"),
        Column("start to end of first epoch, s", "first_epoch", ".1f"),
        memory,
    )
    growing = (
        Column("what grows", "label"),
        Column("s per epoch and seed", "seconds", ".3f", spread=True),
        compared,
        Column("by arithmetic", "arithmetic", ".2f"),
        memory,
    )
    wall = (
        Column("command", "label"),
        Column("wall clock, s", "seconds", ".1f", spread=True),
        compared,
        Column("processor time, s", "cpu_seconds", ".1f"),
        memory,
    )
    points = [
        point | {"arithmetic": point["flops"] / tables[name][0]["flops"]}
        for name in FACTORS
        for point in tables[name]
    ]
    return harness.page(
        results,
        "Training speed",
        f"""An epoch trains on {work.size:,} series of {work.length} digits in batches of
        {work.batch_size}, with {work.cells} LSTM cells: {work.flops / 1e9:,.2f} GFLOP of matrix
        products. All programs start from the same float32 weights, see the same batches, and agree
        in the mean loss of the first epoch. A turn is the median of up to {EPOCHS} epochs after
        that one. The *matrix speed*, {product["flops_per_second"] / 1e9:,.0f} GFLOP/s, is that of
        a float32 product of two {MATRIX:,} × {MATRIX:,} matrices, measured in the same rounds.""",
        harness.table(columns, with_shares(results)),
        f"""One thing grows at a time, with {work.size:,} series, {work.length} digits,
        {work.cells} cells, one seed and {TrainConfig.batch_shards} shards otherwise, but only
        {max(work.size // FEWER, work.batch_size):,} series where digits or cells grow; *by
        arithmetic* time would grow as the matrix products do, and per seed not at all with
        seeds.""",
        harness.table(growing, points),
        """Commands from the start of Python to its end; train.py also writes every prediction, a
        checkpoint, the report and its figures, the notebook's program, `benchmarks/notebook.py`,
        prints its scores and draws one confusion matrix.""",
        harness.table(wall, tables[WHOLE] + tables[LONG]),
    )


def draw(results: Row) -> Figure:
    """Seconds per epoch of every program, and the time of the matrix products alone."""
    from sumrnn.report import drawing

    rows = with_shares(results)
    floor = rows[0]["seconds"] * rows[0]["share"]
    figure, (ax,) = drawing.blank(width=9, height=1.7 + 0.46 * len(rows))
    for place, row in enumerate(rows):
        others, ours = drawing.COLORS
        middle, values = row["seconds"], [turn["seconds"] for turn in row["turns"]]
        ax.barh(place, middle, color=ours if row["label"].startswith("sumrnn") else others)
        spread = [[middle - min(values)], [max(values) - middle]]
        ax.errorbar(middle, place, xerr=spread, color=drawing.INK, lw=1, capsize=3)
        ax.text(max(values), place, f"  {middle:.3g} s ({row['times_as_long']:.2f}×)", va="center")
    ax.axvline(floor, color=drawing.INK, lw=1.2, ls="--", zorder=0.5)
    ax.set_yticks(range(len(rows)), [row["label"] for row in rows])
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel("seconds per epoch; dashed: its matrix products alone, at full speed")
    return figure
