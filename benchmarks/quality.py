"""Time to quality: when a network in training answers so well, and from then on."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks import process, table, turns
from benchmarks.machine import Idle
from benchmarks.table import Column
from benchmarks.turns import Program

LEVELS = (0.992, 0.999, 0.9999)
"""Of the accuracy by the exact law."""
PROGRAMS = (
    Program("exercise", "sumrnn, the exercise's procedure", {"preset": "notebook"}),
    Program("fresh", "sumrnn, fresh", {"preset": "notebook-fresh"}),
    Program("solved", "sumrnn, solved", {"preset": "notebook-solved"}),
    Program("tenth", "sumrnn, solved in a tenth", {"preset": "notebook-solved", "share": 0.1}),
    Program("notebook", "Keras on TensorFlow, the notebook", {}, ("keras", "tensorflow")),
)

Point = tuple[int, float, float]
"""Series of training so far, seconds so far without the exams, and error by the exact law."""


class Course:
    """How a training goes on, by a clock that stops while its network is examined."""

    def __init__(self, began: float) -> None:
        self._began, self._away = began, 0.0
        self._points: list[Point] = []

    def stop(self, series: int, error: Callable[[], float]) -> None:
        """Adds a point after so many series of training."""
        now = time.time()
        self._points.append((series, now - self._began - self._away, error()))
        self._away += time.time() - now

    def told(self) -> dict[str, Any]:
        """The points, and the seconds until the last one."""
        return {"seconds": self._points[-1][1], "points": self._points}


def measure(epochs: int, every: int, repetitions: int, limit: float) -> dict[str, Any]:
    """Trains each program in turn, with seeds 0, 1 and so on; what JSON shall hold of it.

    Every so many epochs the clock stops for an exam.  Raises `UserError` if a process fails, or
    takes longer than the limit.
    """
    present = {
        program: functools.partial(_turn, program, itertools.count(), epochs, every, limit)
        for program in PROGRAMS
        if program.installed
    }
    idle = Idle()
    measured = {
        program: {
            "seconds": [one["seconds"] for one in answers],
            "points": [one["points"] for one in answers],
            "reached": {str(x): summary([one["points"] for one in answers], x) for x in LEVELS},
        }
        for program, answers in turns.take(present, repetitions, idle).items()
    }
    rows = turns.rows(PROGRAMS, measured, next(iter(present)))
    return {"epochs": epochs, "every": every, "rows": rows, "busy_cores": idle.cores}


def _turn(
    program: Program, seeds: Iterator[int], epochs: int, every: int, limit: float
) -> dict[str, Any]:
    settings = dict(program.settings)
    epochs = max(1, round(epochs * settings.pop("share", 1)))
    details = {"epochs": epochs, "every": every, "began": time.time(), **settings}
    do = "learn_keras" if program.needs else "learn"
    return process.once(program.label, limit, do, seed=next(seeds), **details)


def reached(points: Sequence[Point], level: float) -> tuple[int, float] | None:
    """Series and seconds after which the accuracy is never again below a level; None if it is."""
    below = [k for k, (_, _, error) in enumerate(points) if 1 - error < level]
    first = below[-1] + 1 if below else 0
    return None if first == len(points) else (points[first][0], points[first][1])


def summary(runs: Sequence[Sequence[Point]], level: float) -> dict[str, Any]:
    """How many runs reach a level, and the medians of these: series and seconds."""
    found = [one for run in runs if (one := reached(run, level))]
    series, seconds = (median(x) if x else None for x in list(zip(*found, strict=True)) or [(), ()])
    return {"runs": len(found), "of": len(runs), "series": series, "seconds": seconds}


def _shown(row: dict[str, Any], level: float) -> str | None:
    if not row["installed"]:
        return None
    found = row["reached"][str(level)]
    if not found["runs"]:
        return "never"
    some = "" if found["runs"] == found["of"] else f" ({found['runs']} of {found['of']} runs)"
    return f"{found['seconds']:.1f} s, {found['series']:,.0f} series{some}"


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    levels = [
        Column(f"stays at {level:.2%} from".replace("%", " %"), str(level)) for level in LEVELS
    ]
    columns = (Column("program", "label"), Column("whole training, s", "median", 1), *levels)
    rows = [row | {str(level): _shown(row, level) for level in LEVELS} for row in found["rows"]]
    return table.page(found, columns, rows)
