"""The report of one run, made from its folder alone.

`build` makes the numbers, `markdown`, `overview` and `captions` the sentences, the functions in
`run_figures` the figures; `write` puts them on disk.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from sumrnn.report import page, words
from sumrnn.report.drawing import pictures
from sumrnn.report.run_figures import FIGURES
from sumrnn.runs import files
from sumrnn.runs.folder import FIGURES as FOLDER
from sumrnn.runs.folder import REPORT_HTML, REPORT_JSON, REPORT_MD, RunFolder
from sumrnn.runs.results import Run
from sumrnn.scores import exact, metrics
from sumrnn.scores.statistics import SIGNIFICANT
from sumrnn.task import sum_law
from sumrnn.train.evaluation import is_evaluated

FORMAT = 2
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
"""Splits, and their names in sentences."""


def build(run: Run) -> dict[str, Any]:
    """Every number of the report, under the names of report.json.

    `task` holds what the exact distribution of the sum says; `train`, `validation` and `test` hold
    the counts and scores of `metrics.class_counts` and `metrics.scores` for the final network,
    `exact` those of exact evaluation (see `exact.scores`; None if the run has none); `run` holds
    `continued` only if the run was continued by something else than what began it.
    """
    record = run.record
    task, distribution = record.config.task, sum_law(record.config.task)
    return {
        "format": FORMAT,
        "run": {
            "name": record.name,
            "seed": record.seed,
            "config": dataclasses.asdict(record.config),
            "versions": record.versions,
            "device": record.device,
            "seconds": float(run.history["seconds"].sum()),
            **({"continued": True} if record.continued else {}),
        },
        "task": {
            **{name: getattr(task, name) for name in ("length", "low", "high", "threshold")},
            "mean_sum": distribution.mean,
            "std_sum": distribution.std,
            "positive_rate": distribution.positive_rate,
            "majority_class": distribution.majority_class,
            "minority_class": 1 - distribution.majority_class,
            "majority_accuracy": distribution.majority_accuracy,
        },
        **{
            name: metrics.class_counts(part.labels, distribution.positive_rate)
            | metrics.scores(part.labels, part.logits, distribution.majority_class)
            for name, part in run.parts.items()
        },
        "exact": None if run.exam is None else exact.scores(task, run.exam),
    }


def _render(template: str, report: dict[str, Any], **values: Any) -> str:
    """The text of a template that speaks of one run."""
    task = report["task"]
    meanings = (f"sum < {task['threshold']}", f"sum ≥ {task['threshold']}")
    return words.render(
        template,
        **report,
        report=report,
        splits=SPLITS,
        meaning=dict(zip(metrics.CLASSES, meanings, strict=True)),
        minor=metrics.CLASSES[task["minority_class"]],
        major=metrics.CLASSES[task["majority_class"]],
        significant=SIGNIFICANT,
        **values,
    )


def markdown(report: dict[str, Any]) -> str:
    """The text of report.md."""
    return words.reflow(_render("report.md.j2", report, figures=figures(report), folder=FOLDER))


def overview(report: dict[str, Any], path: pathlib.Path) -> str:
    """What the commands print at the end, about the run in the folder at `path`."""
    return _render("run_overview.txt.j2", report, path=path / REPORT_HTML)


def captions(run: Run, report: dict[str, Any]) -> dict[str, str]:
    """What is to be seen in the figures, by their names."""
    test, strata = run.parts["test"], report["exact"]["strata"] if report["exact"] else []
    wrong = metrics.predicted_labels(test.logits) != test.labels
    text = _render(
        "run_captions.txt.j2",
        report,
        last={name: float(column[-1]) for name, column in run.history.items()},
        wrong_sums=test.digits[wrong].sum(axis=1, dtype=np.int64).tolist(),
        worst=max(strata, key=lambda row: row["wrong"] / row["series"], default=None),
    )
    return words.by_name(text)


def figures(report: dict[str, Any]) -> list[str]:
    """The names of the figures that a report has."""
    return [name for name in FIGURES if name != "exact" or report["exact"]]


def write(folder: RunFolder, warn: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Rebuilds report.json, report.md, report.html and the figures; returns the numbers of `build`.

    `warn` is told of a figure that cannot be drawn.  Raises `UserError` if the folder holds no
    finished run or cannot be written.
    """
    run = folder.load()
    if run.exam is None and is_evaluated(run.record.config.task):
        why = "its series near the threshold were drawn by another version of this program"
        warn(f"{folder.path}: has no scores by the exact law, because {why}")
    report = build(run)
    draws = {name: functools.partial(FIGURES[name], run, report) for name in figures(report)}
    text, drawn = markdown(report), pictures(draws, warn)
    texts = {
        REPORT_JSON: files.to_json(report),
        REPORT_MD: text,
        REPORT_HTML: page.render(text, drawn, captions(run, report)),
    }
    shown = [(name, png) for name, (png, _) in drawn.items()]
    files.write_report(folder.path, texts, shown, FIGURES)
    return report
