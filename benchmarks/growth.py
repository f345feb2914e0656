"""How time and memory grow: one size at a time, every point in a fresh process."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from benchmarks import process, table
from benchmarks.table import Column
from benchmarks.work import Work
from sumrnn.config import check_seeds

FACTORS = {
    "digits per series": ("length", (1, Fraction(10, 3), 10, Fraction(100, 3))),
    "LSTM cells": ("cells", (Fraction(1, 4), Fraction(1, 2), 1, 2, 4)),
    "training series": ("size", (Fraction(1, 4), 1, 4, 16)),
}
"""What grows, by name: its field, and multiples of the base."""
SEEDS = (1, 2, 4, 8, 16)
FEWER = 4
"""Length and cells grow on this part of the training series, to take less time."""
LARGE = 4
"""Points with at least this many times the base to compute have one epoch timed."""
QUICK = 2
"""Points of each series in a quick check."""


class Point(NamedTuple):
    """What one process trains."""

    work: Work
    seeds: int = 1

    def words(self) -> dict[str, str]:
        """All that it is, by what may grow."""
        work, several = self.work, "s" if self.seeds > 1 else ""
        sizes = (f"{work.length} digits", f"{work.cells} cells", f"{work.size:,} series")
        return dict(zip(FACTORS, sizes, strict=True)) | {"seeds": f"{self.seeds} seed{several}"}

    @property
    def arithmetic(self) -> int:
        """What its time should be proportional to."""
        return self.work.flops * self.seeds


Series = Mapping[str, Mapping[int, Point]]
"""What grows, by name; its points by the value that it has there."""


def series(base: Work, quick: bool = False) -> Series:
    """All points, or only the smallest for a quick check; raises `UserError` if one cannot be."""
    check_seeds("seeds", range(base.seed, base.seed + SEEDS[-1]))
    fewer = dataclasses.replace(base, size=max(base.size // FEWER, base.batch_size))
    found = {}
    for name, (field, factors) in FACTORS.items():
        fixed, least = (base, base.batch_size) if field == "size" else (fewer, 1)
        values = sorted({max(least, round(factor * getattr(base, field))) for factor in factors})
        points = (Point(dataclasses.replace(fixed, **{field: value})) for value in values)
        found[name] = dict(zip(values, points, strict=True))
    found["seeds"] = {seeds: Point(base, seeds) for seeds in SEEDS}
    most = QUICK if quick else None
    return {name: dict(itertools.islice(points.items(), most)) for name, points in found.items()}


def measure(base: Work, asked: Series, repetitions: int, limit: float) -> dict[str, Any]:
    """Times epochs of every point, after one that compiles; what JSON shall hold of it.

    Raises `UserError` if a process fails, or takes longer than the limit.
    """
    # A point that is part of several series is measured once.
    answers: dict[Point, dict[str, Any]] = {p: {} for s in asked.values() for p in s.values()}
    for place, (point, answer) in enumerate(answers.items(), 1):
        epochs = 1 if point.arithmetic >= LARGE * base.flops else repetitions
        answer |= point._asdict() | {"epochs": epochs}
        name = ", ".join(point.words().values())
        answer |= process.once(name, limit, "fit", **answer)
        answer["work"] = vars(point.work)
        shown = f"{answer['seconds']:.3f} s per epoch  {answer['memory_mib']:,.0f} MiB"
        print(f"point {place}/{len(answers)}  {name}  {shown}", flush=True)
    titles, found = {}, {}
    for name, points in asked.items():
        first = next(iter(points.values()))
        words = first.words()
        titles[name] = ", ".join(text for other, text in words.items() if name != other != "seeds")
        found[name] = [
            {"value": value, **answers[point]}
            | {"factor": answers[point]["seconds"] / answers[first]["seconds"]}
            | {"predicted_factor": point.arithmetic / first.arithmetic}
            for value, point in points.items()
        ]
    return {"base": vars(base), "titles": titles, "series": found}


COLUMNS = (
    Column("what grows", "what"),
    Column("value", "value", 0),
    Column("s per epoch", "seconds", 3),
    Column("factor", "factor", 2),
    Column("by arithmetic", "predicted_factor", 2),
    Column("peak memory, MiB", "memory_mib", 0),
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    lines = [
        point | {"what": "" if place else f"{name} ({found['titles'][name]})"}
        for name, points in found["series"].items()
        for place, point in enumerate(points)
    ]
    return table.page(found, COLUMNS, lines)
