"""The table of an experiment: a row of scores for each condition and seed."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.runs import origin
from sumrnn.runs.folder import CONFIG, RunFolder
from sumrnn.runs.record import Record
from sumrnn.scores import exact, metrics
from sumrnn.study import probe
from sumrnn.study.experiment import SCORES, Experiment
from sumrnn.study.folder import ExperimentFolder
from sumrnn.task import sum_law

TABLE = "runs.csv"
COLUMNS = ("condition", "seed", "status", *SCORES)
PROCESSOR = "processor"
"""A further column, where the runs were made by processors of different kinds."""


@dataclasses.dataclass(frozen=True)
class Collection:
    """The results of all runs of an experiment."""

    experiment: Experiment
    seeds: tuple[int, ...]
    versions: dict[str, str]
    rows: list[dict[str, Any]]
    """A row per condition and seed, by `COLUMNS`; scores are None where undefined or missing."""
    histories: dict[str, dict[str, np.ndarray]]
    """The columns of history.csv of finished runs, by condition: float64 [runs, epochs]."""
    continued: bool = False
    """Whether a run went on, or was begun, with other versions or settings than the others."""
    processors: dict[str, int] = dataclasses.field(default_factory=dict)
    """Runs that have ended, by the kind of processor that made them (the last one, if several)."""
    probes: dict[str, probe.Rows] = dataclasses.field(default_factory=dict)
    """The tables that were measured, by probe; see `probe.read`."""

    def values(self, condition: str, score: str) -> dict[int, float]:
        """The values of a score by seed, where it is defined."""
        return {
            row["seed"]: float(row[score])
            for row in self.rows
            if row["condition"] == condition and row[score] is not None
        }

    def array(self, condition: str, score: str) -> np.ndarray:
        """The same values alone, float64 [runs]."""
        return np.array([*self.values(condition, score).values()], np.float64)


def collect(folder: ExperimentFolder) -> Collection:
    """Reads every run of an experiment.

    Raises `UserError` if the folder holds no experiment, or a run in it that ended is damaged or
    another's.
    """
    declared = folder.read()
    experiment, rows, histories, records = declared.experiment, [], {}, []
    for condition, config in experiment.conditions.items():
        finished = []
        for seed in declared.seeds:
            row, record, history = _row(folder.run(condition, seed), condition, config, seed)
            rows.append(row)
            records += [record] if record else []
            finished += [history] if history else []
        if finished:
            histories[condition] = {
                name: np.stack([history[name] for history in finished]) for name in finished[0]
            }
    kinds = collections.Counter(origin.processor_kind(record.last_origin) for record in records)
    continued = _differ(records) or any(record.continued for record in records)
    versions = _versions(records)
    return Collection(
        experiment,
        declared.seeds,
        versions,
        rows,
        histories,
        continued,
        dict(kinds),
        probe.read(folder),
    )


def _versions(records: list[Record]) -> dict[str, str]:
    """The versions of the first run; its `code` stands for the programs of all conditions."""
    if not records:
        return {}
    codes = {record.versions.get("code", "") for record in records}
    return records[0].versions | {"code": joint_code(codes)}


def joint_code(codes: Iterable[str]) -> str:
    """A digest of the digests of the programs of all conditions; that of one alone is itself."""
    different = sorted(set(codes))
    joint = hashlib.sha256(repr(different).encode()).hexdigest()[:12]
    return different[0] if len(different) == 1 else joint


def _differ(records: list[Record]) -> bool:
    """Whether runs were begun with other versions or settings, wherever that was."""
    first: dict[str, origin.Origin] = {}
    for record in records:
        made = record.origins[0]
        other = origin.on_device_of(first.setdefault(record.name, made), made)
        if origin.difference(other, made):
            return True
    return False


def _row(
    folder: RunFolder, condition: str, config: Config, seed: int
) -> tuple[dict[str, Any], Record | None, dict[str, np.ndarray] | None]:
    """A run's row, its record if it has ended, and its history if it has finished."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"condition": condition, "seed": seed, "status": folder.status()}
    if row["status"] == "unfinished":
        return row, None, None
    record = folder.read()
    if (record.config, record.seed) != (config, seed):
        has = f"the batch has {condition} with seed {seed} here"
        raise UserError(f"{folder.path / CONFIG}: is another run; {has}")
    row[PROCESSOR] = origin.processor_kind(record.last_origin)
    if row["status"] == "diverged":  # What has finished is checked as it is loaded.
        folder.check_files()
        return row, record, None
    scores, history = _finished(folder, config)
    return row | scores, record, history


def _finished(folder: RunFolder, config: Config) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A finished run's scores, by `SCORES`, and its history."""
    run = folder.load()
    part = run.parts["test"]
    scores = metrics.scores(part.labels, part.logits, sum_law(config.task).majority_class)
    by_law = {} if run.exam is None else exact.scores(config.task, run.exam)
    scores |= scores["confusion"] | {f"exact_{name}": value for name, value in by_law.items()}
    return {name: scores.get(name) for name in SCORES}, run.history


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The table as text: nine digits, and empty where a score is undefined."""
    several = len({row[PROCESSOR] for row in rows if PROCESSOR in row}) > 1
    columns = (*COLUMNS, PROCESSOR) if several else COLUMNS
    return probe.to_csv(rows, columns)
