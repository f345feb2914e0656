"""Trains one network to say whether digits sum to at least a threshold, and reports on it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sumrnn import command, files
from sumrnn.config import Config, ConfigError, check_seed, preset

if TYPE_CHECKING:
    from sumrnn import runs, signals


@dataclasses.dataclass(frozen=True)
class Basis:
    """The options on which the defaults of all depend."""

    preset: str | None = None
    seed: int = 0
    out: str | None = None
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One run."""

    preset: str = "sheet"
    """Task to start from, sheet (digits 0 to 9) or notebook (0 to 8); other options change it."""
    seed: int = 0
    """Seed of the run, 0 to 4294967295: digits, initial parameters, order."""
    out: str | None = None
    """Run folder to write; None: runs/PRESET-seedSEED."""
    resume: bool = False
    """Continue the run that is in the run folder, with its options; start it if there is none."""
    overwrite: bool = False
    """Replace the run that is in the run folder."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints, which change no number; None: as many as cost 1 % of the time."""
    config: Config = dataclasses.field(default_factory=Config)


def main(argv: list[str]) -> None:
    """Trains, writes the run folder, and prints the summary of its report."""
    out, default = basis(command.parse_known(Basis, argv))
    arguments = command.parse(Arguments, argv, __doc__ or "", default)
    check_seed("seed", arguments.seed)
    if arguments.resume and arguments.overwrite:
        raise ConfigError("overwrite", True, "left out with --resume")

    # Late, so that --help and errors are quick.
    from sumrnn import placement, recorder, report, runs

    recorder.check_every(arguments.checkpoint_every)
    placement.use_cores()
    placement.check_memory(arguments.config)

    def check() -> None:
        if arguments.resume:
            runs.check_same(out, arguments.config, arguments.seed)
        else:
            runs.check_free(out, arguments.overwrite)

    check()  # Before anything is made, were it a lock.
    with files.lock(out):
        check()
        if arguments.overwrite:
            runs.create(out, arguments.config, arguments.seed, arguments.preset)
        status, epoch, wrong = runs.survey(out, arguments.config, arguments.seed)
        for line in wrong:
            command.say(f"warning: {line}; continuing after epoch {epoch}")
        if status == "unfinished":
            status = fit(arguments, out, epoch)
        if status == "diverged":
            raise command.Diverged(runs.divergence(out, arguments.config))
        print(report.summary(report.write(out), out))


def basis(given: Basis) -> tuple[pathlib.Path, Arguments]:
    """The run folder, and what all options are unless given."""
    name = "sheet" if given.preset is None else given.preset
    default = Arguments(preset=name, config=Config(task=preset(name)))
    out = command.folder("out", f"runs/{name}-seed{given.seed}" if given.out is None else given.out)
    if not given.resume:
        return out, default
    from sumrnn import runs

    with files.explain(out):
        if not (out / runs.CONFIG).exists():
            return out, default
    read = runs.read_config(out)
    config = read["config"]
    if given.preset is not None:
        config = dataclasses.replace(config, task=preset(name))
    return out, Arguments(preset=read["name"], seed=read["seed"], config=config)


def fit(arguments: Arguments, out: pathlib.Path, epoch: int) -> runs.Status:
    """Trains the network to its end, from the checkpoint after an epoch unless that is 0.

    Raises:
      RunError: if `out` cannot be written.
      Stopped: if a signal asked for it; all that is done is in `out`.
    """
    from sumrnn import recorder, signals

    epochs, seed = arguments.config.train.epochs, arguments.seed

    def work(stop: signals.Stop) -> runs.Status:
        waves = recorder.record(
            {seed: out},
            {seed: epoch},
            arguments.config,
            arguments.preset,
            stop,
            lambda seeds, number, row: show(row),
            arguments.checkpoint_every,
        )
        ended = next(waves, None)
        if ended is not None and ended.status[seed] != "unfinished":
            return ended.status[seed]
        assert stop.number is not None
        if ended is None:
            raise signals.Stopped(stop.number, "before it began; the same command starts it")
        again = shlex.join(["python", sys.argv[0], "--resume", "--out", str(out)])
        done = f"after epoch {ended.epoch} of {epochs}; {again} continues"
        raise signals.Stopped(stop.number, done)

    with show_progress(epochs) as show:
        return signals.attend(work, command.say)


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

        def update(row: dict[str, float]) -> None:
            shown = {name: f"{row[name]:.4f}" for name in names}
            bar.update(task, completed=row["epoch"], **shown)  # type: ignore[arg-type]

        yield update


if __name__ == "__main__":
    command.run(main)
