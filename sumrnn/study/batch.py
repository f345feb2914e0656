"""A batch: the runs of an experiment in one folder.

experiment.json             the declaration, the seeds asked for, what computes the runs; sealed
runs/CONDITION-seedSEED/    a run folder for each condition and seed
runs.csv, summary.json, summary.md, report.html, figures/*.png      rebuilt from these at any time
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from sumrnn import fields
from sumrnn.config import Config, Seed, check_seeds
from sumrnn.devices import cluster
from sumrnn.errors import UserError, require
from sumrnn.runs import files, locks, origin, recorder
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.locks import Held
from sumrnn.runs.origin import Origin
from sumrnn.runs.recorder import Stop
from sumrnn.study.experiment import PLOTS, Experiment

FORMAT = 4
PATIENCE = 3_600.0
"""Seconds to wait for other processes to begin the batch, or to sum it up."""
PROBED = 0.5
"""Seconds after which a run is free again that another process has only looked at."""
ENDED, ELSEWHERE = -1, -2
"""Instead of the epoch after which a run goes on."""
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
                made = found.made if found.made[-1] == now else (*found.made, now)
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


def missing(
    batch: BatchFolder,
    experiment: Experiment,
    seeds: Sequence[int],
    warn: Callable[[str], None] = lambda line: None,
) -> list[tuple[str, int]]:
    """Condition and seed of the runs that have not ended; `warn` is told what is damaged."""
    found = []
    for condition, config in experiment.conditions.items():
        for seed in seeds:
            try:
                begun = _begun(batch, condition, config, (seed,), warn, anyway=True)[seed]
            except UserError as error:  # Of this run alone.
                warn(str(error))
                begun = ELSEWHERE
            if begun != ENDED:
                found.append((condition, seed))
    return found


def _check_same(file: pathlib.Path, found: Experiment, asked: Experiment) -> None:
    if found.name != asked.name:
        raise UserError(f"{file}: is of the experiment {found.name!r}, not {asked.name!r}")
    names = sorted({*found.conditions, *asked.conditions})
    if other := [n for n in names if found.conditions.get(n) != asked.conditions.get(n)]:
        raise UserError(
            f"{file}: was made with other configs ({', '.join(other)}); choose another folder"
        )


@dataclasses.dataclass
class Progress:
    """How far a batch is."""

    total: int
    """Runs asked for."""
    done: int
    """Runs that have ended, in earlier starts or in this one."""
    todo: int
    """Seed-epochs that are missing when the batch starts."""
    condition: str = ""
    """Of the current wave, as the next three."""
    seeds: tuple[int, ...] = ()
    epochs: int = 0
    """Epochs of a run."""
    epoch: int = 0
    """Finished epochs."""
    worked: int = 0
    """Seed-epochs done since the start."""
    diverged: int = 0
    """Runs since the start whose numbers are no longer finite."""
    elsewhere: int = 0
    """Runs that other processes had when they were last looked at."""
    began: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def speed(self) -> float:
        """Seed-epochs per second since the start."""
        return self.worked / max(time.perf_counter() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Expected time until the end; NaN before the first epoch."""
        return (self.todo - self.worked) / self.speed if self.worked else float("nan")


def run(
    batch: BatchFolder,
    experiment: Experiment,
    seeds: Sequence[int],
    stop: Stop,
    view: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda line: None,
    every: int | None = None,
    per_device: int | None = None,
    anyway: bool = False,
    keep: int = 1,
) -> Progress:
    """Runs what is missing in an open batch, for every condition and seed.

    What other processes have is left to them, and taken only when they have ended without it.
    `view` is shown the progress after every epoch and wave, `warn` told what is damaged and made
    again; for the rest, and what is raised, see `recorder.record` and `origin.check_same`.  Several
    processes call this together; only the first one touches the folder.
    """
    left = {condition: set(seeds) for condition in experiment.conditions}
    progress = Progress(len(seeds) * len(left), 0, 0)

    def look() -> dict[str, dict[int, int]]:
        """What nobody has of what is left: after which epoch it goes on."""
        begun, progress.elsewhere = {}, 0
        for condition, config in experiment.conditions.items():
            found = _begun(batch, condition, config, sorted(left[condition]), warn, anyway)
            begun[condition] = {seed: epoch for seed, epoch in found.items() if epoch >= 0}
            ended = {seed for seed, epoch in found.items() if epoch == ENDED}
            left[condition] -= ended
            progress.done += len(ended)
            progress.elsewhere += list(found.values()).count(ELSEWHERE)
            progress.todo += sum(config.train.epochs - epoch for epoch in begun[condition].values())
        return begun

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        progress.seeds, progress.epoch = tuple(seeds), epoch
        progress.worked += len(seeds)
        view(progress)

    begun = look()
    cluster.first_does(lambda: view(progress))
    while any(begun.values()):
        for condition, config in experiment.conditions.items():
            progress.condition, progress.epochs = condition, config.train.epochs
            folders = {seed: batch.run(condition, seed) for seed in begun[condition]}
            for wave in recorder.record(
                folders,
                begun[condition],
                config,
                condition,
                stop,
                watch,
                every,
                per_device,
                keep=keep,
            ):
                status = list(wave.status.values())
                progress.done += len(status) - status.count("unfinished")
                progress.diverged += status.count("diverged")
                progress.todo -= (config.train.epochs - wave.epoch) * len(status)
                progress.epoch = 0
                left[condition] -= set(wave.status)
                cluster.first_does(lambda: view(progress))
            if recorder.agreed(stop):
                return progress
            # Others took them first; they are looked at again.
            lost = left[condition] & set(folders)
            progress.todo -= sum(config.train.epochs - begun[condition][seed] for seed in lost)
        begun = look()
        if progress.elsewhere and not any(begun.values()):
            time.sleep(PROBED)
            begun = look()
    return progress


def _begun(
    batch: BatchFolder,
    condition: str,
    config: Config,
    seeds: Sequence[int],
    warn: Callable[[str], None],
    anyway: bool,
) -> dict[int, int]:
    """By seed: after which epoch a run goes on, or that it is `ENDED` or another process's."""
    found = np.full(len(seeds), ENDED)

    def look() -> None:
        for i, seed in enumerate(seeds):
            folder = batch.run(condition, seed)
            try:
                with contextlib.ExitStack() as held:
                    if folder.status() == "unfinished" and folder.path.exists():
                        held.enter_context(folder.lock())  # Or it would change meanwhile.
                    status, epoch, wrong = folder.survey(config, seed, anyway)
            except Held as held:
                found[i] = ELSEWHERE
                if held.silent:
                    warn(str(held))
                continue
            for line in wrong:
                warn(f"{line}; continuing after epoch {epoch}")
            if status == "unfinished":
                found[i] = epoch

    cluster.first_does(look)
    return dict(zip(seeds, cluster.from_first(found).tolist(), strict=True))
