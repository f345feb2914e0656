"""How far the work is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sumrnn.study.batch import Progress

Show = Callable[[str, float, float], None]
"""Shows a line, and how much of how much is done."""


@contextlib.contextmanager
def live() -> Iterator[Show]:
    """Yields what shows each line in the place of the last one, or below it where it cannot."""
    if not sys.stdout.isatty():
        yield lambda line, done, total: print(line, flush=True)
        return
    from rich import progress

    left = progress.TimeRemainingColumn(), progress.TextColumn("left")
    text = progress.TextColumn("{task.description}")
    with progress.Progress(text, progress.BarColumn(bar_width=None), *left) as bar:
        task = bar.add_task("", total=None)
        yield lambda line, done, total: bar.update(
            task, description=line, completed=done, total=total
        )


@contextlib.contextmanager
def of_run(epochs: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yields a function that shows an epoch of one run, by the columns of history.csv."""
    with live() as show:

        def view(row: dict[str, float]) -> None:
            names, seconds = ["loss", "accuracy", "val_loss", "val_accuracy"], "  {seconds:.2f} s"
            if sys.stdout.isatty():  # With the bar and the time left, in 80 columns.
                names, seconds = ["loss", "val_accuracy"], ""
            scores = "  ".join(f"{name} {row[name]:.4f}" for name in names)
            line = f"epoch {row['epoch']:2}/{epochs}  {scores}{seconds.format(**row)}"
            show(line, row["epoch"], epochs)

        yield view


@contextlib.contextmanager
def of_batch(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Yields a function that shows how far a batch is, or nothing."""
    if not shown:
        yield lambda progress: None
        return
    with live() as show:

        def view(progress: Progress) -> None:
            # A plain line at the start, after each wave, and after a wave's first epoch.
            if sys.stdout.isatty() or progress.epoch <= 1:
                # What is done is that of this start; the words count earlier runs too.
                done = progress.worked if progress.todo else 1
                show(describe(progress), done, max(progress.todo, 1))

        yield view


def describe(progress: Progress) -> str:
    """One line: runs done, where the current wave is, speed and time left."""
    parts = [f"runs {progress.done}/{progress.total}"]
    if progress.epoch:
        seeds = ",".join(map(str, progress.seeds[:4])) + ("..." if len(progress.seeds) > 4 else "")
        parts.append(f"{progress.condition} seeds {seeds} epoch {progress.epoch}/{progress.epochs}")
    if progress.diverged:
        parts.append(f"{progress.diverged} diverged")
    if progress.worked:
        parts.append(f"{progress.speed:.2f} seed-epochs/s")
        if not sys.stdout.isatty():
            left = datetime.timedelta(seconds=round(progress.seconds_left))
            parts.append(f"{left} left")
    return "  ".join(parts)
