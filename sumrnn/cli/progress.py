"""How far the work is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sumrnn.runs.progress import Progress

BAR = 12
"""Columns of the bar at least, with its margin."""
NARROW = 60
"""Columns of a terminal below which the words need them all."""

Show = Callable[[Sequence[str], float, float], None]
"""Shows the parts of a line, the most important first, and how much of how much is done."""


@contextlib.contextmanager
def live() -> Iterator[Show]:
    """Yields what shows each line in the place of the last one, or below it where it cannot."""
    width = _columns()
    if width is None:

        def line_by_line(parts: Sequence[str], done: float, total: float) -> None:
            with _unless_hung_up():
                print("  ".join(parts), flush=True)

        yield line_by_line
        return
    from rich import progress

    text = progress.TextColumn("{task.description}", markup=False)
    bars = () if width < NARROW else (progress.BarColumn(bar_width=None),)
    # A file that stderr is gets what is meant for it.
    bar = progress.Progress(text, *bars, redirect_stderr=sys.stderr.isatty())
    task = bar.add_task("starting", total=None)

    def show(parts: Sequence[str], done: float, total: float) -> None:
        line = _fitting(parts, bar.console.width - (BAR if bars else 0))
        with _unless_hung_up():
            bar.update(task, description=line, completed=done, total=total)

    try:
        bar.start()
        yield show
    finally:
        with _unless_hung_up():
            bar.stop()


@contextlib.contextmanager
def waiting(words: str) -> Iterator[None]:
    """Shows on a terminal what takes a while; it is gone afterwards."""
    if _columns() is None:
        yield
        return
    from rich.console import Console

    with Console().status(words):
        yield


@contextlib.contextmanager
def counted(what: str, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields what counts things; shown only on a terminal that has nothing else to show."""
    if not shown or sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda more: None
        return
    from rich import progress
    from rich.console import Console

    text = progress.TextColumn(f"{{task.completed:,.0f}} {what}")
    columns, console = (text, progress.TimeElapsedColumn()), Console(stderr=True)
    bar = progress.Progress(*columns, console=console, redirect_stdout=False)  # It is a file.
    task = bar.add_task("", total=None)
    with bar:
        yield lambda more: bar.update(task, advance=more)


@contextlib.contextmanager
def _unless_hung_up() -> Iterator[None]:
    """Lets the work go on where the terminal is gone: its signal ends it well."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _columns() -> int | None:
    """The width of the terminal; None if stdout is none, or one that cannot move its cursor."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    return None if console.is_dumb_terminal else console.width


def _fitting(parts: Sequence[str], columns: int) -> str:
    """As many of the first parts as have room in a line, and at least one."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > columns:
            break
        line += "  " + part
    return line


def _left(seconds: float) -> str:
    return f"{datetime.timedelta(seconds=round(seconds))} left"


@contextlib.contextmanager
def of_run(epochs: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yields a function that shows an epoch of one run, by the columns of history.csv."""
    seconds: list[float] = []
    with live() as show:

        def view(row: dict[str, float]) -> None:
            seconds.append(row["seconds"])
            mean, number = sum(seconds) / len(seconds), int(row["epoch"])
            names = ("loss", "val_accuracy", "accuracy", "val_loss")
            parts = [f"epoch {number:2}/{epochs}", _left(mean * (epochs - number))]
            parts += [f"{name} {row[name]:.4f}" for name in names]
            show([*parts, f"{row['seconds']:.2f} s"], number, epochs)

        yield view


@contextlib.contextmanager
def of_experiment() -> Iterator[Callable[[Progress], None]]:
    """Yields a function that shows how far an experiment is; elsewhere only what is new.

    That is a line at the start, after each wave and its first epoch, and where jobs change.
    """
    in_place, last = _columns() is not None, [()]
    with live() as show:

        def view(progress: Progress) -> None:
            state: Any = (
                progress.done,
                progress.epoch > 0,
                progress.seeds,
                [*progress.jobs.items()],
            )
            new, last[0] = state != last[0], state
            if in_place or new:
                # What is done is that of this start; the words count earlier runs too.
                done = progress.worked if progress.todo else 1
                show(describe(progress), done, max(progress.todo, 1))

        yield view


def describe(progress: Progress) -> list[str]:
    """Runs done, time left, where the current wave is, and speed: the most important first."""
    parts = [f"runs {progress.done}/{progress.total}"]
    if progress.worked:
        parts.append(_left(progress.seconds_left))
    if progress.diverged:
        parts.append(f"{progress.diverged} diverged")
    for state, count in progress.jobs.items():
        parts.append(f"{count} job{'s' * (count != 1)} {state}")
    if progress.elsewhere:
        parts.append(f"{progress.elsewhere} elsewhere")
    if progress.failures:
        parts.append(f"{len(progress.failures)} failed")
    if progress.epoch:
        seeds = ",".join(map(str, progress.seeds[:4])) + ("..." if len(progress.seeds) > 4 else "")
        parts += [f"epoch {progress.epoch}/{progress.epochs}", progress.name, f"seeds {seeds}"]
    if progress.worked and progress.name:
        parts.append(f"{progress.speed:.2f} seed-epochs/s")
    return parts
