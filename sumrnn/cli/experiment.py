"""Runs every condition of an experiment with every seed, on all devices, and sums it up.

Started again on the same folder, it continues with what is missing.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import pathlib
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from sumrnn import fields
from sumrnn.cli import command, jobs, progress
from sumrnn.cli.jobs import Chunk, Launcher, Resources
from sumrnn.errors import UserError, invalid, require
from sumrnn.fields import Range

if TYPE_CHECKING:
    from sumrnn.study.batch import BatchFolder
    from sumrnn.study.experiment import Experiment

Count = Annotated[int, Range(1, 10**9)]

EXPERIMENTS = next(
    path / "experiments"
    for path in pathlib.Path(__file__).parents[1:]  # Of the installed package, or a checkout.
    if (path / "experiments" / "reproduce.py").is_file()
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One batch of runs."""

    name: tyro.conf.Positional[str]
    """Which experiment: one of the package's own, such as reproduce, or a file of your own, such as
    mine.py, that declares an EXPERIMENT like theirs."""
    seeds: str | None = None
    """Seeds such as 0:32 (0 to 31) or 3,5,8:12; None: what the experiment says."""
    out: str | None = None
    """Folder of the batch; None: runs/NAME."""
    anyway: bool = False
    """Continue also with other versions or on another kind of processor, which changes bits."""
    tensorboard: bool = False
    """Write the history of every run for TensorBoard too; needs sumrnn[tensorboard]."""
    devices: Count | None = None
    """CPU cores to make into devices; None: all that this process may use."""
    checkpoint_every: Count | None = None
    """Epochs between checkpoints, which change no number; None: as many as cost 1 % of the time."""
    per_device: Count | None = None
    """Seeds that a GPU or TPU takes per wave; None: what its memory holds.  A CPU core takes 1."""
    keep: Annotated[int, Range(0, 1)] = 1
    """Checkpoints that a finished run keeps, for sumrnn predict, export, and more epochs."""
    launcher: Launcher | None = None
    """Let jobs make the runs, each on its own: local, processes of this machine, or slurm; needs
    sumrnn[cluster].  None: this process makes them."""
    chunk: Count | None = None
    """Runs of a job; None: as many as it makes at a time."""
    retries: Annotated[int, Range(0, 100)] = 2
    """How often a run is tried again whose job ended without it."""
    resources: Resources = dataclasses.field(default_factory=Resources)

    @property
    def ways(self) -> tuple[int | None, int | None, bool, int]:
        """How runs are made, in the order of `runner.run` and `jobs.Chunk`."""
        return self.checkpoint_every, self.per_device, self.anyway, self.keep


def find(name: str) -> Experiment:
    """The declaration of one of the package's own experiments, or in a file NAME.py.

    Raises `UserError` if there is none.
    """
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    own = pathlib.Path(name)
    if own.suffix == ".py":
        require(own.is_file(), "experiment", name, "a file that is there")
        path, name = own.absolute(), own.stem
    else:
        require(name in known, "experiment", name, f"one of {', '.join(known)}, or a file.py")
        path = EXPERIMENTS / f"{name}.py"
    from sumrnn.study.experiment import Experiment

    try:
        experiment = getattr(_module(path), "EXPERIMENT", None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except SystemExit as error:
        raise UserError(f"{path}: must not end the program (exit status {error.code!r})") from None
    except Exception as error:  # Whatever a person writes there.
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if not isinstance(experiment, Experiment):
        kind = "an Experiment (from sumrnn.study.experiment import Experiment)"
        raise UserError(f"{path}: {invalid('EXPERIMENT', experiment, kind)}")
    allowed = f"{name!r}, as its file is {name}.py"
    require(experiment.name == name, "EXPERIMENT.name", experiment.name, allowed)
    return experiment


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles a module's source as it is now: a compiled one that is kept may be of another."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module(path: pathlib.Path) -> types.ModuleType:
    """Runs a file as a module without a command line; it may import what lies beside it.

    Modules of the same names that are installed go first, and nothing is written there.
    """
    name = f"experiments.{path.stem}"
    module = sys.modules[name] = types.ModuleType(name)  # Where dataclasses look annotations up.
    module.__file__ = str(path)
    beside = str(path.resolve().parent)
    before = sys.argv, sys.path, sys.dont_write_bytecode
    sys.argv, sys.path, sys.dont_write_bytecode = [str(path)], [*sys.path, beside], True
    sources = (_SourceLoader, importlib.machinery.SOURCE_SUFFIXES)
    sys.path_importer_cache[beside] = importlib.machinery.FileFinder(beside, sources)
    try:
        _SourceLoader(name, str(path)).exec_module(module)
    finally:
        sys.argv, sys.path, sys.dont_write_bytecode = before
        del sys.path_importer_cache[beside]
    return module


def main(argv: list[str]) -> None:
    """Runs what is missing of the batch, writes its summary and prints it."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    fields.check(arguments)
    check(arguments)
    experiment = find(arguments.name)
    name = pathlib.Path(arguments.name).stem
    chosen = f"runs/{name}" if arguments.out is None else arguments.out
    out = command.folder("out", chosen)

    # Imported late, so that --help is quick.
    from sumrnn.devices import mesh
    from sumrnn.study.experiment import parse_seeds

    chosen = experiment.seeds if arguments.seeds is None else arguments.seeds
    seeds = parse_seeds("seeds", chosen)
    mesh.use_cores(arguments.devices)
    make = launch if arguments.launcher else work
    make(arguments, experiment, seeds, out)


def check(arguments: Arguments) -> None:
    """Raises `UserError` unless the options go together, and what they need is installed."""
    if arguments.tensorboard:
        command.need("tensorboardX", "tensorboard")
    launcher, chosen = arguments.launcher, fields.to_dict(arguments.resources)
    usual = {"chunk": None, "retries": 2} | fields.to_dict(Resources())
    given = {"chunk": arguments.chunk, "retries": arguments.retries} | chosen
    local = ("chunk", "retries", "parallel")
    for name, value in given.items():
        fits = launcher == "slurm" or (launcher == "local" and name in local)
        allowed = "left out without --launcher" + (" slurm" if name not in local else "")
        require(fits or value == usual[name], name, value, allowed)
    if launcher:
        command.need("submitit", "cluster")


def launch(
    arguments: Arguments, experiment: Experiment, seeds: Sequence[int], out: pathlib.Path
) -> None:
    """Lets jobs train what is missing, and sums up what is there."""
    from sumrnn.cli import launcher
    from sumrnn.devices import mesh, processor
    from sumrnn.study import runner
    from sumrnn.study.batch import BatchFolder

    assert arguments.launcher is not None
    batch, chosen = BatchFolder(out), arguments.resources
    engine = jobs.Engine(arguments.launcher, out, chosen)
    batch.check(experiment, arguments.anyway, anywhere=True)
    engine.check()
    batch.open(experiment, seeds, arguments.anyway, anywhere=True)
    engine.check_seen()
    missing = runner.missing(batch, experiment, seeds, command.warn)
    slots, size = None, (arguments.devices or chosen.cpus_per_task or 1)
    devices = arguments.devices
    if chosen.gpus_per_node:
        size = chosen.gpus_per_node * (arguments.per_device or jobs.PER_GPU)
    if arguments.launcher == "local":
        # submitit hides GPUs; one process uses them all.
        platform = mesh.available()[0].platform
        allowed = "left out where there are GPUs, or with JAX_PLATFORMS=cpu"
        require(platform == "cpu", "launcher", "local", allowed)
        slots = launcher.slots(processor.numbers(), chosen.parallel or processor.cores())
        size = devices = arguments.devices or len(slots[0])
        if not processor.is_masked():  # Other containers may have the same cores.
            slots = [()] * len(slots)
    template = Chunk(str(out.absolute()), devices, *arguments.ways)
    work = launcher.Launch(
        batch,
        engine,
        missing,
        arguments.chunk or size,
        template,
        slots,
        arguments.retries,
        launcher.PERIODS[arguments.launcher],
    )
    counts = progress.Counts(len(experiment.conditions) * len(seeds))
    try:
        with progress.of_jobs() as show:
            work.watch(counts, show)
    except (command.Stopped, BrokenPipeError) as signal:
        how = f"with {counts.done} of {counts.total} runs done; {counts.jobs} jobs go on, and "
        unread = isinstance(signal, BrokenPipeError)
        number = command.CLOSED if unread else signal.args[0]
        raise command.stopped(number, how + "the same command looks again") from None
    failed = work.failed()
    for (condition, seed), log in failed.items():
        where = "its job left no log" if log is None else f"see {log}"
        command.warn(f"{condition} with seed {seed} failed; {where}")
    sum_up(arguments, batch)
    if failed:
        raise UserError(f"{len(failed)} of {counts.total} runs failed", status=1)
    if counts.done == counts.total:
        engine.clear()


def sum_up(arguments: Arguments, batch: BatchFolder) -> None:
    """Writes and prints the summary of what is there."""
    from sumrnn.report import batch as report  # Not before: it takes memory and time.

    print(report.overview(report.write(batch, command.warn), batch.path))
    if arguments.tensorboard:
        from sumrnn.report import events

        events.write_all(batch)


def work(
    arguments: Arguments, experiment: Experiment, seeds: Sequence[int], out: pathlib.Path
) -> None:
    """Trains what is missing, and sums up what is there."""
    from sumrnn.cli import signals
    from sumrnn.devices import mesh
    from sumrnn.runs.recorder import Stop
    from sumrnn.study import runner
    from sumrnn.study.batch import BatchFolder

    batch = BatchFolder(out)
    if batch.check(experiment, arguments.anyway) is None:
        # Before anything is made; later, and the other conditions, when it is their turn.
        first = next(iter(experiment.conditions.values()))
        with progress.waiting("compiling"):
            mesh.prepare(first, len(seeds), arguments.per_device)
    batch.open(experiment, seeds, arguments.anyway)

    def train(stop: Stop) -> None:
        view = signals.until_closed(stop, show)
        given = (batch, experiment, seeds, stop, view, command.warn)
        done = runner.run(*given, *arguments.ways)
        if done.elsewhere:
            command.warn(f"{done.elsewhere} runs are being made by other processes")
        if stop.number is not None and done.done < done.total:
            how = f"with {done.done} of {done.total} runs done; the same command continues"
            raise command.stopped(stop.number, how)

    with progress.of_batch() as show:
        signals.attend(train, command.say)
    sum_up(arguments, batch)
