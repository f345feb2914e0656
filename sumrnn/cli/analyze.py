"""Rebuilds what is read and looked at, of a run or an experiment, from its folder alone."""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from sumrnn.cli import command, console
from sumrnn.errors import need


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to analyze."""

    folder: tyro.conf.Positional[str]
    """Folder of a finished run, or of an experiment."""
    tensorboard: bool = False
    """Write histories for TensorBoard too; needs sumrnn[tensorboard]."""


def main(argv: list[str]) -> None:
    """Reads the folder, writes its report and prints the summary."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    path = command.folder("folder", arguments.folder)
    if arguments.tensorboard:
        need("tensorboardX", "tensorboard")
    report(path, arguments.tensorboard)


def report(path: pathlib.Path, tensorboard: bool) -> None:
    """Writes the report of a run or an experiment, for TensorBoard too if asked, and prints it."""
    from sumrnn.report import events  # Imported late: it takes memory and time.
    from sumrnn.study.folder import ExperimentFolder

    if ExperimentFolder(path).is_experiment():
        from sumrnn.report import experiment

        print(experiment.overview(experiment.write(ExperimentFolder(path), console.warn), path))
        if tensorboard:
            events.write_all(ExperimentFolder(path))
    else:
        from sumrnn.report import run
        from sumrnn.runs.folder import RunFolder

        print(run.overview(run.write(RunFolder(path), console.warn), path))
        if tensorboard:
            events.write(RunFolder(path))
