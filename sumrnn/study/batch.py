"""A batch: the runs of an experiment in one folder.

experiment.json             the declaration, the seeds asked for, what computes the runs; sealed
runs/CONDITION-seedSEED/    a run folder for each condition and seed
runs.csv, summary.json, summary.md, report.html, figures/*.png      rebuilt from these at any time
"""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Collection, Iterable, Mapping

from sumrnn import fields
from sumrnn.config import Seed, check_seeds
from sumrnn.errors import UserError, require
from sumrnn.runs import files, locks, origin
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.origin import Origin
from sumrnn.study.experiment import PLOTS, Experiment

FORMAT = 4
PATIENCE = 3_600.0
"""Seconds to wait for other processes to begin the batch, or to sum it up."""
EXPERIMENT = "experiment.json"
RUNS = "runs"


class BatchOrigin(Origin):
    """What computes the runs of a batch."""

    programs: dict[str, str]
    """The `code` of each condition; that among `versions` stands for all of them."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """The content of experiment.json."""

    experiment: Experiment
    seeds: tuple[Seed, ...]
    """For every condition, ascending; `experiment.seeds` is what it has by default."""
    made: tuple[BatchOrigin, ...]
    """What computed the first runs, and the later ones that were continued anyway."""

    def __post_init__(self) -> None:
        fields.check(self)
        check_seeds("seeds", self.seeds)
        require(len(self.made) > 0, "made", self.made, "at least one")
        for made in self.made:
            origin.check(made)


def origin_of(experiment: Experiment) -> BatchOrigin:
    """What computes the runs of an experiment here."""
    programs = {
        name: origin.program(config.program) for name, config in experiment.conditions.items()
    }
    codes = sorted(set(programs.values()))
    code = codes[0] if len(codes) == 1 else hashlib.sha256(repr(codes).encode()).hexdigest()[:12]
    return BatchOrigin(
        versions={"code": code} | origin.versions(),
        device=origin.device(),
        settings=origin.settings(),
        programs=programs,
    )


class BatchFolder:
    """The folder of a batch; only this class joins paths in it.

    Args:
      path: of the folder, which need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def is_batch(self) -> bool:
        """Whether there is a batch, whose declaration may be damaged."""
        with files.reading(self.path):
            return (self.path / EXPERIMENT).exists()

    def run(self, condition: str, seed: int) -> RunFolder:
        """Where a run is."""
        return RunFolder(self.path / RUNS / f"{condition}-seed{seed}")

    def check(
        self, experiment: Experiment, anyway: bool = False, anywhere: bool = False
    ) -> Batch | None:
        """The batch that is there and may be continued; None where one may begin.

        With `anywhere` its runs may be made on other kinds of devices than here.

        Raises `UserError` if the folder holds something else: another experiment, other configs, or
        runs that were made by something else (see `origin.check_same`).  Touches nothing.
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
        found = self.read()
        _check_same(file, found.experiment, experiment)
        origin.check_same(file, found.made[-1], _now(experiment, found, anywhere), anyway)
        return found

    def open(
        self,
        experiment: Experiment,
        seeds: Collection[int],
        anyway: bool = False,
        anywhere: bool = False,
    ) -> None:
        """Starts the batch, or makes sure that it may be continued; earlier seeds stay.

        Raises `UserError` as `check` does, or if the folder cannot be written.
        """
        self.check(experiment, anyway, anywhere)  # Before anything is made, were it a lock.
        with self.lock(), files.writing(self.path):
            found = self.check(experiment, anyway, anywhere)
            now = _now(experiment, found, anywhere)
            made: tuple[BatchOrigin, ...] = (now,)
            if found:
                seeds = {*seeds, *found.seeds}
                same = origin.difference(found.made[-1], now) is None
                made = found.made if same else (*found.made, now)
            batch = Batch(experiment, tuple(sorted(seeds)), made)
            files.write_json(self.path / EXPERIMENT, batch, FORMAT)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Makes declaration and summary this process's own; others wait a while for it."""
        return locks.lock(self.path, PATIENCE)

    def read(self) -> Batch:
        """The content of experiment.json, checked.

        Raises `UserError` if it is missing, unreadable or damaged.
        """
        return files.read_json(self.path / EXPERIMENT, Batch, FORMAT)

    def write_report(
        self, texts: Mapping[str, bytes | str], pictures: Iterable[tuple[str, bytes]]
    ) -> None:
        """Writes what is rebuilt from the runs; see `files.write_report`."""
        files.write_report(self.path, texts, pictures, known=PLOTS)


def _now(experiment: Experiment, found: Batch | None, anywhere: bool) -> BatchOrigin:
    """What computes here; of a batch whose runs are made elsewhere, on the same devices."""
    now = origin_of(experiment)
    if not found or not anywhere:
        return now
    made = found.made[-1]
    if made["device"].get("platform") != now["device"]["platform"]:  # It compiles otherwise.
        now["programs"] = made["programs"]
        now["versions"] |= {"code": made["versions"]["code"]}
    now["device"] = made["device"]
    return now


def expected(made: BatchOrigin, condition: str, found: Origin) -> Origin:
    """The origin of a batch as its runs of a condition have it on the devices of `found`.

    The program is only compared on the same platform: for another one it is compiled otherwise.
    """
    same = made["device"].get("platform") == found["device"].get("platform")
    code = made["programs"][condition] if same else found["versions"].get("code", "")
    versions = made["versions"] | {"code": code}
    return Origin(versions=versions, device=found["device"], settings=made["settings"])


def check_here(batch: BatchFolder, condition: str, anyway: bool) -> Experiment:
    """Makes sure that runs of a condition can be made here, on whatever kind of device.

    Returns the experiment with this condition alone.  Raises `UserError` if there is no batch, it
    is damaged, or was begun with other versions or settings.
    """
    found = batch.read()
    now = origin.here(found.experiment.conditions[condition])
    made = expected(found.made[-1], condition, now)
    origin.check_same(batch.path / EXPERIMENT, made, now, anyway)
    return found.experiment.only(condition)


def _check_same(file: pathlib.Path, found: Experiment, asked: Experiment) -> None:
    if found.name != asked.name:
        raise UserError(f"{file}: is of the experiment {found.name!r}, not {asked.name!r}")
    names = sorted({*found.conditions, *asked.conditions})
    if other := [n for n in names if found.conditions.get(n) != asked.conditions.get(n)]:
        raise UserError(
            f"{file}: was made with other configs ({', '.join(other)}); choose another folder"
        )
