"""What very many runs take: time, memory and disk of an experiment of tiny networks."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from benchmarks import harness
from benchmarks.harness import Column, Program, Row, Tables

if TYPE_CHECKING:
    from benchmarks.command import Arguments

CONDITIONS = 3  # Of the experiment tiny.
TABLE = "commands"


def plan(arguments: Arguments) -> tuple[Row, Tables]:
    """The number of runs, and commands that follow each other in the same folder."""
    seeds = arguments.runs // CONDITIONS or 1
    runs = CONDITIONS * (min(seeds, CONDITIONS) if arguments.quick else seeds)
    experiment = ("tiny", "--seeds", f"0:{runs // CONDITIONS}", "--out")
    again = harness.script("experiment", *experiment, "runs")
    jobs = ("jobs", "--launcher", "local", "--parallel", 2)
    programs = [
        Program("experiment.py: train all runs in one process", again),
        Program("the same again: nothing is missing; table, summary, page", again),
        Program("analyze.py: table, summary, page", harness.script("analyze", "runs")),
        Program(
            "experiment.py --launcher local: train all runs in two processes",
            harness.script("experiment", *experiment, *jobs),
            ("submitit",),
        ),
        Program("what the runs take on the disk", harness.call("scale.disk", folder="runs")),
    ]
    return {"runs": runs}, {TABLE: programs}


def disk(folder: str) -> Row:
    """Returns the KiB of whole blocks that an experiment takes on the disk, and its `entries`."""
    entries = [*pathlib.Path(folder).rglob("*")]
    blocks = sum(entry.stat().st_blocks for entry in entries)
    return {"kib": blocks * 512 / 2**10, "entries": len(entries)}


def page(results: Row) -> str:
    """The table, with what it needs to be understood."""
    runs, names = results["runs"], {"seconds": "per_run", "kib": "kib", "entries": "entries"}
    rows = [
        row | {new: row[name] / runs for name, new in names.items() if name in row}
        for row in results["tables"][TABLE]
    ]
    columns = (
        Column("command", "label"),
        Column("s", "seconds", ",.1f", spread=True),
        Column("s per run", "per_run", ".3f"),
        Column("peak memory, MiB", "memory_mib", ",.0f"),
        Column("KiB per run", "kib", ",.1f"),
        Column("files and folders per run", "entries", ",.1f"),
    )
    return harness.page(
        results,
        "Very many runs",
        f"""{runs:,} runs of the experiment `tiny`, by commands that follow each other.""",
        harness.table(columns, rows),
    )
