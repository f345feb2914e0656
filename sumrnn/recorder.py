"""Trains seeds of one config and keeps each in its run folder, so that nothing is lost.

Every process of several calls this together; only the first one touches the folders.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sumrnn import checkpoint, files, placement, runs, train
from sumrnn.checkpoint import Snapshot
from sumrnn.config import Config, ConfigError
from sumrnn.files import RunError
from sumrnn.signals import Stop

SHARE = 0.01
"""Of the time, for checkpoints, unless one is asked for every so many epochs."""
FIRST = 0.05
"""Seconds that a checkpoint is taken to need before two were written."""

Row = dict[str, float]
"""An epoch of a run, by the columns of history.csv."""
Watch = Callable[[Sequence[int], int, Row], None]
"""Called after each epoch with the seeds of the wave, the number of finished epochs, and the last
row of the first seed."""


class Ended(NamedTuple):
    """How far a wave came."""

    epoch: int
    """Finished epochs of its runs; of one that diverged perhaps fewer."""
    status: dict[int, runs.Status]
    """By seed."""


def check_every(every: int | None) -> None:
    """Raises `ConfigError` unless it is None or a possible number of epochs between checkpoints."""
    if every is not None and every < 1:
        raise ConfigError("checkpoint_every", every, "at least 1")


def _columns(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return {
        name: np.array([row[name] for row in rows], dtype)
        for name, dtype in checkpoint.COLUMNS.items()
    }


def _rows(columns: Mapping[str, np.ndarray]) -> list[Row]:
    values = zip(*(columns[name].tolist() for name in checkpoint.COLUMNS), strict=True)
    return [
        {"epoch": number, **dict(zip(checkpoint.COLUMNS, row, strict=True))}
        for number, row in enumerate(values, 1)
    ]


class _Recorder:
    """What the runs of a wave have done, in memory and in their folders."""

    def __init__(self, folders: Mapping[int, pathlib.Path]) -> None:
        self._folders = folders
        self._rows: dict[int, list[Row]] = {seed: [] for seed in folders}
        self._configs: dict[int, str] = {}
        self._diverged: set[int] = set()
        self._unsaved: placement.Moment | None = None
        self._warm = False
        self._lock = threading.Lock()
        self._time = time.perf_counter()
        self._due = self._time + FIRST / SHARE

    @property
    def good(self) -> list[int]:
        """Seeds whose numbers are all finite."""
        return [seed for seed in self._folders if seed not in self._diverged]

    def start(self, config: Config, name: str, epoch: int) -> placement.Start | None:
        """Makes the folders, or reads their checkpoints after an epoch above 0."""
        placement.first_does(lambda: self._check(config, epoch))
        if not epoch:

            def create() -> None:
                for seed, folder in self._folders.items():
                    runs.create(folder, config, seed, name)
                self._remember()

            placement.first_does(create)
            return None
        found = [checkpoint.like(config, epoch)] * len(self._folders)

        def load() -> None:
            self._remember()
            found[:] = [checkpoint.load(path, config, epoch) for path in self._folders.values()]
            for seed, snapshot in zip(self._folders, found, strict=True):
                self._rows[seed] = _rows(snapshot.history)
                # What ended here before was damaged, as are checkpoints of later epochs.
                files.remove(self._folders[seed] / files.SUMS)
                checkpoint.forget(self._folders[seed], epoch)
                runs.write_history(self._folders[seed], self._rows[seed])

        placement.first_does(load)
        state, shuffle, _, history = jax.tree.map(lambda *x: np.stack(x), *found)
        metrics = train.Metrics(*(history[name] for name in train.Metrics._fields))
        start: placement.Start = placement.from_first(placement.Start(state, shuffle, metrics))
        return start

    def _check(self, config: Config, epoch: int) -> None:
        """Makes sure that the runs are where they were before their folders were locked."""
        for seed, folder in self._folders.items():
            if runs.survey(folder, config, seed)[:2] != ("unfinished", epoch):
                raise RunError(f"{folder}: another process was at work there; start again")

    def _remember(self) -> None:
        """Keeps in mind whose the folders are."""
        self._configs = {seed: files.digest(self._config(seed)) for seed in self._folders}

    def _config(self, seed: int) -> pathlib.Path:
        return self._folders[seed] / runs.CONFIG

    def _folder(self, seed: int) -> pathlib.Path:
        """The folder of a run, to write to; removed meanwhile, it may be another run's."""
        if files.digest(self._config(seed)) != self._configs[seed]:
            raise RunError(f"{self._config(seed)}: is no longer that of the run with seed {seed}")
        return self._folders[seed]

    def note(self, moment: placement.Moment) -> list[Row]:
        """Takes an epoch down, and marks the folders of runs that diverged in it.

        Returns:
          The row of every seed.
        """
        now = time.perf_counter()
        rows = [
            {
                "epoch": moment.epoch,
                **dict(zip(moment.metrics._fields, map(float, values), strict=True)),
                "seconds": now - self._time,
            }
            for values in zip(*moment.metrics, strict=True)
        ]
        with self._lock:
            new = []
            for i, seed in enumerate(moment.seeds):
                if seed not in self._diverged:
                    self._rows[seed].append(rows[i])
                    if not moment.finite[i]:
                        new.append(seed)
            self._diverged.update(new)
            self._unsaved, self._time = moment, now

            def give_up() -> None:
                for seed in new:
                    folder = self._folder(seed)
                    runs.write_history(folder, self._rows[seed])
                    runs.give_up(folder)

            if new:
                placement.first_does(give_up)
        return rows

    def is_due(self) -> bool:
        """Whether a checkpoint now takes no more than its share of the time."""
        return time.perf_counter() >= self._due

    def save(self) -> None:
        """Writes what was noted last of every run that is still good, unless it is written."""
        with self._lock:
            began, moment = time.perf_counter(), self._unsaved
            if moment is None:
                return
            state, shuffle = moment.fetch()

            def write() -> None:
                for i, seed in enumerate(moment.seeds):
                    if seed in self._diverged:
                        continue
                    own, key = jax.tree.map(lambda x: x[i], (state, shuffle))  # noqa: B023
                    columns, epoch = _columns(self._rows[seed]), np.array(moment.epoch, np.int32)
                    folder = self._folder(seed)
                    checkpoint.save(folder, Snapshot(own, key, epoch, columns))
                    runs.write_history(folder, self._rows[seed])

            placement.first_does(write)
            ended = time.perf_counter()
            # The first one also loads Orbax.
            took = ended - began if self._warm else FIRST
            self._unsaved, self._warm, self._due = None, True, ended + took / SHARE

    def finish(self, batch: placement.Batch) -> None:
        """Writes what good runs leave at their end.

        Their histories too: one that was read from a checkpoint may be missing, or damaged.
        """

        def write() -> None:
            for i, seed in enumerate(batch.seeds):
                if seed not in self._diverged:
                    _, data, logits = placement.one(batch, i)
                    folder = self._folder(seed)
                    runs.write_history(folder, self._rows[seed])
                    runs.finish(folder, data, logits)

        placement.first_does(write)


@contextlib.contextmanager
def _locked(folders: Collection[pathlib.Path]) -> Iterator[None]:
    """Makes the folders the first process's own."""
    with contextlib.ExitStack() as locks:

        def lock() -> None:
            files.allow_locks(len(folders))
            for folder in folders:
                locks.enter_context(files.lock(folder))

        placement.first_does(lock)
        yield


def record(
    folders: Mapping[int, pathlib.Path],
    epochs: Mapping[int, int],
    config: Config,
    name: str,
    stop: Stop,
    watch: Watch = lambda seeds, epoch, row: None,
    every: int | None = None,
    per_device: int | None = None,
) -> Iterator[Ended]:
    """Trains runs from where they are to their end, wave by wave.

    Args:
      folders: of each run, by seed.
      epochs: by seed, where it goes on, as from `runs.survey`; 0: from its beginning.
      config: of all runs.
      name: of all runs, for new folders.
      stop: when it has a number, the wave ends with a checkpoint after its epoch, as the last.
      watch: is called after each epoch, of several processes by the first one.
      every: epochs between checkpoints, at least 1; None: as many as keep them to `SHARE` of the
        time.  There is always one after the last epoch.
      per_device: see `placement.plan`.

    Yields:
      After each wave how far it came.

    Raises:
      RunError: if a folder is another process's, cannot be written, or has a damaged checkpoint.
      OSError: if the disk is full, or fails.
    """
    # Runs that are equally far go together, those that are furthest first.
    for epoch in sorted({epochs[seed] for seed in folders}, reverse=True):
        seeds = [seed for seed in folders if epochs[seed] == epoch]
        plan = placement.plan(len(seeds), config, per_device)
        for mine in placement.waves(seeds, plan):
            if _agreed(stop):
                return
            own = {seed: folders[seed] for seed in mine}
            with _locked(own.values()):
                ended = _record_wave(own, epoch, config, name, plan, stop, watch, every)
            yield ended


def _agreed(stop: Stop) -> bool:
    """Whether a signal has asked any of the processes to stop; they call this together."""
    number = placement.largest(stop.number or 0)
    if number:
        stop.number = number
    return number > 0


def _record_wave(
    folders: Mapping[int, pathlib.Path],
    epoch: int,
    config: Config,
    name: str,
    plan: placement.Plan,
    stop: Stop,
    watch: Watch,
    every: int | None,
) -> Ended:
    recorder, total = _Recorder(folders), config.train.epochs
    wave = placement.Wave(config, tuple(folders), plan, recorder.start(config, name, epoch))
    if placement.is_alone():
        stop.rescue = recorder.save
    stopping = False
    try:
        while wave.epoch < total and recorder.good and not stopping:
            rows = recorder.note(wave.step())
            stopping = _agreed(stop)
            due = wave.epoch % every == 0 if every else placement.largest(recorder.is_due()) > 0
            if stopping or due or wave.epoch == total:
                recorder.save()
            placement.first_does(functools.partial(watch, wave.seeds, wave.epoch, rows[0]))
        ended = wave.epoch == total
        if ended and recorder.good:
            recorder.finish(wave.result())
    finally:
        stop.rescue = Stop.rescue

    good: runs.Status = "finished" if ended else "unfinished"
    return Ended(
        wave.epoch, {seed: good if seed in recorder.good else "diverged" for seed in folders}
    )
