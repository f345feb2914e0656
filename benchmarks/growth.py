"""How time and memory grow: one size at a time, every point in a fresh process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from benchmarks import table
from benchmarks.process import Process
from benchmarks.work import Work

LENGTHS = (1, Fraction(10, 3), 10, Fraction(100, 3))
CELLS = (Fraction(1, 4), Fraction(1, 2), 1, 2, 4)
SIZES = (Fraction(1, 4), 1, 4, 16)
"""Multiples of the base."""
SEEDS = (1, 2, 4, 8, 16)
FEWER = 4
"""Length and cells grow on this part of the training series, to take less time."""
LARGE = 4
"""Points with at least this many times the base to compute have one epoch timed."""
QUICK = 2
"""Points of each series in a quick check."""


@dataclasses.dataclass(frozen=True)
class Point:
    """What one process trains."""

    value: int
    """Of the size that grows."""
    work: Work
    seeds: int = 1

    @property
    def name(self) -> str:
        """All that it is, for a line on the terminal."""
        work, several = self.work, "s" if self.seeds > 1 else ""
        return (
            f"{work.length} digits, {work.cells} cells, {work.size:,} series, "
            f"{self.seeds} seed{several}"
        )

    @property
    def arithmetic(self) -> int:
        """What its time should be proportional to."""
        return self.work.flops * self.seeds


def series(base: Work) -> dict[str, list[Point]]:
    """What grows, by name."""
    fewer = dataclasses.replace(base, size=max(1, base.size // FEWER, base.batch_size))

    def grown(factors: Sequence[int | Fraction], value: int) -> list[int]:
        return sorted({max(1, round(factor * value)) for factor in factors})

    return {
        "digits per series": [
            Point(n, dataclasses.replace(fewer, length=n)) for n in grown(LENGTHS, base.length)
        ],
        "LSTM cells": [
            Point(n, dataclasses.replace(fewer, cells=n)) for n in grown(CELLS, base.cells)
        ],
        "training series": [
            Point(n, dataclasses.replace(base, size=n))
            for n in grown(SIZES, base.size)
            if n >= base.batch_size
        ],
        "seeds": [Point(n, base, n) for n in SEEDS],
    }


def measure(
    base: Work, repetitions: int, quick: bool, limit: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times epochs of every point.

    Args:
      base: what the others are multiples of.
      repetitions: epochs that count, after a first one that compiles.
      quick: only the smallest points.
      limit: seconds for a point.
      say: is told a line for each point.

    Returns:
      What JSON shall hold of it.

    Raises:
      Failed: if a process fails.
    """
    asked = {name: some[: QUICK if quick else None] for name, some in series(base).items()}
    # A point that is part of several series is measured once.
    points = {(point.work, point.seeds): point for some in asked.values() for point in some}
    answers: dict[tuple[Work, int], dict[str, Any]] = {}
    for place, (key, point) in enumerate(points.items()):
        epochs = 1 if point.arithmetic >= LARGE * base.flops else repetitions
        with Process(point.name, limit) as worker:
            asked_for = {"work": dataclasses.asdict(point.work), "seeds": point.seeds}
            answers[key] = worker.ask("fit", **asked_for, epochs=epochs) | {"epochs": epochs}
        seconds, memory = answers[key]["seconds"], answers[key]["mebibytes"]
        say(
            f"point {place + 1}/{len(points)}  {point.name}  {seconds:.3f} s per epoch  "
            f"{memory:,.0f} MiB"
        )
    found = {
        name: [_numbers(point, some[0], answers) for point in some] for name, some in asked.items()
    }
    return {
        "base": dataclasses.asdict(base),
        "titles": {name: _title(name, points[0].work) for name, points in asked.items()},
        "series": found,
    }


def _numbers(
    point: Point, first: Point, answers: dict[tuple[Work, int], dict[str, Any]]
) -> dict[str, Any]:
    """Of a point, beside the first of its series."""
    answer, base = answers[point.work, point.seeds], answers[first.work, first.seeds]
    return {
        "value": point.value,
        "work": dataclasses.asdict(point.work),
        "seeds": point.seeds,
        "epochs": answer["epochs"],
        "seconds": answer["seconds"],
        "memory_mib": answer["mebibytes"],
        "factor": answer["seconds"] / base["seconds"],
        "predicted_factor": point.arithmetic / first.arithmetic,
    }


def _title(name: str, work: Work) -> str:
    """What stays as it is while one size grows."""
    fixed = {
        "digits per series": f"{work.length} digits",
        "LSTM cells": f"{work.cells} cells",
        "training series": f"{work.size:,} series",
    }
    return ", ".join(text for other, text in fixed.items() if other != name)


COLUMNS = (
    "what grows",
    "value",
    "s per epoch",
    "factor",
    "by arithmetic",
    "peak memory, MiB",
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    lines = [
        [
            f"{name} ({found['titles'][name]})" if place == 0 else "",
            f"{point['value']:,}",
            table.number(point["seconds"], 3),
            table.number(point["factor"]),
            table.number(point["predicted_factor"]),
            table.number(point["memory_mib"], 0),
        ]
        for name, points in found["series"].items()
        for place, point in enumerate(points)
    ]
    return (
        f"# How time and memory grow\n\n{table.origin(found)}\n\n"
        f"One thing grows at a time, the rest stays as in brackets, with one run of the default "
        f"settings, or several seeds that are one batch. Every row is a process of its own. Its "
        f"time is that of an epoch of all its seeds, the median of up to "
        f"{found['repetitions']} after a first one that compiles. *Factor* is against the first "
        f"row of its series; *by arithmetic* it would be that of the matrix products: "
        f"proportional to digits, series and seeds, and to the square of the cells.\n\n"
        f"{table.markdown(COLUMNS, lines)}"
    )
