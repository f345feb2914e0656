"""A question put to many seeds: its declaration, and its runs in one folder.

experiment.json             the declaration, the seeds asked for, versions of code and packages
runs/CONDITION-seedSEED/    a run folder (see `runs`) for each condition and seed
runs.csv, summary.json, summary.md, figures/*.png      rebuilt from these at any time
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sumrnn import config as config_lib
from sumrnn import files, placement, recorder, runs
from sumrnn.config import Config, ConfigError
from sumrnn.files import RunError
from sumrnn.signals import Stop

FORMAT = 2
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
    """Like those of conditions: lower-case letters, digits, dots and hyphens."""
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
        text = self.question
        if not isinstance(text, str) or not text.isprintable() or not text:
            raise ConfigError("question", text, "a line of text")
        if not self.conditions:
            raise ConfigError("conditions", self.conditions, "at least one")
        for field, name in ("name", self.name), *(("conditions", x) for x in self.conditions):
            if not isinstance(name, str) or not re.fullmatch(runs.NAME, name):
                raise ConfigError(field, name, runs.NAMED)
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


def check_folder(path: pathlib.Path) -> None:
    """Makes sure that a batch may be written to `path`; touches nothing.

    Raises:
      RunError: if it holds something else.
    """
    try:
        if (path / EXPERIMENT).exists() or files.is_empty(path):
            return
    except OSError as error:
        raise files.unwritable(path, error) from None
    raise RunError(
        f"out = {str(path)!r}: must be new, empty or a batch of this experiment; "
        f"it has other content and no {EXPERIMENT}, so it is left alone"
    )


def open_folder(path: pathlib.Path, experiment: Experiment, seeds: Sequence[int]) -> None:
    """Starts the folder of a batch, or makes sure that it may be continued.

    Raises:
      RunError: if `path` holds something else: another experiment, other configs or other
        versions of code or packages.
    """
    check_folder(path)
    described = to_dict(experiment, seeds, runs.versions())
    file = path / EXPERIMENT
    try:
        if file.exists():
            found = read(path)
            _check_same(file, found, described)
            described["seeds"] = sorted({*found["seeds"], *seeds})
        files.clear(path)
        files.write_sealed(file, described)
    except OSError as error:
        raise files.unwritable(path, error) from None


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
    runs.check_made_here(file, found)


def read(path: pathlib.Path) -> dict[str, Any]:
    """The content of a batch's experiment.json, checked.

    Raises:
      RunError: if it is missing, unreadable or damaged.
    """
    file = path / EXPERIMENT
    with files.explain(file):
        found = files.read_sealed(file, FORMAT)
        declared(found)
        config_lib.check_seeds("seeds", found["seeds"])
        runs.check_texts("versions", found["versions"], "code", "jax")
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
    """Runs that have ended, in earlier starts or in this one."""
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
    """Runs since the start whose numbers are no longer finite."""
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
    stop: Stop,
    view: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda line: None,
    every: int | None = None,
    per_device: int | None = None,
) -> Progress:
    """Runs what is missing in the folder of a batch, as from `open_folder`.

    Several processes call this together; only the first one touches the folder.

    Args:
      path: the folder.
      experiment: its declaration.
      seeds: for every condition.
      stop: see `recorder.record`.
      view: is shown the progress after every epoch, and after every wave that has ended.
      warn: is told what is damaged and made again.
      every: see `recorder.record`.
      per_device: see `placement.plan`.

    Raises:
      RunError: if a run cannot be written, or is damaged so that it cannot be continued.
      OSError: if the disk is full.
    """
    begun = {
        condition: _begun(path, condition, config, seeds, warn)
        for condition, config in experiment.conditions.items()
    }
    todo = {
        condition: sum(config.train.epochs - epoch for epoch in begun[condition].values())
        for condition, config in experiment.conditions.items()
    }
    total = len(seeds) * len(experiment.conditions)
    progress = Progress(total, total - sum(map(len, begun.values())), sum(todo.values()))
    placement.first_does(lambda: view(progress))
    for condition, config in experiment.conditions.items():

        def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
            progress.seeds, progress.epoch = tuple(seeds), epoch
            progress.worked += len(seeds)
            view(progress)

        progress.condition, progress.epochs = condition, config.train.epochs
        folders = {seed: run_folder(path, condition, seed) for seed in begun[condition]}
        for wave in recorder.record(
            folders, begun[condition], config, condition, stop, watch, every, per_device
        ):
            status = list(wave.status.values())
            progress.done += len(status) - status.count("unfinished")
            progress.diverged += status.count("diverged")
            progress.todo -= (config.train.epochs - wave.epoch) * len(status)
            progress.epoch = 0
            placement.first_does(lambda: view(progress))
    return progress


def _begun(
    path: pathlib.Path,
    condition: str,
    config: Config,
    seeds: Sequence[int],
    warn: Callable[[str], None],
) -> dict[int, int]:
    """Of the runs that have not ended: after which epoch each goes on, by seed."""
    ended = -1
    found = np.full(len(seeds), ended)

    def look() -> None:
        for i, seed in enumerate(seeds):
            folder = run_folder(path, condition, seed)
            status, epoch, wrong = runs.survey(folder, config, seed)
            for line in wrong:
                warn(f"{line}; continuing after epoch {epoch}")
            if status == "unfinished":
                found[i] = epoch

    placement.first_does(look)
    epochs = placement.from_first(found)
    return {seed: int(epoch) for seed, epoch in zip(seeds, epochs, strict=True) if epoch != ended}
