"""Runs every condition of an experiment with every seed, on all devices, and sums it up.

Started again on the same folder, it continues with what is missing.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated

import tyro

from sumrnn import fields
from sumrnn.cli import analyze, command, console, declaration, jobs, pool, progress, signals
from sumrnn.cli.command import Text
from sumrnn.cli.jobs import Launcher, Resources
from sumrnn.errors import UserError, need, require
from sumrnn.fields import Range

if TYPE_CHECKING:
    from sumrnn.runs.progress import Progress
    from sumrnn.runs.recorder import Spec
    from sumrnn.runs.work import Options
    from sumrnn.study.folder import ExperimentFolder

Count = Annotated[int, Range(1, 10**9)]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The runs of an experiment."""

    name: tyro.conf.Positional[str]
    """Which experiment: one of the package's own, such as reproduce, or a file of your own, such as
    mine.py, that declares an EXPERIMENT like theirs."""
    seeds: Text | None = None
    """Seeds such as 0:32 (0 to 31) or 3,5,8:12; None: what the experiment says."""
    out: Text | None = None
    """Folder of the experiment; None: runs/NAME."""
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
    retries: Annotated[int, Range(0, 100)] = 2
    """How often a run is tried again that fails, or whose process is killed, before its next
    checkpoint."""
    launcher: Launcher | None = None
    """Let jobs make the runs, as many as --parallel: local, processes of this machine, or slurm;
    needs sumrnn[cluster].  None: this process makes them."""
    resources: Resources = dataclasses.field(default_factory=Resources)


def main(argv: list[str]) -> None:
    """Makes the runs that are missing, writes the summary and prints it."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    fields.check(arguments)
    check(arguments)
    experiment = declaration.find(arguments.name)
    name = pathlib.Path(arguments.name).stem
    out = command.folder("out", f"runs/{name}" if arguments.out is None else arguments.out)

    # Imported late, so that --help is quick.
    from sumrnn.devices import mesh
    from sumrnn.runs import work
    from sumrnn.study.experiment import parse_seeds
    from sumrnn.study.folder import ExperimentFolder

    seeds = parse_seeds("seeds", experiment.seeds if arguments.seeds is None else arguments.seeds)
    mesh.use_cores(arguments.devices)
    folder, anywhere = ExperimentFolder(out), arguments.launcher is not None
    new = folder.check(experiment, anyway=arguments.anyway, anywhere=anywhere) is None
    if arguments.launcher:
        pool.check(arguments.launcher, out)
    elif new:  # Whether memory holds it; later conditions when it is their turn.
        first = next(iter(experiment.conditions.values()))
        with progress.waiting("compiling"):
            mesh.prepare(first, len(seeds), arguments.per_device)
    folder.open(experiment, seeds, anyway=arguments.anyway, anywhere=anywhere)
    specs = folder.specs(experiment, seeds)
    left = work.missing(specs)
    work.forgive(left, arguments.retries)
    make = launch if arguments.launcher else train
    done = make(arguments, folder, left, len(specs) - len(left))
    sum_up(arguments, folder, done)


def check(arguments: Arguments) -> None:
    """Raises `UserError` unless the options go together, and what they need is installed."""
    if arguments.tensorboard:
        need("tensorboardX", "tensorboard")
    launcher, usual = arguments.launcher, fields.to_dict(Resources())
    for name, value in fields.to_dict(arguments.resources).items():
        local = name == "parallel"
        fits = launcher == "slurm" or (launcher == "local" and local)
        allowed = "left out without --launcher" + ("" if local else " slurm")
        require(fits or value == usual[name], name, value, allowed)
    if launcher:
        need("submitit", "cluster")


def options_of(arguments: Arguments) -> Options:
    """How the runs are made."""
    from sumrnn.runs.work import Options

    return Options(
        checkpoint_every=arguments.checkpoint_every,
        per_device=arguments.per_device,
        anyway=arguments.anyway,
        keep=arguments.keep,
        retries=arguments.retries,
    )


def train(arguments: Arguments, folder: ExperimentFolder, specs: list[Spec], done: int) -> Progress:
    """Makes runs in this process; raises `UserError` if a signal ends it early."""
    from sumrnn.runs import work

    def run(stop: signals.Stop) -> Progress:
        view = signals.until_closed(stop, show)
        options = options_of(arguments)
        progress = work.work(specs, options, stop, done=done, view=view, warn=console.warn)
        if stop() and progress.done < progress.total:
            how = f"with {progress.done} of {progress.total} runs done; the same command continues"
            raise signals.stopped(stop.number, how)
        return progress

    with progress.of_experiment() as show:
        return signals.attend(run)


def launch(
    arguments: Arguments, folder: ExperimentFolder, specs: list[Spec], done: int
) -> Progress:
    """Lets jobs make runs, and waits for them; they go on where a signal ends this process."""
    assert arguments.launcher is not None
    from sumrnn.cli import watch

    resources, options, devices = arguments.resources, options_of(arguments), arguments.devices
    slots = pool.slots(resources.parallel) if arguments.launcher == "local" else None
    submitted = pool.Pool(arguments.launcher, folder.path, resources, slots)
    submitted.check_seen()
    if slots:
        devices = devices or len(slots[0])
    if resources.gpus_per_node:
        max_wave = resources.gpus_per_node * (options.per_device or jobs.PER_GPU)
        options = dataclasses.replace(options, max_wave=max_wave)
    seeds = tuple(dict.fromkeys(spec.seed for spec in specs))
    job = jobs.Job(str(folder.path.absolute()), seeds, options, devices)
    with progress.of_experiment() as show, signals.stopping() as stop:
        stop.words = "leaves the jobs at work; once more ends it now"
        view = signals.until_closed(stop, show)
        ended = watch.watch(submitted, job, specs, stop=stop, done=done, view=view)
    if stop() and ended.done < ended.total:
        going = f"{ended.done} of {ended.total} runs done; {sum(ended.jobs.values())} jobs go on"
        raise signals.stopped(stop.number, f"with {going}, and the same command looks again")
    return ended


def sum_up(arguments: Arguments, folder: ExperimentFolder, ended: Progress) -> None:
    """Measures the probes that finished runs lack, and writes and prints the summary.

    Raises `UserError` if runs have failed.
    """
    for (name, seed), why in ended.failures.items():
        console.warn(f"{name} with seed {seed} failed; {why}")
    if ended.elsewhere:
        console.warn(f"{ended.elsewhere} runs are being made by other processes")
    if folder.read().experiment.probes:
        from sumrnn.study import probe

        with progress.live() as show:
            probe.measure(folder, show)
    analyze.report(folder.path, arguments.tensorboard)
    if ended.failures:
        failed = f"{len(ended.failures)} of {ended.total} runs failed"
        raise UserError(f"{failed}; the same command tries them again", status=1)
