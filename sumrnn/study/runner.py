"""The runner of a batch: makes what is missing of it, and leaves alone what others make."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.runs import recorder
from sumrnn.runs.locks import Held
from sumrnn.runs.recorder import Stop
from sumrnn.study.batch import BatchFolder
from sumrnn.study.experiment import Experiment

ENDED, ELSEWHERE = -1, -2
"""Instead of the epoch after which a run goes on."""
PROBED = 0.5
"""Seconds after which a run is free again that another process has only looked at."""


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
    again; for the rest, and what is raised, see `recorder.record` and `origin.check_same`.
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

    def free() -> dict[str, dict[int, int]]:
        """The same, once more where all is held: others may only have looked at it."""
        begun = look()
        if progress.elsewhere and not any(begun.values()):
            time.sleep(PROBED)
            begun = look()
        return begun

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        progress.seeds, progress.epoch = tuple(seeds), epoch
        progress.worked += len(seeds)
        view(progress)

    begun = free()
    view(progress)
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
                view(progress)
            if stop.number is not None:
                return progress
            # Others took them first; they are looked at again.
            lost = left[condition] & set(folders)
            progress.todo -= sum(config.train.epochs - begun[condition][seed] for seed in lost)
        begun = free()
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
    found = {}
    for seed in seeds:
        folder = batch.run(condition, seed)
        try:
            with contextlib.ExitStack() as held:
                if folder.status() == "unfinished" and folder.path.exists():
                    held.enter_context(folder.lock())  # Or it would change meanwhile.
                status, epoch, wrong = folder.survey(config, seed, anyway)
        except Held as held:
            found[seed] = ELSEWHERE
            if held.silent:
                warn(str(held))
            continue
        for line in wrong:
            warn(f"{line}; continuing after epoch {epoch}")
        found[seed] = epoch if status == "unfinished" else ENDED
    return found


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
