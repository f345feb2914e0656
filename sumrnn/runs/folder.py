"""The folder of a run: what is in it, and how far the run is.

config.json      which run it is, what computed it, and how it ended (see `record`)
history.csv      one row per epoch, up to the newest checkpoint
checkpoints/EPOCH.npz      the last ones (see `checkpoint`)
predictions.npz  digits, labels and logits; errors at given sums
error.txt        why the last attempt failed; gone once the run has ended
probes/*.csv     what an experiment has measured of the final network
report.json, report.md, report.html, figures/*.png      rebuilt from the others at any time
events.out.tfevents.sumrnn      the history for TensorBoard, where it is asked for
.lock            held by the process that is at work here

A run has ended when config.json says so, with the SHA-256 of history.csv and predictions.npz: it
is written last.  A run that diverged has no predictions.
"""

import contextlib
import csv
import dataclasses
import json
import pathlib
from typing import NamedTuple

from sumrnn.config import Config
from sumrnn.errors import UserError, require
from sumrnn.models.network import Params, to_flax
from sumrnn.runs import files, lock, origin, results
from sumrnn.runs.checkpoint import Checkpoints
from sumrnn.runs.record import EARLIER, FORMAT, Record, Status
from sumrnn.runs.results import Run

CONFIG, HISTORY, PREDICTIONS = "config.json", "history.csv", "predictions.npz"
CHECKPOINTS, FIGURES, EVENTS = "checkpoints", files.FIGURES, "events.out.tfevents.sumrnn"
ERROR, PROBES = "error.txt", "probes"
REPORT_JSON, REPORT_MD, REPORT_HTML = "report.json", "report.md", "report.html"
PROOF: dict[Status, tuple[str, ...]] = {
    "finished": (HISTORY, PREDICTIONS),
    "diverged": (HISTORY,),
    "unfinished": (),
}
"""The files whose SHA-256 proves how a run ended."""
END = (REPORT_HTML, REPORT_MD, REPORT_JSON, FIGURES, PROBES, PREDICTIONS)
"""What a run leaves beside config.json once it has ended."""
REST = (*END, CHECKPOINTS, HISTORY)
"""What a run leaves beside config.json."""


class Survey(NamedTuple):
    """How far a run is on which no process is at work."""

    status: Status
    epoch: int
    """The epoch after which the run can be continued; 0: from its beginning."""
    wrong: list[str]
    """What is damaged, but can be made again from the rest."""


class RunFolder:
    """A run on disk, as it is read; `RunWriter` writes it.

    Args:
      path: of the folder, which need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / CHECKPOINTS)
        self.config = path / CONFIG

    def read(self) -> Record:
        """The run's record; raises `UserError` if there is none, or it is damaged."""
        return files.read_json(self.config, Record, FORMAT, EARLIER)

    def status(self) -> Status:
        """How the run ended; "unfinished" if it did not, or there is none.

        Raises `UserError` if what is there is no run, or its record is damaged.
        """
        return "unfinished" if self._is_new() else self.read().status

    def attempts(self) -> int:
        """The number of starts since the run's newest checkpoint; raises as `status` does."""
        return 0 if self._is_new() else self.read().attempts

    def is_run(self) -> bool:
        """Whether there is a run, whose config.json may be damaged; raises if it is no folder."""
        with files.reading(self.path):
            return self.config.exists()

    def stamp(self) -> tuple[int, int, int] | None:
        """What tells config.json from later ones: inode, time and size; None if there is none."""
        with contextlib.suppress(OSError):
            stat = self.config.stat()
            return stat.st_ino, stat.st_mtime_ns, stat.st_size
        return None

    def check_free(self, overwrite: bool) -> None:
        """Makes sure that a run may begin here.

        Raises `UserError` if something is there that may not be replaced.
        """
        if self._is_new():
            return
        try:  # Of any version, and its numbers may be damaged, but others have a config.json too.
            with files.writing(self.path):
                content = json.loads(self.config.read_bytes())
            is_run = {"format", "seed", "config", "versions"} <= set(content)
        except (ValueError, TypeError, RecursionError):
            is_run = False
        if not is_run:
            raise self._foreign()
        if not overwrite:
            how = "--resume continues the run there, --overwrite replaces it"
            raise UserError(f"{self.path}: must be new or empty; {how}")

    def survey(self, config: Config, seed: int, anyway: bool = False) -> Survey:
        """How far the run of this config and seed is, which must be there if any is.

        With more epochs than it has, a finished run is one that can be continued.  Raises
        `UserError` if it is another run, has done more epochs, or cannot be continued (see
        `origin.check_same`).
        """
        if self._is_new():
            return Survey("unfinished", 0, [])
        record, wrong, epochs = self.read(), [], config.train.epochs
        record.check_same(self.config, config, seed)
        if record.status == "diverged" or (record.status, record.epochs) == ("finished", epochs):
            try:
                self.check_files()
                return Survey(record.status, record.epochs, [])
            except UserError as error:
                wrong.append(str(error))
        now = origin.current(config)
        origin.check_same(self.config, record.last_origin, now, anyway=anyway)
        epoch, older = self.checkpoints.newest(record.config, seed)
        done = record.epochs if record.status == "finished" else epoch
        require(epochs >= done, "epochs", epochs, f"at least {done}, which {self.path} has done")
        if epoch < done < epochs:
            lacks = f"has no checkpoint after epoch {done} to go on from; --overwrite begins again"
            raise UserError(f"{self.path}: {lacks}")
        return Survey("unfinished", epoch, wrong + older)

    def check_files(self) -> None:
        """Makes sure that the files of a run that has ended are as they were then.

        Raises `UserError` if one is not.
        """
        record = self.read()
        with files.reading(self.config):
            if set(record.files) != set(PROOF[record.status]):
                raise ValueError(f"files must be those of a run that is {record.status}")
        for name, digest in record.files.items():
            with files.reading(self.path / name):
                if files.digest(self.path / name) != digest:
                    raise ValueError(f"it does not match {CONFIG}")

    def load(self) -> Run:
        """Reads a finished run.

        Raises `UserError` if a file is missing, unreadable, damaged, or disagrees with the config.
        """
        record = self._ended()
        self.check_files()
        if record.status == "diverged":
            why = f"missing, because the run diverged (see {HISTORY})"
            raise UserError(f"{self.path / PREDICTIONS}: {why}")
        with files.reading(self.path / HISTORY):
            history = results.from_csv((self.path / HISTORY).read_text("utf-8"), record.epochs)
        arrays = files.read_arrays(self.path / PREDICTIONS, results.sizes(record.config.task))
        with files.reading(self.path / PREDICTIONS):
            exact = record.last_origin["versions"].get("exact")
            evaluated = exact in (None, origin.evaluation_digest())
            return Run(record, history, *results.from_arrays(arrays, record.config, evaluated))

    def network(self) -> tuple[Record, Params]:
        """A finished run's record, and the parameters of its network, from the last checkpoint.

        Raises `UserError` if there is no run, it has not finished, or that is missing or damaged.
        """
        record = self._ended()
        if record.status == "diverged":
            raise UserError(f"{self.path}: is no finished run; it diverged")
        last = self.checkpoints.load(record.config, record.seed, record.epochs)
        return record, to_flax(last.state.params)

    def _ended(self) -> Record:
        """The record of a run that has finished or diverged; raises `UserError` if none has."""
        if not self.path.is_dir():
            raise UserError(f"{self.path}: must be a run folder")
        record = self.read()
        if record.status == "unfinished":
            raise UserError(f"{self.path}: is no finished run; --resume continues it")
        return record

    def read_table(self, name: str) -> list[dict[str, float | None]] | None:
        """The rows of a table in probes/, None where a value is empty; None if there is no table.

        Raises `UserError` if it is damaged.
        """
        file = self.path / PROBES / f"{name}.csv"
        if not file.exists():
            return None
        with files.reading(file):
            names, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines(), strict=True)
            values = ([float(cell) if cell else None for cell in row] for row in rows)
            return [dict(zip(names, row, strict=True)) for row in values]

    def write_table(self, name: str, text: str) -> None:
        """Writes a table into probes/; raises `UserError` if the folder cannot be written."""
        with files.writing(self.path):
            files.clear(self.path / PROBES)
            files.write_atomic(self.path / PROBES / f"{name}.csv", text)

    def divergence(self) -> str:
        """How the run diverged, in a line; raises `UserError` if its history is damaged."""
        with files.reading(self.path / HISTORY):
            lines = (self.path / HISTORY).read_text(encoding="utf-8").splitlines()
            if not lines or not {"epoch", "loss", "val_loss"} <= set(lines[0].split(",")):
                raise ValueError("it has no losses")
            row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
        return (
            f"loss = {row['loss']}, val_loss = {row['val_loss']} in epoch {row['epoch']}: these, "
            "the parameters and Adam's moments must be finite; a learning_rate below "
            f"{self.read().config.train.learning_rate} may help"
        )

    def _is_new(self) -> bool:
        """Whether there is nothing; raises `UserError` if what is there is no run."""
        with files.writing(self.path):
            if files.is_empty(self.path):
                return True
            if self.config.is_file():
                return False
        raise self._foreign()

    def _foreign(self) -> UserError:
        return UserError(
            f"{self.path}: must be new, empty or a run folder; "
            f"it has other content and no {CONFIG} of a run, so it is left alone"
        )

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """A context in which no other process has the folder; see `lock.hold`."""
        return lock.hold(self.path)

    def forgive(self) -> None:
        """Lets attempts count anew, unless another process has the folder."""
        with contextlib.suppress(lock.Held), self.lock():
            files.remove(self.path / ERROR)
            files.write_json(self.config, dataclasses.replace(self.read(), attempts=0), FORMAT)
