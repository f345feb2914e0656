"""Programs that take turns: in every round each has one, while the others idle."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.machine import Idle
from benchmarks.table import Column

PAUSE = 0.1
"""Seconds between two turns: threads of some libraries wait a moment before they sleep."""

Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What takes turns, and becomes a row of the table."""

    name: str
    label: str
    settings: Answer = dataclasses.field(default_factory=dict)
    """What it is told beside the work."""
    needs: tuple[str, ...] = ()
    """Packages that are no part of this one's installation."""
    runs: int = 1
    """How many a turn trains."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(importlib.util.find_spec(package) is not None for package in self.needs)


def take(
    turns: Mapping[Program, Callable[[], Answer]],
    repetitions: int,
    idle: Idle,
    warm: bool = False,
) -> dict[Program, list[Answer]]:
    """What each program's turns returned, `seconds` among it; shows a line for each round.

    To warm up, there is one round more before the others.  `idle` counts between the turns.
    """
    found: dict[Program, list[Answer]] = {program: [] for program in turns}
    for number in range(0 if warm else 1, repetitions + 1):
        for program, turn in turns.items():
            idle.wait(PAUSE)
            found[program].append(turn())
        shown = "  ".join(f"{p.name} {answers[-1]['seconds']:.2f}" for p, answers in found.items())
        title = f"round {number}/{repetitions}" if number else "first epochs"
        print(f"{title}  {shown} s", flush=True)
    return found


def rows(
    programs: Sequence[Program], measured: Mapping[Program, Answer], reference: Program | None
) -> list[Answer]:
    """What JSON shall hold of programs, those that are not installed among them.

    What was measured has `seconds` of each round; `times_as_long` is the median of the ratios to
    those of the reference.
    """
    base = measured[reference]["seconds"] if reference else []
    found = []
    for program in programs:
        row = dataclasses.asdict(program) | {"installed": program in measured}
        if program in measured:
            seconds = measured[program]["seconds"]
            ratios = [own / other for own, other in zip(seconds, base, strict=False)]
            row |= {"median": median(seconds), "min": min(seconds), "max": max(seconds)}
            row |= measured[program] | {"times_as_long": median(ratios) if ratios else None}
        found.append(row)
    return found


def columns(what: str, digits: int) -> tuple[Column, ...]:
    """The first ones of a table of `rows`."""
    titles = {f"{what}, median": "median", "min": "min", "max": "max"}
    seconds = (Column(title, field, digits) for title, field in titles.items())
    return Column("program", "label"), *seconds, Column("times as long", "times_as_long", 2)
