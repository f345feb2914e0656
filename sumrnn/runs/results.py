"""A finished run as its files hold it: history.csv and predictions.npz, with every check."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sumrnn.config import Config, TaskConfig
from sumrnn.runs.checkpoint import COLUMNS
from sumrnn.runs.record import Record
from sumrnn.scores.strata import Counts, task_strata
from sumrnn.task import Splits
from sumrnn.train.evaluation import is_evaluated

PREFIXES = {"train": "train_", "validation": "validation_", "test": ""}
"""Splits, and what their arrays' names in predictions.npz begin with."""
EXAM = "exam_"
"""What the names of the arrays of exact evaluation begin with."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The series of one split, with the logits of the final network."""

    digits: np.ndarray
    """uint8 [n, length]."""
    labels: np.ndarray
    """uint8 [n]: {0, 1}."""
    logits: np.ndarray
    """float32 [n], finite."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder."""

    record: Record
    history: dict[str, np.ndarray]
    """Columns of history.csv, float64 [epochs]."""
    parts: dict[str, Part]
    """By split: train, validation, test."""
    exam: Counts | None = None
    """Errors by stratum, of which `exact.scores` makes scores; None if the task has no exact
    evaluation, or the run's was that of another version."""


def to_csv(history: Mapping[str, Sequence[float]]) -> str:
    """Writes columns as history.csv, in nine digits, which hold a float32 exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("epoch", *COLUMNS))
    for number, row in enumerate(zip(*(history[name] for name in COLUMNS), strict=True), 1):
        writer.writerow([number, *(f"{x:.9g}" for x in row[:-1]), f"{row[-1]:.6f}"])
    return text.getvalue()


def from_csv(text: str, epochs: int) -> dict[str, np.ndarray]:
    """Reads the columns of history.csv, float64 [epochs].

    Raises `ValueError, csv.Error` if they are not those of a finished run of so many epochs.
    """
    columns = ("epoch", *COLUMNS)
    rows = list(csv.reader(text.splitlines()))
    if not rows or tuple(rows[0]) != columns:
        raise ValueError(f"the first line must be {','.join(columns)}")
    values = np.array(rows[1:], np.float64).reshape(-1, len(columns))
    if len(values) != epochs:
        raise ValueError(f"{len(values)} of {epochs} epochs; the run did not finish")
    if not np.isfinite(values).all():
        raise ValueError("every value must be a finite number")
    if (values[:, 0] != np.arange(1, epochs + 1)).any():
        raise ValueError(f"the epochs must be 1 to {epochs} in this order")
    return dict(zip(columns, values.T, strict=True))


def to_arrays(data: Splits, logits: Sequence[Any], exam: Counts | None) -> dict[str, np.ndarray]:
    """Names the arrays of predictions.npz: of each split, and of exact evaluation if any."""
    counts = {} if exam is None else exam._asdict()
    return {EXAM + name: array for name, array in counts.items()} | {
        PREFIXES[name] + field: np.asarray(array)
        for name, split, outputs in zip(data._fields, data, logits, strict=True)
        for field, array in (*zip(split._fields, split, strict=True), ("logits", outputs))
    }


def from_arrays(
    arrays: dict[str, np.ndarray], config: Config, evaluated: bool = True
) -> tuple[dict[str, Part], Counts | None]:
    """Reads the splits of predictions.npz, and the counts of exact evaluation.

    The counts are None unless series were `evaluated` by today's strata.  Raises `ValueError` if an
    array is missing, or is not such data of this config.
    """
    task = config.task
    pairs = zip(PREFIXES.items(), _series(task), strict=True)
    parts = {name: _part(arrays, prefix, size, config) for (name, prefix), size in pairs}
    return parts, _exam(arrays, config.task) if evaluated and is_evaluated(task) else None


def _series(task: TaskConfig) -> tuple[int, int, int]:
    """The number of series of each split, in the order of `PREFIXES`."""
    return task.train_size, task.validation_size, task.test_size


def sizes(task: TaskConfig) -> dict[str, int]:
    """The names of the arrays of predictions.npz, and the most numbers that each may have."""
    sums = task.length * (task.high - task.low) + 1  # No stratum has less than one.
    pairs = [*zip(PREFIXES.values(), _series(task), strict=True)]
    digits = {prefix + "digits": size * task.length for prefix, size in pairs}
    others = {prefix + name: size for prefix, size in pairs for name in ("labels", "logits")}
    return digits | others | {EXAM + name: sums for name in Counts._fields}


def _exam(arrays: dict[str, np.ndarray], task: TaskConfig) -> Counts:
    shape = task_strata(task).labels.shape
    for name in Counts._fields:
        array = arrays.get(EXAM + name)
        if array is None or array.dtype != np.int64 or array.shape != shape:
            raise ValueError(f"{EXAM}{name} must be int64 {list(shape)}")
    counts = Counts(*(arrays[EXAM + name] for name in Counts._fields))
    series, wrong = counts
    if (series < 1).any() or (wrong < 0).any() or (wrong > series).any():
        raise ValueError(f"{EXAM}wrong must lie between 0 and {EXAM}series, which are at least 1")
    return counts


def _part(arrays: dict[str, np.ndarray], prefix: str, size: int, config: Config) -> Part:
    task = config.task
    shapes = {
        "digits": (np.uint8, (size, task.length)),
        "labels": (np.uint8, (size,)),
        "logits": (np.float32, (size,)),
    }
    for field, (dtype, shape) in shapes.items():
        array = arrays.get(prefix + field)
        if array is None or array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{prefix}{field} must be {np.dtype(dtype)} {list(shape)}")
    part = Part(**{field: arrays[prefix + field] for field in shapes})
    if part.digits.min() < task.low or part.digits.max() > task.high:
        raise ValueError(f"{prefix}digits must lie between {task.low} and {task.high}")
    if ((part.digits.sum(axis=1) >= task.threshold) != part.labels).any():
        raise ValueError(f"{prefix}labels must be 1 where the digits sum to {task.threshold}")
    if not np.isfinite(part.logits).all():
        raise ValueError(f"{prefix}logits must be finite")
    return part
