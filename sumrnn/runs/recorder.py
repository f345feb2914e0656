"""Trains seeds of one config and keeps each in its run folder, so that nothing is lost."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sumrnn.config import Config
from sumrnn.devices import mesh
from sumrnn.devices.mesh import Program
from sumrnn.devices.wave import Moment, Start, Wave
from sumrnn.errors import invalid
from sumrnn.models.network import Params
from sumrnn.runs import checkpoint, locks
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.locks import Held
from sumrnn.runs.record import Status
from sumrnn.scores.strata import Counts
from sumrnn.task import Splits
from sumrnn.train import run as algorithm
from sumrnn.train.run import Metrics, Result

SHARE = 0.01
"""Of the time, for checkpoints, unless one is asked for every so many epochs."""
FIRST = 0.01
"""Seconds that a checkpoint is taken to need before one was written."""

Row = dict[str, float]
"""An epoch of a run, by the columns of history.csv."""
Watch = Callable[[Sequence[int], int, Row], None]
"""Called after each epoch with the seeds of the wave, the number of finished epochs, and the last
row of the first seed."""


@dataclasses.dataclass
class Stop:
    """Whether the work shall end early."""

    number: int | None = None
    """The signal that asks for it; the work ends when its state is safe."""


class Ended(NamedTuple):
    """How far a wave came."""

    epoch: int
    """Finished epochs of its runs; of one that diverged perhaps fewer."""
    status: dict[int, Status]
    """By seed."""


def record(
    folders: Mapping[int, RunFolder],
    epochs: Mapping[int, int],
    config: Config,
    name: str,
    stop: Stop,
    watch: Watch = lambda seeds, epoch, row: None,
    every: int | None = None,
    per_device: int | None = None,
    params: Params | None = None,
    keep: int = 1,
) -> Iterator[Ended]:
    """Trains runs from where they are to their end; yields after each wave how far it came.

    A run that another process has, or that has moved on since it was surveyed, is left alone.

    Args:
      folders: of each run, by seed.
      epochs: by seed, where it goes on, as from `RunFolder.survey`; 0: from its beginning.
      config: of all runs.
      name: of all runs, for new folders.
      stop: when it has a number, the wave ends with a checkpoint after its epoch, as the last.
      watch: is called after each epoch.
      every: epochs between checkpoints, at least 1; None: as many as keep them to `SHARE` of the
        time.  There is always one after the last epoch.
      per_device: see `mesh.prepare`.
      params: those that runs begin with, if their config has the digest of weights.
      keep: checkpoints that a finished run keeps.

    Raises `UserError` if memory does not hold a run, or a folder cannot be written, or has a
    damaged checkpoint; `OSError` if the disk is full, or fails.
    """
    if every is not None and every < 1:
        raise invalid("checkpoint_every", every, "at least 1")
    if not all(epochs[seed] for seed in folders):
        algorithm.check_given(config, params)
    # Runs that are equally far go together, those that are furthest first.
    for epoch in sorted({epochs[seed] for seed in folders}, reverse=True):
        left = {seed: folders[seed] for seed in folders if epochs[seed] == epoch}
        program = mesh.prepare(config, len(left), per_device)
        while left and stop.number is None:
            with _claimed(left, program.plan.wave, config, epoch) as own:
                if own:
                    recorder = _Recorder(own, config, name, params, keep)
                    ended = recorder.run(program, epoch, stop, watch, every)
            if own:
                yield ended


@contextlib.contextmanager
def _claimed(
    left: dict[int, RunFolder], size: int, config: Config, epoch: int
) -> Iterator[dict[int, RunFolder]]:
    """Makes up to `size` of the runs that are left this process's own.

    It looks at one after the other, and takes those that nobody has and that are still after this
    epoch; all that it has looked at are left no more.
    """
    claimed: dict[int, RunFolder] = {}
    locks.allow(size)
    with contextlib.ExitStack() as held:
        for seed in list(left):
            if len(claimed) == size:
                break
            folder = left.pop(seed)
            with contextlib.suppress(Held), contextlib.ExitStack() as lock:
                lock.enter_context(folder.lock())
                if folder.survey(config, seed, anyway=True)[:2] == ("unfinished", epoch):
                    held.push(lock.pop_all())
                    claimed[seed] = folder
        yield claimed


class _Recorder:
    """The runs of a wave, from where they are to their end."""

    def __init__(
        self,
        folders: Mapping[int, RunFolder],
        config: Config,
        name: str,
        params: Params | None,
        keep: int,
    ) -> None:
        self._folders, self._config, self._name = folders, config, name
        self._params, self._keep = params, keep
        self._good = list(folders)
        self._due = time.perf_counter() + FIRST / SHARE

    def run(
        self, program: Program, epoch: int, stop: Stop, watch: Watch, every: int | None
    ) -> Ended:
        """See `record`."""
        start, total = self._start(epoch), self._config.train.epochs
        wave = Wave(program, self._config, tuple(self._folders), start)
        stopping, began = False, time.perf_counter()
        while wave.epoch < total and self._good and not stopping:
            moment, now = wave.step(), time.perf_counter()
            rows = _rows(moment, now - began)
            began = now
            self._note(moment, rows)
            broken = {s for s, ok in zip(wave.seeds, moment.finite, strict=True) if not ok}
            self._good = [seed for seed in self._good if seed not in broken]
            stopping = stop.number is not None
            due = now >= self._due if every is None else wave.epoch % every == 0
            if stopping or due or wave.epoch == total:
                self._save(moment)
            watch(wave.seeds, wave.epoch, rows[0])
        if wave.epoch == total and self._good:
            self._finish(wave.result(), wave.examine())
        good: Status = "finished" if wave.epoch == total else "unfinished"
        status = {seed: good if seed in self._good else "diverged" for seed in wave.seeds}
        return Ended(wave.epoch, status)

    def _start(self, epoch: int) -> Start | None:
        """Makes the folders, or reads their checkpoints after an epoch above 0."""
        runs = self._folders.items()
        if epoch:
            snapshots = [folder.restore(self._config, seed, epoch) for seed, folder in runs]
        else:
            for seed, folder in runs:
                folder.begin(self._config, seed, self._name)
            if self._params is None:
                return None
            state = jax.device_get(algorithm.initial_state(self._config, self._params))
            begun = checkpoint.like(self._config, epoch)._replace(state=state)
            snapshots = [begun] * len(self._folders)
        state, history = (
            jax.tree.map(lambda *x: np.stack(x), *(getattr(one, part) for one in snapshots))
            for part in ("state", "history")
        )
        return Start(state, Metrics(*(history[name] for name in Metrics._fields)))

    def _note(self, moment: Moment, rows: Sequence[Row]) -> None:
        """Takes an epoch down, and marks the folders of runs that diverged in it."""
        for seed, row, finite in zip(moment.seeds, rows, moment.finite, strict=True):
            if seed in self._good:
                self._folders[seed].append(row)
                if not finite:
                    self._folders[seed].give_up()

    def _save(self, moment: Moment) -> None:
        """Writes checkpoints of the runs that are still good."""
        began, state = time.perf_counter(), moment.fetch()
        for i, seed in enumerate(moment.seeds):
            if seed in self._good:
                self._folders[seed].save(jax.tree.map(lambda x: x[i], state))  # noqa: B023
        ended = time.perf_counter()
        self._due = ended + (ended - began) / SHARE

    def _finish(self, result: Result, exams: Sequence[Counts | None]) -> None:
        """Writes what good runs leave at their end."""
        for i, seed in enumerate(self._folders):
            if seed in self._good:
                own: tuple[Splits, tuple[np.ndarray, ...]] = jax.tree.map(
                    lambda x: x[i],  # noqa: B023
                    (result.data, result.logits),
                )
                self._folders[seed].finish(*own, exams[i])
                self._folders[seed].checkpoints.keep(self._keep)


def _rows(moment: Moment, seconds: float) -> list[Row]:
    """The history's row of every seed of a wave."""
    return [
        dict(zip(Metrics._fields, map(float, values), strict=True))
        | {"epoch": moment.epoch, "seconds": seconds}
        for values in zip(*moment.metrics, strict=True)
    ]
