"""The history of a run for TensorBoard, in the run's folder: --logdir takes any folder of runs."""

import itertools
import pathlib
import tempfile

import numpy as np

from sumrnn.errors import need
from sumrnn.runs import files
from sumrnn.runs.folder import EVENTS, RunFolder
from sumrnn.study.folder import ExperimentFolder

FIRST = 1.0
"""Seconds since 1970 at which every run begins, so that relative times compare."""
TAGS = {
    "loss": "loss/training",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "val_accuracy": "accuracy/validation",
}
"""Columns of history.csv, and where TensorBoard shows them."""


def encode(history: dict[str, np.ndarray]) -> bytes:
    """The content of an events file: a point of each column of `TAGS` for every epoch.

    The history has the columns of history.csv, float64 [epochs].  Raises `UserError` if
    tensorboardX is missing or does not load.
    """
    need("tensorboardX", "tensorboard")
    from tensorboardX import SummaryWriter

    ends = FIRST + np.cumsum(history["seconds"])
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for column, tag in TAGS.items():
                points = zip(history[column], history["epoch"], ends, strict=True)
                for value, epoch, end in points:
                    writer.add_scalar(tag, float(value), int(epoch), float(end))
        (file,) = pathlib.Path(folder).iterdir()
        return file.read_bytes()


def write(folder: RunFolder) -> None:
    """Writes the events of a finished run into its folder.

    Raises `UserError` if there is none, or tensorboardX is missing or does not load.
    """
    content = encode(folder.load().history)
    with files.writing(folder.path):
        files.write_atomic(folder.path / EVENTS, content)


def write_all(folder: ExperimentFolder) -> None:
    """Writes the events of every finished run of an experiment into the folder of the run."""
    declared = folder.read()
    for condition, seed in itertools.product(declared.experiment.conditions, declared.seeds):
        run = folder.run(condition, seed)
        if run.status() == "finished":
            write(run)
