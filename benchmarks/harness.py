"""The one way in which everything is measured: programs that take turns, each turn a process.

In every round each program has one turn, while the others do not exist.  A turn is a process of its
own, because threads, devices and the backend of Keras are set once for each, and because its time,
processor time and peak memory can then be taken from outside, alike for every program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from sumrnn.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
BEGAN, SEED = "BENCHMARK_BEGAN", "BENCHMARK_SEED"
"""Variables of a turn's environment: when its process was started, and the round, from 0."""
STOPPING = {signal.SIGINT, signal.SIGTERM}  # What ends a benchmark.
LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "torch")
"""Packages of other programs, whose versions are recorded."""

Row = dict[str, Any]
"""A program's label and facts, its `turns`, and of each figure the median over them."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What takes turns, and becomes a row of a table."""

    label: str
    command: tuple[str, ...]
    """It runs in a folder that the programs of a round share, and that is empty at first."""
    needs: tuple[str, ...] = ()
    """Packages without which the program is left out."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the row has beside the figures of the turns."""


def call(function: str, **arguments: Any) -> tuple[str, ...]:
    """The command of a process that calls a function such as "peers.train" of benchmarks.

    The function's arguments and the figures that it returns are what JSON can hold.
    """
    module, name = function.split(".")
    code = (
        f"import json, sys; from benchmarks.{module} import {name}; "
        f"print(json.dumps({name}(**json.loads(sys.argv[1]))))"
    )
    return sys.executable, "-c", code, json.dumps(arguments)


def script(name: str, *options: object) -> tuple[str, ...]:
    """The command of scripts/NAME.py with options."""
    return tuple(map(str, (sys.executable, ROOT / "scripts" / f"{name}.py", *options)))


Tables = Mapping[str, Sequence[Program]]
"""The programs of each table, by its name."""


def measure(tables: Tables, repetitions: int, limit: float) -> Row:
    """Lets all programs of some tables take turns; returns rows by table, and what is missing.

    A row's `times_as_long` is the median over the rounds of its seconds over those of the first row
    of its table.  Raises `UserError` if a program fails or a turn takes longer than the limit.
    """
    rows: dict[str, list[Row]] = {title: [] for title in tables}
    programs, missing = list[tuple[Program, Row]](), list[str]()
    for title, table in tables.items():
        for program in table:
            if all(importlib.util.find_spec(package) for package in program.needs):
                rows[title].append({"label": program.label, **program.facts, "turns": []})
                programs.append((program, rows[title][-1]))
            else:
                missing.append(program.label)
    for number in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            for program, row in programs:
                figures = turn(program, folder, limit, number)
                row["turns"].append(figures)
                shown = f"{program.label}  {figures['seconds']:.3f} s"
                print(f"round {number + 1}/{repetitions}  {shown}", flush=True)
    for first, *others in rows.values():
        for row in (first, *others):
            summarize(row, first)
    return {"tables": rows, "missing": missing}


def turn(program: Program, folder: str, limit: float, seed: int = 0) -> Row:
    """Runs a program once in a folder, and kills whatever is left of it.

    Returns its `seconds` from start to end, `cpu_seconds` and peak memory, `memory_mib`; then the
    figures of the JSON object in the last line that it printed, if that is one, which may replace
    them.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.time()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        heard: list[int] = []  # Until somebody knows the process, or nobody would end it.
        handlers = {n: signal.signal(n, lambda n, _: heard.append(n)) for n in STOPPING}
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, BEGAN: repr(began), SEED: str(seed)},
            start_new_session=True,
        )
        kill = functools.partial(os.killpg, process.pid, signal.SIGKILL)
        timer = threading.Timer(limit, kill)
        timer.start()
        try:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for received in heard:
                signal.raise_signal(received)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if process.returncode is None:  # Interrupted.
                kill()
                process.wait()
        seconds = time.time() - began
        if process.returncode:
            late = f"not done within {limit} s (--limit)"
            failed = f"status {process.returncode} ({_last_line(errors) or 'without a word'})"
            raise UserError(f"{program.label}: {late if seconds >= limit else failed}", 1)
        last = _last_line(output)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB.
    outside = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mib": usage.ru_maxrss / unit,
    }
    return outside | (json.loads(last) if last.startswith("{") else {})


def _last_line(file: Any) -> str:
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def summarize(row: Row, first: Row) -> None:
    """Adds to a row the medians of its turns, and how many times as long as the first's are."""
    turns, pairs = row["turns"], zip(row["turns"], first["turns"], strict=True)
    for name, value in turns[0].items():
        if isinstance(value, int | float):
            row[name] = median(figures[name] for figures in turns)
    row["times_as_long"] = median(figures["seconds"] / base["seconds"] for figures, base in pairs)


def origin() -> Row:
    """What computes here: versions, device and settings, as the record of a run has them."""
    from sumrnn.config import Config
    from sumrnn.devices import machine
    from sumrnn.runs import origin

    made = origin.current(Config())
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            made["versions"][name] = importlib.metadata.version(name)
    return {
        **made,
        "processor": origin.processor_kind(made).removeprefix("cpu "),
        "cores": machine.core_count(),
    }


class Column(NamedTuple):
    """A column of a table: what it shows of each row."""

    title: str
    figure: str
    form: str = ""
    """Of Python's `format`."""
    spread: bool = False
    """Whether the least and the largest of the turns follow the median."""

    def cell(self, row: Row) -> str:
        """The text of this column in a row; a dash where there is no such figure."""
        if row.get(self.figure) is None:
            return "–"
        text = self._format(row[self.figure])
        if self.spread and len(row["turns"]) > 1:
            values = [figures[self.figure] for figures in row["turns"]]
            text += f" ({self._format(min(values))} to {self._format(max(values))})"
        return text

    def _format(self, value: Any) -> str:
        return format(value, self.form).replace("%", " %")


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table in Markdown, whose first column is text and whose others are numbers."""
    lines = [[column.title for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[column.cell(row) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(results: Row, title: str, *parts: str) -> str:
    """A page in Markdown: how and where it was measured, then paragraphs and tables."""
    versions = {name: results["versions"].get(name) for name in ("python", "jax", *LIBRARIES)}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    how = (
        f"Measured by `{results['command']}` on {results['processor']} (cores: "
        f"{results['cores']}), with {shown}. Medians over rounds "
        f"({results['repetitions']}; in brackets the least and the largest), in each of which "
        "every program has one turn, a process of its own; the load of the machine was "
        f"{results['load']:.1f} before the start."
    )
    missing = [f"Not installed: {', '.join(results['missing'])}."] * bool(results["missing"])
    texts = [part if part.startswith("|") else " ".join(part.split()) for part in parts]
    return "\n\n".join(text.rstrip("\n") for text in (f"# {title}", how, *texts, *missing)) + "\n"
