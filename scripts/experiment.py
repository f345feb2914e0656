"""Runs every condition of an experiment with every seed, on all devices, and sums it up.

Started again on the same folder, it continues with what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import tyro

from sumrnn import command
from sumrnn.config import ConfigError, parse_seeds

if TYPE_CHECKING:
    from sumrnn.batch import Experiment, Progress

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One batch of runs."""

    name: tyro.conf.Positional[str]
    """Which experiment: a file of experiments/, without its ending."""
    seeds: str | None = None
    """Seeds such as 0:32 (0 to 31) or 3,5,8:12; None: what the experiment says."""
    out: str | None = None
    """Folder of the batch; None: runs/NAME."""
    devices: int | None = None
    """CPU cores to make into devices; None: all that this process may use."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints, which change no number; None: as many as cost 1 % of the time."""
    per_device: int | None = None
    """Seeds that a device takes per wave; None: 1 on CPU, else what its memory holds."""
    distributed: bool = False
    """Work together with the other processes of a Slurm, Open MPI, Kubernetes or TPU job."""
    coordinator: str | None = None
    """host:port of process 0, where no such job tells; needs the next two."""
    processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Which process this is, from 0."""
    patience: int = 300
    """Seconds to wait for the other processes at the start."""


def find(name: str) -> Experiment:
    """The declaration in experiments/NAME.py.

    Raises:
      ConfigError: if there is none.
    """
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    if name not in known:
        raise ConfigError("experiment", name, f"one of {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment: Experiment | None = getattr(module, "EXPERIMENT", None)
    if experiment is None or experiment.name != name:
        found = getattr(experiment, "name", None)
        raise ConfigError("EXPERIMENT.name", found, f"{name!r}, as its file is {name}.py")
    return experiment


def main(argv: list[str]) -> None:
    """Runs what is missing, then writes table, summary and figures."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    experiment = find(arguments.name)
    out = command.folder(
        "out", f"runs/{experiment.name}" if arguments.out is None else arguments.out
    )
    chosen = experiment.seeds if arguments.seeds is None else arguments.seeds
    seeds = parse_seeds("seeds", chosen)

    # Imported late, so that --help is quick.
    from sumrnn import batch, files, placement, recorder, signals, summary

    placement.use_cores(arguments.devices)
    placement.check_per_device(arguments.per_device)
    recorder.check_every(arguments.checkpoint_every)
    cluster = (arguments.coordinator, arguments.processes, arguments.process_id)
    if arguments.distributed or any(value is not None for value in cluster):
        if not 1 <= arguments.patience < placement.FOREVER:
            allowed = f"at least 1 and below {placement.FOREVER} (seconds)"
            raise ConfigError("patience", arguments.patience, allowed)
        late = (
            f"coordinator = {arguments.coordinator or 'the one of this job'!r}: must be reached "
            f"by every process within {arguments.patience} s (--patience); not all were"
        )
        with command.deadline(arguments.patience, late):
            placement.join(*cluster)
    try:
        with placement.together(), contextlib.ExitStack() as locked:
            for config in experiment.conditions.values():
                placement.check_memory(config)

            def start() -> None:
                batch.check_folder(out)
                locked.enter_context(files.lock(out))
                batch.open_folder(out, experiment, seeds)

            placement.first_does(start)

            def work(stop: signals.Stop) -> None:
                done = batch.run(
                    out,
                    experiment,
                    seeds,
                    stop,
                    show,
                    lambda line: command.say(f"warning: {line}"),
                    arguments.checkpoint_every,
                    arguments.per_device,
                )
                if stop.number is not None and done.done < done.total:
                    raise signals.Stopped(
                        stop.number,
                        f"with {done.done} of {done.total} runs done; the same command continues",
                    )

            with show_progress(placement.is_first()) as show:
                signals.attend(work, command.say)
            placement.first_does(lambda: print(summary.overview(summary.write(out), out)))
    except placement.Refused as error:
        raise command.Failed(str(error)) from None
    except placement.Lost as error:
        # At a normal exit the JAX runtime would wait for the lost process, and abort.
        command.end(str(error))


@contextlib.contextmanager
def show_progress(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Yields a function that shows how far a batch is: live on a terminal, else in lines."""
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


if __name__ == "__main__":
    command.run(main)
