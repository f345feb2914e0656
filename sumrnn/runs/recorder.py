"""Trains the runs of a wave and keeps each in its run folder, so that nothing is lost."""

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sumrnn.config import Config
from sumrnn.devices.mesh import CompiledFunctions
from sumrnn.devices.wave import Moment, Start, Wave
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.models.network import Params
from sumrnn.runs import checkpoint, files
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.record import Status
from sumrnn.runs.writer import Lost, RunWriter
from sumrnn.train import run as algorithm
from sumrnn.train.run import Metrics

SHARE = 0.01
"""Of the time, for checkpoints, unless one is asked for every so many epochs."""
FIRST = 0.01
"""Seconds that a checkpoint is taken to need before one was written."""

Row = dict[str, float]
"""An epoch of a run, by the columns of history.csv."""
Watch = Callable[[Sequence[int], int, Row], None]
"""Called after each epoch with the seeds of the wave, the number of finished epochs, and the last
row of the first seed."""
Stop = Callable[[], bool]
"""Whether the work shall end early: runs end with a checkpoint after their epoch."""


class Spec(NamedTuple):
    """A run that is wanted: where it is to be, and what it is."""

    folder: RunFolder
    name: str
    """The preset, or the condition of an experiment."""
    config: Config
    seed: int


class Ended(NamedTuple):
    """How far a wave came."""

    epoch: int
    """Finished epochs of its runs; of one that diverged perhaps fewer."""
    status: dict[int, Status]
    """By seed."""
    lost: dict[int, Lost]
    """By seed: runs whose folder became another process's, which were left to it."""


def train(
    specs: Sequence[Spec],
    epoch: int,
    compiled: CompiledFunctions,
    *,
    stop: Stop = lambda: False,
    every: int | None = None,
    keep: int = 1,
    params: Params | None = None,
    watch: Watch = lambda seeds, epoch, row: None,
) -> Ended:
    """Trains runs of one config that are equally far, from where they are to their end.

    Args:
      specs: at most `compiled.plan.wave_size` runs, whose folders this process has.
      epoch: after which they go on; 0: from their beginning.
      compiled: the functions of their config.
      stop: is asked after each epoch.
      every: epochs between checkpoints; None: as many as keep them to `SHARE` of the time.  There
        is always one after the last epoch.
      keep: checkpoints that a finished run keeps.
      params: those that runs begin with, if their config has the digest of weights.
      watch: is called after each epoch.

    What it raises, such as an `OSError` where the disk fails, is kept in the folders as `ERROR`.
    """
    recorder = _Recorder(specs, keep)
    try:
        start = recorder.start(epoch, params)
        return recorder.run(
            Wave(compiled, specs[0].config, recorder.seeds, start=start), stop, every, watch
        )
    except Exception as error:
        if not files.is_full(error):
            for writer in recorder.unfinished():
                with contextlib.suppress(OSError, UserError):
                    writer.fail(traceback.format_exc())
        raise


class _Recorder:
    """The runs of a wave, from where they are to their end."""

    def __init__(self, specs: Sequence[Spec], keep: int) -> None:
        self._specs, self._config, self._keep = specs, specs[0].config, keep
        self.seeds = tuple(spec.seed for spec in specs)
        self.writers = [RunWriter(spec.folder) for spec in specs]
        self._status: dict[int, Status] = dict.fromkeys(self.seeds, "unfinished")
        self._good = set(self.seeds)
        """Runs whose numbers are finite, and whose folders are theirs."""
        self._lost: dict[int, Lost] = {}
        self._due = time.perf_counter() + FIRST / SHARE

    def unfinished(self) -> list[RunWriter]:
        """The writers of the runs that have not ended."""
        pairs = zip(self.writers, self.seeds, strict=True)
        return [writer for writer, seed in pairs if self._status[seed] == "unfinished"]

    def run(self, wave: Wave, stop: Stop, every: int | None, watch: Watch) -> Ended:
        """Trains; see `train`."""
        total, stopping, began = self._config.train.epochs, False, time.perf_counter()
        while wave.epoch < total and self._good and not stopping:
            moment, now = wave.step(), time.perf_counter()
            rows = _rows(moment, now - began)
            began = now
            self._note(moment, rows)
            stopping = stop()
            due = now >= self._due if every is None else wave.epoch % every == 0
            if stopping or due or wave.epoch == total:
                self._save(moment)
            watch(wave.seeds, wave.epoch, rows[0])
        if wave.epoch == total and self._good:
            self._finish(wave)
        return Ended(wave.epoch, self._status, self._lost)

    def _for_good(self, action: Callable[[int, RunWriter], None]) -> None:
        """Does something for each good run, by its place in the wave and its writer."""
        for place, seed in enumerate(self.seeds):
            if seed in self._good:
                try:
                    action(place, self.writers[place])
                except Lost as error:
                    self._good.remove(seed)
                    self._lost[seed] = error

    def start(self, epoch: int, params: Params | None) -> Start | None:
        """Begins the runs, or takes them up again from their checkpoints after an epoch."""
        pairs = list(zip(self.writers, self._specs, strict=True))
        if epoch:
            snapshots = [writer.restore(s.config, s.seed, epoch) for writer, s in pairs]
        else:
            for writer, spec in pairs:
                writer.begin(spec.config, spec.seed, spec.name)
            if params is None:
                return None
            weights = network.from_flax(params, self._config.model)
            state = jax.device_get(algorithm.initial_state(self._config, weights))
            begun = checkpoint.like(self._config, epoch)._replace(state=state)
            snapshots = [begun] * len(self._specs)
        state, history = (
            jax.tree.map(
                lambda *x: np.stack(x), *(getattr(snapshot, part) for snapshot in snapshots)
            )
            for part in ("state", "history")
        )
        return Start(state, Metrics(*(history[name] for name in Metrics._fields)))

    def _note(self, moment: Moment, rows: Sequence[Row]) -> None:
        """Takes an epoch down, and marks the folders of runs that diverged in it."""

        def note(place: int, writer: RunWriter) -> None:
            writer.append(rows[place])
            if not moment.finite[place]:
                writer.give_up()
                self._status[moment.seeds[place]] = "diverged"

        self._for_good(note)
        self._good -= {seed for seed, status in self._status.items() if status == "diverged"}

    def _save(self, moment: Moment) -> None:
        """Writes checkpoints of the runs that are still good."""
        began, state = time.perf_counter(), moment.fetch()
        self._for_good(lambda place, writer: writer.save(_row(state, place)))
        ended = time.perf_counter()
        self._due = ended + (ended - began) / SHARE

    def _finish(self, wave: Wave) -> None:
        """Writes what good runs leave at their end."""
        result, exams = wave.result(), wave.count_errors()

        def finish(place: int, writer: RunWriter) -> None:
            data, logits = _row((result.data, result.logits), place)
            writer.finish(data, logits, exams[place])
            self._specs[place].folder.checkpoints.keep(self._keep)
            self._status[self.seeds[place]] = "finished"

        self._for_good(finish)


def _row(arrays: Any, place: int) -> Any:
    """What arrays with a leading axis of seeds have of one."""
    return jax.tree.map(lambda x: x[place], arrays)


def _rows(moment: Moment, seconds: float) -> list[Row]:
    """The history's row of every seed of a wave."""
    return [
        dict(zip(Metrics._fields, map(float, values), strict=True))
        | {"epoch": moment.epoch, "seconds": seconds}
        for values in zip(*moment.metrics, strict=True)
    ]
