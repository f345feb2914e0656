"""How far the work is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sumrnn.study.batch import Progress

NAMES = ("loss", "accuracy", "val_loss", "val_accuracy")


@contextlib.contextmanager
def of_run(epochs: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yields a function that shows an epoch of one run."""
    if not sys.stdout.isatty():

        def line(row: dict[str, float]) -> None:
            shown = "  ".join(f"{name} {row[name]:.4f}" for name in NAMES)
            print(f"epoch {row['epoch']:2}/{epochs}  {shown}  {row['seconds']:.2f} s", flush=True)

        yield line
        return

    from rich import progress

    columns = (
        progress.TextColumn("epoch"),
        progress.MofNCompleteColumn(),
        progress.BarColumn(bar_width=None),
        *(progress.TextColumn(f"{name} {{task.fields[{name}]}}") for name in NAMES),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("", total=epochs, **dict.fromkeys(NAMES, "  -   "))  # type: ignore[arg-type]

        def update(row: dict[str, float]) -> None:
            shown = {name: f"{row[name]:.4f}" for name in NAMES}
            bar.update(task, completed=row["epoch"], **shown)  # type: ignore[arg-type]

        yield update


@contextlib.contextmanager
def of_batch(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Yields a function that shows how far a batch is, or nothing."""
    if not shown:
        yield lambda progress: None
        return
    if not sys.stdout.isatty():

        def line(progress: Progress) -> None:
            # One line at the start, after each wave, and when a wave's first epoch is over.
            if progress.epoch <= 1:
                print(describe(progress), flush=True)

        yield line
        return

    from rich import progress as bars

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=None))
    with bars.Progress(*columns) as bar:
        task = bar.add_task("", total=None)

        def update(progress: Progress) -> None:
            # The bar is of this start alone; the words count the runs of earlier ones too.
            bar.update(
                task,
                total=max(progress.todo, 1),
                completed=progress.worked if progress.todo else 1,
                description=describe(progress),
            )

        yield update


def describe(progress: Progress) -> str:
    """One line: runs done, where the current wave is, speed and time left."""
    parts = [f"runs {progress.done}/{progress.total}"]
    if progress.epoch:
        seeds = ",".join(map(str, progress.seeds[:4])) + ("..." if len(progress.seeds) > 4 else "")
        parts.append(f"{progress.condition} seeds {seeds} epoch {progress.epoch}/{progress.epochs}")
    if progress.diverged:
        parts.append(f"{progress.diverged} diverged")
    if progress.worked:
        left = datetime.timedelta(seconds=round(progress.seconds_left))
        parts.append(f"{progress.speed:.2f} seed-epochs/s  {left} left")
    return "  ".join(parts)
