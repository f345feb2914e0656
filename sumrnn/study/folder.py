"""The folder of an experiment: its declaration, and a run folder for each condition and seed.

experiment.json             the declaration and the seeds asked for
runs/CONDITION-seedSEED/    a run folder for each condition and seed
runs.csv, times.csv, summary.json, summary.md, report.html, figures/*.png
                            rebuilt from these at any time
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Iterator

from sumrnn import fields
from sumrnn.errors import UserError
from sumrnn.runs import files, lock, origin
from sumrnn.runs.folder import CONFIG, RunFolder
from sumrnn.runs.record import Record
from sumrnn.runs.recorder import Spec
from sumrnn.seeds import Seed, check_seeds
from sumrnn.study.experiment import Experiment

FORMAT = 5
EARLIER = {4: {"made": None}}
"""Formats that are read too; there the origins of all runs stood here."""
PATIENCE = 3_600.0
"""Seconds to wait for other processes to begin the experiment, or to sum it up."""
EXPERIMENT = "experiment.json"
RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The content of experiment.json."""

    experiment: Experiment
    seeds: tuple[Seed, ...]
    """For every condition, ascending; `experiment.seeds` is what it has by default."""

    def __post_init__(self) -> None:
        fields.check(self)
        check_seeds("seeds", self.seeds)


class ExperimentFolder:
    """An experiment on disk.

    Args:
      path: of the folder, which need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def is_experiment(self) -> bool:
        """Whether there is an experiment, whose declaration may be damaged."""
        with files.reading(self.path):
            return (self.path / EXPERIMENT).exists()

    def run(self, condition: str, seed: int) -> RunFolder:
        """The folder of the run of a condition and seed."""
        return RunFolder(self.path / RUNS / f"{condition}-seed{seed}")

    def specs(self, experiment: Experiment, seeds: Iterable[int]) -> list[Spec]:
        """The runs of these seeds, condition by condition."""
        return [
            Spec(self.run(name, seed), name, config, seed)
            for name, config in experiment.conditions.items()
            for seed in seeds
        ]

    def check(
        self, experiment: Experiment, *, anyway: bool = False, anywhere: bool = False
    ) -> Declaration | None:
        """The declaration that is there and may be continued; None where a new one may begin.

        With `anywhere` the runs may be made on other kinds of devices than here.

        Raises `UserError` if the folder holds something else: another experiment, other configs, or
        only runs that were made by something else (see `origin.check_same`).  Touches nothing.
        """
        file = self.path / EXPERIMENT
        with files.writing(self.path):
            if files.is_empty(self.path):
                return None
            if not file.exists():
                raise UserError(
                    f"{self.path}: must be new, empty or a batch of this experiment; "
                    f"it has other content and no {EXPERIMENT}, so it is left alone"
                )
        declared = self.read()
        _check_same(file, declared.experiment, experiment)
        for name in () if anyway else experiment.conditions:
            self._check_origin(name, declared, anywhere)
        return declared

    def _check_origin(self, condition: str, declared: Declaration, anywhere: bool) -> None:
        """Raises `UserError` if runs of a condition are there, and none is made as it would be now.

        Those of an earlier version stay beside those that were continued anyway.
        """
        first: tuple[pathlib.Path, origin.Origin] | None = None
        now = None
        for folder, record in self._records(condition, declared.seeds):
            now, before = now or origin.current(record.config), record.last_origin
            before = origin.on_device_of(before, now) if anywhere else before
            if origin.difference(before, now) is None:
                return
            first = first or (folder.path / CONFIG, before)
        if first and now:
            origin.check_same(*first, now, anyway=False)

    def _records(self, condition: str, seeds: Iterable[int]) -> Iterator[tuple[RunFolder, Record]]:
        """The runs of a condition that are there, with their records, but for damaged ones."""
        for seed in seeds:
            folder = self.run(condition, seed)
            with contextlib.suppress(UserError):
                if folder.is_run():
                    yield folder, folder.read()

    def open(
        self,
        experiment: Experiment,
        seeds: Collection[int],
        *,
        anyway: bool = False,
        anywhere: bool = False,
    ) -> None:
        """Begins the experiment, or makes sure that it may be continued; earlier seeds stay.

        Raises `UserError` as `check` does, or if the folder cannot be written.
        """
        self.check(experiment, anyway=anyway, anywhere=anywhere)  # Before a lock is made.
        with self.lock(), files.writing(self.path):
            declared = self.check(experiment, anyway=True)
            seeds = {*seeds, *(declared.seeds if declared else ())}
            declared = Declaration(experiment, tuple(sorted(seeds)))
            files.write_json(self.path / EXPERIMENT, declared, FORMAT)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """A context in which no other process writes declaration or summary; others wait for it."""
        return lock.hold(self.path, PATIENCE)

    def read(self) -> Declaration:
        """The content of experiment.json.

        Raises `UserError` if it is missing, unreadable or damaged.
        """
        return files.read_json(self.path / EXPERIMENT, Declaration, FORMAT, EARLIER)


def _check_same(file: pathlib.Path, declared: Experiment, asked: Experiment) -> None:
    """Raises `UserError` unless both are the same experiment with the same configs."""
    if declared.name != asked.name:
        raise UserError(f"{file}: is of the experiment {declared.name!r}, not {asked.name!r}")
    names = sorted({*declared.conditions, *asked.conditions})
    if other := [n for n in names if declared.conditions.get(n) != asked.conditions.get(n)]:
        raise UserError(
            f"{file}: was made with other configs ({', '.join(other)}); choose another folder"
        )
