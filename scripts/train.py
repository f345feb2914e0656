"""Trains one network to say whether digits sum to at least a threshold, and reports on it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from sumrnn import command
from sumrnn.config import Config, ConfigError, check_seed, preset


@dataclasses.dataclass(frozen=True)
class Preset:
    """The option on which the defaults of the others depend."""

    preset: str = "sheet"
    """Task to start from, sheet (digits 0 to 9) or notebook (0 to 8); other options change it."""


@dataclasses.dataclass(frozen=True)
class Arguments(Preset):
    """One run."""

    seed: int = 0
    """Seed of the run, 0 to 4294967295: digits, initial parameters, order."""
    out: str | None = None
    """Run folder to write; None: runs/PRESET-seedSEED."""
    overwrite: bool = False
    """Replace the run that is in the run folder."""
    config: Config = dataclasses.field(default_factory=Config)


def main(argv: list[str]) -> None:
    """Trains, writes the run folder, and prints the summary of its report."""
    name = command.parse_known(Preset, argv).preset
    default = Arguments(preset=name, config=Config(task=preset(name)))
    arguments = command.parse(Arguments, argv, __doc__ or "", default)
    check_seed("seed", arguments.seed)
    if arguments.out == "":  # An unset shell variable, not the working directory.
        raise ConfigError("out", arguments.out, "the name of a folder")
    out = pathlib.Path(arguments.out or f"runs/{name}-seed{arguments.seed}")

    from sumrnn import placement, report, runs  # Late, so that --help and errors are quick.

    placement.use_cores()
    runs.check_free(out, arguments.overwrite)
    fit(arguments.config, arguments.seed, name, out, arguments.overwrite)
    print(report.summary(report.write(out), out))


def fit(config: Config, seed: int, name: str, out: pathlib.Path, overwrite: bool) -> None:
    """Trains one network and writes everything but its report to `out`.

    Raises:
      RunError: if `out` cannot be written.
      Diverged: if the loss is no longer a number.
    """
    from sumrnn import placement, runs, train

    runs.create(out, config, seed, name, overwrite)
    history: list[dict[str, float]] = []
    last = time.perf_counter()
    with show_progress(config.train.epochs) as show, command.patience() as check_interrupt:

        def watch(_: Sequence[int], number: int, metrics: train.Metrics) -> None:
            nonlocal last
            now = time.perf_counter()
            row = {column: float(values[0]) for column, values in metrics._asdict().items()}
            history.append({"epoch": number + 1, **row, "seconds": now - last})
            last = now
            runs.write_history(out, history)
            show(history[-1])
            if not runs.is_finite(row):
                raise command.Diverged(
                    f"loss = {row['loss']}, val_loss = {row['val_loss']} in epoch {number + 1}: "
                    f"must be finite; a learning_rate below {config.train.learning_rate} may help"
                )
            check_interrupt()

        batch = placement.fit(config, [seed], watch=watch)
    runs.finish(out, *placement.one(batch, 0))


@contextlib.contextmanager
def show_progress(epochs: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yields a function that shows one epoch: in a live bar on a terminal, else as a line."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    if not sys.stdout.isatty():

        def line(row: dict[str, float]) -> None:
            shown = "  ".join(f"{name} {row[name]:.4f}" for name in names)
            print(f"epoch {row['epoch']:2}/{epochs}  {shown}  {row['seconds']:.2f} s", flush=True)

        yield line
        return

    from rich import progress

    columns = (
        progress.TextColumn("epoch"),
        progress.MofNCompleteColumn(),
        progress.BarColumn(bar_width=None),
        *(progress.TextColumn(f"{name} {{task.fields[{name}]}}") for name in names),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("", total=epochs, **dict.fromkeys(names, "  -   "))  # type: ignore[arg-type]
        yield lambda row: bar.update(task, advance=1, **{n: f"{row[n]:.4f}" for n in names})  # type: ignore[arg-type]


if __name__ == "__main__":
    command.run(main)
