"""The table of a batch: what its runs left, one row per condition and seed."""

import collections
import csv
import dataclasses
import io
from typing import Any

import numpy as np

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.runs import origin
from sumrnn.runs.folder import CONFIG, RunFolder
from sumrnn.scores import exact, metrics
from sumrnn.study.batch import EXPERIMENT, BatchFolder, expected
from sumrnn.study.experiment import SCORES, Experiment
from sumrnn.task import sum_law

TABLE = "runs.csv"
COLUMNS = ("condition", "seed", "status", *SCORES)
PROCESSOR = "processor"
"""One more column, where the runs are of different kinds."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """What the runs of a batch left."""

    experiment: Experiment
    seeds: tuple[int, ...]
    versions: dict[str, str]
    rows: list[dict[str, Any]]
    """One per condition and seed, by `COLUMNS`; scores are None where undefined or not there."""
    histories: dict[str, dict[str, np.ndarray]]
    """By condition: columns of history.csv of the finished runs, float64 [runs, epochs]."""
    continued: bool = False
    """Whether the batch or a run went on with other versions, settings or kind of device."""
    processors: dict[str, int] = dataclasses.field(default_factory=dict)
    """Runs that have ended, by the kind of processor that made them (the last one, if several)."""

    def values(self, condition: str, score: str) -> dict[int, float]:
        """By seed: a score where it is defined."""
        return {
            row["seed"]: float(row[score])
            for row in self.rows
            if row["condition"] == condition and row[score] is not None
        }


def collect(batch: BatchFolder) -> Collected:
    """Reads every run of a batch.

    Raises `UserError` if the folder holds no batch, or a run in it that ended is damaged or
    another's.
    """
    found = batch.read()
    continued = len(found.made) > 1
    rows, histories, processors = [], {}, collections.Counter[str]()
    for condition, config in found.experiment.conditions.items():
        finished = []
        for seed in found.seeds:
            folder = batch.run(condition, seed)
            row = dict.fromkeys(COLUMNS) | {"condition": condition, "seed": seed}
            row["status"] = folder.status()
            if row["status"] == "diverged":  # What has finished is checked as it is loaded.
                folder.check_files()
            if row["status"] != "unfinished":
                record, file = folder.read(), folder.path / CONFIG
                if (record.config, record.seed) != (config, seed):
                    has = f"the batch has {condition} with seed {seed} here"
                    raise UserError(f"{file}: is another run; {has}")
                begun = record.origins[0]  # The batch may have been continued since.
                settings: Any = {"settings": begun["settings"]}
                known = (expected(made, condition, begun) | settings for made in found.made)
                if all(origin.difference(made, begun) for made in known):
                    declared = batch.path / EXPERIMENT
                    raise UserError(f"{file}: was made with other versions than {declared} has")
                continued |= bool(record.continued)
                row[PROCESSOR] = kind = origin.kind(record.made)
                processors[kind] += 1
            if row["status"] == "finished":
                scores, history = _finished(folder, config)
                row |= scores
                finished.append(history)
            rows.append(row)
        if finished:
            histories[condition] = {
                name: np.stack([history[name] for history in finished]) for name in finished[0]
            }
    first = found.made[0]["versions"]
    return Collected(
        found.experiment, found.seeds, first, rows, histories, continued, dict(processors)
    )


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
    text = io.StringIO()
    several = len({row[PROCESSOR] for row in rows if PROCESSOR in row}) > 1
    columns = (*COLUMNS, PROCESSOR) if several else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
