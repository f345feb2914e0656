"""The writer of a run: it begins or continues a run in its folder, and brings it to an end."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.runs import files, origin, results
from sumrnn.runs.checkpoint import COLUMNS, Snapshot
from sumrnn.runs.folder import (
    END,
    ERROR,
    EVENTS,
    HISTORY,
    PREDICTIONS,
    PROOF,
    REST,
    RunFolder,
)
from sumrnn.runs.origin import Continued
from sumrnn.runs.record import FORMAT, Record, Status
from sumrnn.scores.strata import Counts
from sumrnn.task import Splits
from sumrnn.train.run import State


class Lost(UserError):
    """The folder is no longer that of the run that this process has there."""


class RunWriter:
    """Writes a run, whose folder this process has: `begin` or `restore` first.

    Its methods raise `UserError` if the folder cannot be written, `OSError` if the disk is full,
    and `Lost` if config.json is no longer as this process has written it.

    Args:
      folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.path
        self._record: Record | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._history: dict[str, list[float]] = {name: [] for name in COLUMNS}

    def begin(self, config: Config, seed: int, name: str) -> None:
        """Starts a run: removes the one that may be there, and writes its record."""
        with files.writing(self._path):
            files.clear(self._path)
            attempts = 1 + self._attempts(config, seed)
            new = Record(name, seed, config, **origin.current(config), attempts=attempts)
            # Killed in between, this is still the old run, which lacks something.
            self._write_record(new, lambda: self._remove(*REST, EVENTS, ERROR))

    def _attempts(self, config: Config, seed: int) -> int:
        """Earlier starts of this run, which came to no checkpoint."""
        with contextlib.suppress(UserError):
            record = self._folder.read()
            if (record.config, record.seed, record.status) == (config, seed, "unfinished"):
                return record.attempts
        return 0

    def restore(self, config: Config, seed: int, epoch: int) -> Snapshot:
        """Takes a run up again after an epoch, and removes what lies behind that.

        Raises `UserError` if its checkpoint is damaged by now.
        """
        snapshot, record = self._folder.checkpoints.load(config, seed, epoch), self._folder.read()
        self._history = {name: values.tolist() for name, values in snapshot.history.items()}
        now, continued = origin.current(config), record.continued
        if origin.difference(record.last_origin, now):
            continued = (*continued, Continued(epoch=epoch, **now))
        # What had ended was damaged, or gets more epochs.
        new = dataclasses.replace(
            record,
            config=config,
            continued=continued,
            status="unfinished",
            files={},
            attempts=record.attempts + 1,
        )
        with files.writing(self._path):
            self._write_record(new)
        if config != record.config:  # What there is of the end is not that of this run.
            self._remove(*END, EVENTS)
        self._folder.checkpoints.forget(epoch)
        self._write_history()
        return snapshot

    def append(self, row: Mapping[str, float]) -> None:
        """Adds an epoch's row, by `COLUMNS`, to the history that the next `save` writes."""
        for name in COLUMNS:
            self._history[name].append(row[name])

    def save(self, state: State) -> None:
        """Writes a checkpoint of the state after the last row, and keeps the last ones.

        Raises `OSError` if it cannot be written; those before it are still there.
        """
        record = self._check_kept()
        history = {name: np.array(self._history[name], kind) for name, kind in COLUMNS.items()}
        snapshot = Snapshot(np.array(len(history["seconds"]), np.int32), state, history)
        self._folder.checkpoints.save(snapshot, record.config, record.seed)
        self._write_history()
        if record.attempts:
            self._write_record(dataclasses.replace(record, attempts=0))

    def finish(self, data: Splits, logits: Sequence[Any], exam: Counts | None) -> None:
        """Writes predictions and the counts of exact evaluation, and that the run has finished."""
        self._write_history()  # That of a checkpoint may be missing, or damaged.
        arrays = results.to_arrays(data, logits, exam)
        files.write_arrays(self._path / PREDICTIONS, arrays, compressed=True)
        self._end("finished")

    def give_up(self) -> None:
        """Marks the run as one whose numbers are no longer finite."""
        self._write_history()
        files.remove(self._path / PREDICTIONS)
        self._end("diverged")

    def fail(self, text: str) -> None:
        """Leaves a text that says why the run could not go on, if it was begun and not lost."""
        if self._record is not None:
            self._check_kept()
            files.write_atomic(self._path / ERROR, text)

    def _end(self, status: Status) -> None:
        proof = {name: files.digest(self._path / name) for name in PROOF[status]}
        record = self._check_kept()
        ended = dataclasses.replace(record, status=status, files=proof, attempts=0)
        self._write_record(ended, lambda: self._remove(ERROR))

    def _write_history(self) -> None:
        self._check_kept()
        files.write_atomic(self._path / HISTORY, results.to_csv(self._history))

    def _write_record(self, new: Record, first: Callable[[], object] = lambda: None) -> None:
        files.write_json(self._folder.config, new, FORMAT, first)
        self._record, self._stamp = new, self._folder.stamp()

    def _remove(self, *names: str) -> None:
        for name in names:
            files.remove(self._path / name)

    def _check_kept(self) -> Record:
        """The record, as this process has written it.

        Raises `Lost` if it was removed or written by another process, which has its own lock, or
        none where the file system only pretends to lock.
        """
        assert self._record is not None
        if (stamp := self._folder.stamp()) != self._stamp:
            same = False
            with contextlib.suppress(UserError):  # There may be anything.
                # A file system may give other numbers to what nobody has changed.
                same = self._folder.read() == self._record
            if not same:
                seed = self._record.seed
                what = f"is no longer that of the run with seed {seed}" if stamp else "missing"
                raise Lost(f"{self._folder.config}: {what}")
            self._stamp = stamp
        return self._record
