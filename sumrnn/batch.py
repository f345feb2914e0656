"""A question put to many seeds: its declaration, and its runs in one folder.

experiment.json             the declaration, the seeds asked for, versions of code and packages
runs/CONDITION-seedSEED/    a run folder (see `runs`) for each condition and seed
runs.csv, summary.json, summary.md, figures/*.png      rebuilt from these at any time
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sumrnn import config as config_lib
from sumrnn import placement, runs, train
from sumrnn.config import Config, ConfigError
from sumrnn.runs import RunError

FORMAT = 1
EXPERIMENT = "experiment.json"
RUNS = "runs"
PLOTS = ("scores", "learning", "skew", "variance")
"""scores: every run as a point; learning: curves with bands; skew: scores against the
exact positive share; variance: what the spread comes from (needs crossed seeds)."""

SCORES = (
    "accuracy",
    "majority_accuracy",
    "gain",
    "skill",
    "constant_p_value",
    "balanced_accuracy",
    "matthews_correlation",
    "roc_auc",
    "average_precision_minority",
    "brier_score",
    "log_loss",
    "tn",
    "fp",
    "fn",
    "tp",
)
"""Scores of the test series; every one a column of the table."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it: every condition with every seed."""

    name: str
    question: str
    """One line."""
    conditions: dict[str, Config]
    """By name: lower-case letters, digits, dots and hyphens."""
    seeds: str = "0:8"
    """What `--seeds` is unless given."""
    scores: tuple[str, ...] = ("accuracy", "balanced_accuracy", "matthews_correlation")
    """Scores of the test series that are shown; the table has all."""
    plots: tuple[str, ...] = ("scores", "learning")
    """From `PLOTS`."""
    references: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """By condition and score: a value from elsewhere, to be placed among the runs."""

    def __post_init__(self) -> None:
        for field in ("name", "question"):
            text = getattr(self, field)
            if not isinstance(text, str) or not text.isprintable() or not text:
                raise ConfigError(field, text, "a line of text")
        if not self.conditions:
            raise ConfigError("conditions", self.conditions, "at least one")
        for name in self.conditions:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", name):
                allowed = "up to 100 lower-case letters, digits, dots and hyphens"
                raise ConfigError("conditions", name, allowed)
        for field, known in (("scores", SCORES), ("plots", PLOTS)):
            chosen = getattr(self, field)
            if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
                raise ConfigError(field, chosen, f"some of {', '.join(known)}, once each")
        for name, values in self.references.items():
            if name not in self.conditions:
                raise ConfigError("references", name, "the name of a condition")
            for score, value in dict(values).items():
                number = type(value) in (int, float) and math.isfinite(value)
                if score not in SCORES or not number:
                    raise ConfigError("references", {score: value}, "finite numbers by score")
        free = {placement.unpinned(config) for config in self.conditions.values()}
        if "variance" in self.plots and len(free) > 1:
            raise ConfigError("plots", "variance", "of conditions that differ in their seeds alone")


def to_dict(experiment: Experiment, seeds: Sequence[int], versions: dict[str, str]) -> Any:
    """The content of experiment.json."""
    return {
        "format": FORMAT,
        **dataclasses.asdict(experiment),
        "seeds": sorted(seeds),
        "versions": versions,
        "device": runs.device(),
    }


def run_folder(path: pathlib.Path, condition: str, seed: int) -> pathlib.Path:
    """Where a run of the batch in `path` is."""
    return path / RUNS / f"{condition}-seed{seed}"


def open_folder(path: pathlib.Path, experiment: Experiment, seeds: Sequence[int]) -> None:
    """Starts the folder of a batch, or makes sure that it may be continued.

    Raises:
      RunError: if `path` holds something else: another experiment, other configs or other
        versions of code or packages.
    """
    described = to_dict(experiment, seeds, runs.versions())
    file = path / EXPERIMENT
    try:
        if file.exists():
            found = read(path)
            _check_same(file, found, described)
            described["seeds"] = sorted({*found["seeds"], *seeds})
        elif not runs.is_empty(path):
            raise RunError(
                f"out = {str(path)!r}: must be new, empty or a batch of this experiment; "
                f"it has other content and no {EXPERIMENT}, so it is left alone"
            )
        runs.clear(path)
        runs.write_atomic(file, runs.to_json(described))
    except OSError as error:
        raise runs.unwritable(path, error) from None


def _check_same(file: pathlib.Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    if found["name"] != asked["name"]:
        raise RunError(f"{file}: is of the experiment {found['name']!r}, not {asked['name']!r}")
    if found["conditions"] != asked["conditions"]:
        names = {*found["conditions"], *asked["conditions"]}
        other = [
            n for n in sorted(names) if found["conditions"].get(n) != asked["conditions"].get(n)
        ]
        raise RunError(
            f"{file}: was made with other configs ({', '.join(other)}); choose another folder"
        )
    made_with = found["versions"] | {"device": found.get("device")}
    for name, version in (asked["versions"] | {"device": asked["device"]}).items():
        if (made := made_with.get(name)) != version:
            raise RunError(
                f"{file}: was made with {name} {made}, this is {version}, which may give other "
                "bits; choose another folder or go back to that version"
            )


def read(path: pathlib.Path) -> dict[str, Any]:
    """The content of a batch's experiment.json, checked.

    Raises:
      RunError: if it is missing, unreadable or damaged.
    """
    file = path / EXPERIMENT
    with runs.explain(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"must be an object with format = {FORMAT}")
        declared(found)
        config_lib.check_seeds("seeds", found["seeds"])
        versions = found["versions"]
        if not isinstance(versions, dict) or not {"code", "jax"} <= set(versions):
            raise ValueError("versions must be an object with code and jax")
        if not all(isinstance(version, str) for version in versions.values()):
            raise ValueError("versions must be texts")
        return found


def declared(described: dict[str, Any]) -> Experiment:
    """The declaration inside experiment.json."""
    fields = {field.name: described[field.name] for field in dataclasses.fields(Experiment)}
    conditions = {
        name: config_lib.from_dict(Config, values) for name, values in fields["conditions"].items()
    }
    texts = {name: tuple(fields[name]) for name in ("scores", "plots")}
    return Experiment(**fields | texts | {"conditions": conditions, "seeds": ""})


@dataclasses.dataclass
class Progress:
    """How far a batch is."""

    total: int
    """Runs asked for."""
    done: int
    """Finished runs, those of earlier starts included."""
    todo: int
    """Seed-epochs that are missing when the batch starts."""
    condition: str = ""
    """Of the current wave, as the next three."""
    seeds: tuple[int, ...] = ()
    epochs: int = 0
    """Epochs of a run."""
    epoch: int = 0
    """Finished epochs."""
    worked: int = 0
    """Seed-epochs done since the start."""
    diverged: int = 0
    """Runs since the start whose loss is no longer a number."""
    began: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def speed(self) -> float:
        """Seed-epochs per second since the start."""
        return self.worked / max(time.perf_counter() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Expected time until the end; NaN before the first epoch."""
        return (self.todo - self.worked) / self.speed if self.worked else float("nan")


def run(
    path: pathlib.Path,
    experiment: Experiment,
    seeds: Sequence[int],
    per_device: int | None = None,
    view: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Runs what is missing in the folder of a batch, as from `open_folder`.

    Several processes call this together; only the first one touches the folder.

    Args:
      path: the folder.
      experiment: its declaration.
      seeds: for every condition.
      per_device: see `placement.plan`.
      view: is shown the progress after every epoch, and after every wave that is written.

    Raises:
      RunError: if a run cannot be written.
    """
    missing = {
        condition: [
            seed
            for seed, done in zip(seeds, _finished(path, condition, seeds), strict=True)
            if not done
        ]
        for condition in experiment.conditions
    }
    total = len(seeds) * len(experiment.conditions)
    todo = sum(len(missing[name]) * c.train.epochs for name, c in experiment.conditions.items())
    progress = Progress(total, total - sum(map(len, missing.values())), todo)
    view(progress)
    for condition, config in experiment.conditions.items():
        if missing[condition]:
            progress.condition, progress.epochs = condition, config.train.epochs
            _run_condition(path, config, missing[condition], per_device, progress, view)
    return progress


def _run_condition(
    path: pathlib.Path,
    config: Config,
    seeds: Sequence[int],
    per_device: int | None,
    progress: Progress,
    view: Callable[[Progress], None],
) -> None:
    """Runs and writes some seeds of the progress's condition, wave by wave."""
    seconds: list[float] = []
    last = time.perf_counter()

    def watch(wave: Sequence[int], number: int, metrics: train.Metrics) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        progress.seeds, progress.epoch = tuple(wave), number + 1
        progress.worked += len(wave)
        view(progress)

    plan = placement.plan(len(seeds), config, per_device)
    for wave in placement.waves(config, seeds, plan, watch):
        histories = [_history(wave, i, seconds) for i in range(len(wave.seeds))]
        placement.first_does(
            functools.partial(_write, path, progress.condition, config, wave, histories)
        )
        progress.done += len(wave.seeds)
        progress.diverged += sum(not runs.is_finite(rows[-1]) for rows in histories)
        seconds.clear()
        progress.epoch = 0
        view(progress)
        last = time.perf_counter()


def _finished(path: pathlib.Path, condition: str, seeds: Sequence[int]) -> list[bool]:
    """Which seeds need not run again, as the first process sees it; the others must be free."""
    done = np.zeros(len(seeds), bool)

    def look() -> None:
        for i, seed in enumerate(seeds):
            folder = run_folder(path, condition, seed)
            done[i] = runs.status(folder) != "unfinished"
            if not done[i]:
                runs.check_free(folder, overwrite=True)

    placement.first_does(look)
    return [bool(x) for x in placement.from_first(done)]


def _history(wave: placement.Batch, index: int, seconds: Sequence[float]) -> list[dict[str, float]]:
    """Rows of history.csv of a run of a wave, up to the first that is not finite."""
    rows: list[dict[str, float]] = []
    for number, wall_clock in enumerate(seconds):
        row = {name: float(x[index, number]) for name, x in wave.history._asdict().items()}
        rows.append({"epoch": number + 1, **row, "seconds": wall_clock})
        if not runs.is_finite(row):
            break
    return rows


def _write(
    path: pathlib.Path,
    condition: str,
    config: Config,
    wave: placement.Batch,
    histories: Sequence[Sequence[dict[str, float]]],
) -> None:
    """Writes the runs of a wave; of one whose loss is no longer a number only the history."""
    for i, (seed, rows) in enumerate(zip(wave.seeds, histories, strict=True)):
        folder = run_folder(path, condition, seed)
        runs.create(folder, config, seed, condition, overwrite=True)
        runs.write_history(folder, rows)
        if runs.is_finite(rows[-1]):
            runs.finish(folder, *placement.one(wave, i))
