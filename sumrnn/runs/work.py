"""The worker: it claims runs that no process has, trains them as a wave, and finishes them.

The folders of the runs are the queue.  Any number of workers may be at work on the same ones, on
any number of machines: what one has locked, or has finished, is left alone by the others.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

from sumrnn import errors
from sumrnn.devices import mesh
from sumrnn.devices.mesh import CompiledFunctions
from sumrnn.errors import UserError
from sumrnn.fields import Range
from sumrnn.runs import files, lock, recorder
from sumrnn.runs.folder import ERROR, Survey
from sumrnn.runs.lock import Held
from sumrnn.runs.progress import Progress
from sumrnn.runs.recorder import Spec, Stop

PAUSE = 0.5
"""Seconds after which a run is free again that another process has only looked at."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How runs are made, which changes none of their numbers."""

    checkpoint_every: Annotated[int, Range(1, 10**9)] | None = None
    """Epochs between checkpoints; None: as many as cost 1 % of the time."""
    per_device: Annotated[int, Range(1, 10**9)] | None = None
    """Seeds that a GPU or TPU takes per wave; None: what its memory holds."""
    anyway: bool = False
    """Whether runs are continued that other versions or processors have begun."""
    keep: Annotated[int, Range(0, 1)] = 1
    """Checkpoints that a finished run keeps."""
    max_wave: Annotated[int, Range(1, 10**9)] | None = None
    """Runs that a process trains at a time at most; None: what its devices take."""
    retries: Annotated[int, Range(0, 100)] = 2
    """How often a run is tried again that ended before its next checkpoint."""


Warn = Callable[[str], None]


def missing(
    specs: Iterable[Spec], failures: dict[tuple[str, int], str] | None = None
) -> list[Spec]:
    """The runs that have not ended, whatever process has them.

    Raises `UserError` if a folder holds something else, or another run; where `failures` are
    collected, that is put there instead.
    """
    left = []
    for spec in specs:
        try:
            ended = has_ended(spec)
        except UserError as error:
            if failures is None:
                raise
            failures[spec.name, spec.seed] = str(error)
        else:
            left += [] if ended else [spec]
    return left


def has_ended(spec: Spec) -> bool:
    """Whether a run has ended and all its files are whole; raises as `missing` does."""
    if spec.folder.status() == "unfinished":
        return False
    return spec.folder.survey(spec.config, spec.seed, anyway=True).status != "unfinished"


def forgive(specs: Iterable[Spec], retries: int) -> None:
    """Lets runs that were given up be tried anew: somebody has asked for them again."""
    for spec in specs:
        if failure(spec, spec.folder.attempts(), retries):
            spec.folder.forgive()


def failure(spec: Spec, attempts: int, retries: int, *, cause: str | None = None) -> str | None:
    """Why a run is not tried any more, by its file or the cause that is known; None if it is."""
    if attempts <= retries:
        return None
    file = spec.folder.path / ERROR
    killed = f"its process ended {attempts} times before a checkpoint"
    return f"see {file}" if file.exists() else cause or killed


def work(
    specs: Sequence[Spec],
    options: Options,
    stop: Stop = lambda: False,
    *,
    done: int = 0,
    view: Callable[[Progress], None] = lambda progress: None,
    warn: Warn = lambda line: None,
) -> Progress:
    """Trains runs, as from `missing`, until none is left that this process may take.

    Runs of a condition go together in waves, those that are furthest first; a run that failed goes
    alone.  One that raises leaves its traceback in its folder, and the others go on.

    Args:
      specs: the runs.
      options: how they are made.
      stop: is asked after each epoch and wave.
      done: runs that had ended before, for the progress.
      view: is shown the progress after each epoch and wave.
      warn: is told what is damaged, and where training goes on.

    Raises `UserError` if memory does not hold a run, `OSError` if the disk is full.
    """
    return _Worker(specs, options, stop, view, warn).run(done)


class _Worker:
    """A process at work on the folders of runs."""

    def __init__(
        self,
        specs: Sequence[Spec],
        options: Options,
        stop: Stop,
        view: Callable[[Progress], None],
        warn: Warn,
    ) -> None:
        names = list(dict.fromkeys(spec.name for spec in specs))
        self._epochs = {spec: max(spec.folder.checkpoints.epochs(), default=0) for spec in specs}
        """How far the runs seem to be that are left."""
        self._left = sorted(specs, key=lambda s: (names.index(s.name), -self._epochs[s]))
        self._options, self._stop, self._view, self._warn = options, stop, view, warn
        self._compiled: dict[str, CompiledFunctions] = {}
        self._raised: collections.Counter[Spec] = collections.Counter()
        self._causes: dict[Spec, str] = {}
        """What the training of runs raised last."""
        self._faults: dict[Spec, str] = {}
        """What kept runs from being locked when they were looked at last."""
        self._lost = 0
        self._progress = Progress(len(specs))

    def run(self, done: int) -> Progress:
        """Works until nothing is left, or somebody asks for an end."""
        progress, looked_again = self._progress, False
        progress.total, progress.done = progress.total + done, done
        progress.todo = sum(self._missing(spec) for spec in self._left)
        self._view(progress)
        while self._left and not self._stop():
            with contextlib.ExitStack() as locks:
                if claims := self._claim(locks):
                    self._train(claims)
            if not claims and (looked_again or not progress.elsewhere):
                break
            time.sleep(0 if claims else PAUSE)
            looked_again = not claims
        for spec, fault in self._faults.items() if not self._stop() else ():
            progress.elsewhere -= 1
            self._drop(spec, fault)
        progress.elsewhere += self._lost
        return progress

    def _missing(self, spec: Spec) -> int:
        """Epochs that a run seems to lack."""
        return spec.config.train.epochs - self._epochs[spec]

    def _functions(self, spec: Spec) -> CompiledFunctions:
        """The compiled functions of all runs of a condition."""
        if spec.name not in self._compiled:
            count = sum(other.name == spec.name for other in self._left)
            count = min(count, self._options.max_wave or count)
            config, per_device = spec.config, self._options.per_device
            self._compiled[spec.name] = mesh.prepare(config, count, per_device)
        return self._compiled[spec.name]

    def _claim(self, locks: contextlib.ExitStack) -> list[Spec]:
        """Locks runs that no process has, as many as make a wave: of one config, equally far."""
        claims: list[Spec] = []
        size, self._progress.elsewhere = 1, 0
        for spec in list(self._left):
            if len(claims) == size or self._stop():
                break
            first = claims[0] if claims else spec
            if (spec.name, self._epochs[spec]) != (first.name, self._epochs[first]):
                continue
            with contextlib.ExitStack() as held:
                if not self._lock(spec, held) or (survey := self._survey(spec)) is None:
                    continue
                failed = self._attempts(spec) > 0
                if claims and (failed or survey.epoch != self._epochs[first]):
                    continue
                self._progress.todo += self._epochs[spec] - survey.epoch
                self._epochs[spec] = survey.epoch
                for line in survey.wrong:
                    self._warn(f"{line}; continuing after epoch {survey.epoch}")
                claims.append(spec)
                locks.push(held.pop_all())
                if len(claims) == 1 and not failed:
                    size = self._functions(spec).plan.wave_size
                    lock.allow(size)
        return claims

    def _lock(self, spec: Spec, locks: contextlib.ExitStack) -> bool:
        """Locks the folder of a run, unless another process has it or it cannot be locked now."""
        self._faults.pop(spec, None)
        try:
            locks.enter_context(spec.folder.lock())
        except UserError as error:  # It may be gone when it is looked at again.
            self._progress.elsewhere += 1
            if not isinstance(error, Held):
                self._faults[spec] = str(error)
            return False
        return True

    def _survey(self, spec: Spec) -> Survey | None:
        """How far a locked run is; None if it is not to be trained, and so is left alone."""
        try:
            survey = spec.folder.survey(spec.config, spec.seed, self._options.anyway)
        except UserError as error:  # Of this run alone.
            self._drop(spec, str(error))
            return None
        if survey.status != "unfinished":  # Another worker has made it.
            self._progress.done += 1
            self._drop(spec)
            return None
        cause, retries = self._causes.get(spec), self._options.retries
        if why := failure(spec, self._attempts(spec), retries, cause=cause):
            self._drop(spec, why)
            return None
        return survey

    def _attempts(self, spec: Spec) -> int:
        """How often a locked run was started, or raised here, since its newest checkpoint."""
        return max(spec.folder.attempts(), self._raised[spec])

    def _drop(self, spec: Spec, why: str | None = None) -> None:
        """Leaves a run alone from now on; `why` it failed, if it did."""
        self._left.remove(spec)
        self._progress.todo -= self._missing(spec)
        if why is not None:
            self._progress.failures[spec.name, spec.seed] = why

    def _train(self, specs: Sequence[Spec]) -> None:
        """Trains a wave, and takes note of what came of it."""
        progress, options = self._progress, self._options
        progress.name, progress.epochs = specs[0].name, specs[0].config.train.epochs
        start = self._epochs[specs[0]]
        epoch = start

        def watch(seeds: Sequence[int], number: int, row: recorder.Row) -> None:
            nonlocal epoch
            progress.seeds, progress.epoch, epoch = tuple(seeds), number, number
            progress.worked += len(seeds)
            self._view(progress)

        try:
            ended = recorder.train(
                specs,
                start,
                self._functions(specs[0]),
                stop=self._stop,
                every=options.checkpoint_every,
                keep=options.keep,
                watch=watch,
            )
        except Exception as error:
            if files.is_full(error):
                raise
            self._raised.update(specs)
            self._causes |= dict.fromkeys(specs, errors.cause(error))
            progress.worked -= len(specs) * (epoch - start)  # It is done once more.
            return
        finally:
            progress.epoch = 0
        for spec in specs:
            status, self._epochs[spec] = ended.status[spec.seed], ended.epoch
            progress.done += status != "unfinished"
            progress.diverged += status == "diverged"
            if status != "unfinished" or spec.seed in ended.lost:
                self._lost += spec.seed in ended.lost
                self._drop(spec)
        self._view(progress)
