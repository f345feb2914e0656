"""One run's report, built from its folder alone.

`build` makes the numbers, `markdown`, `overview` and `captions` the words, `draw` the pictures;
`write` puts them on disk.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sumrnn.report import page, words
from sumrnn.report import run_figures as figures
from sumrnn.report.canvas import pictures
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
FIGURES = ("confusion", "learning", "ranking", "sums", "errors", "exact")
"""Names of the figures, in the order of the report."""
FEW = 50
"""Series of a class below which a share of them is too coarse to rest on."""
VERY_SKEWED = 0.9
"""Accuracy of the constant answer from which accuracy alone misleads."""


def build(run: Run) -> dict[str, Any]:
    """Every number of the report, under the names of report.json.

    `task` holds the exact law; `train`, `validation` and `test` hold the counts and the
    scores (see `metrics.counts` and `metrics.scores`) of the final network, `exact` those by the
    law (see `exact.scores`; None if the task has no exam); `run` holds `continued` only if the run
    was.
    """
    record = run.record
    task, law = record.config.task, sum_law(record.config.task)
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
            "mean_sum": law.mean,
            "std_sum": law.std,
            "positive_rate": law.positive_rate,
            "majority_class": law.majority_class,
            "minority_class": 1 - law.majority_class,
            "majority_accuracy": law.majority_accuracy,
        },
        **{
            name: metrics.counts(part.labels, law.positive_rate)
            | metrics.scores(part.labels, part.logits, law.majority_class)
            for name, part in run.parts.items()
        },
        "exact": None if run.exam is None else exact.scores(task, run.exam),
    }


def _meaning(report: dict[str, Any]) -> dict[str, str]:
    """What each class says of the sum, by its name."""
    threshold = report["task"]["threshold"]
    return dict(zip(metrics.CLASSES, (f"sum < {threshold}", f"sum ≥ {threshold}"), strict=True))


def _values(report: dict[str, Any]) -> dict[str, Any]:
    """What the templates use."""
    task = report["task"]
    return {
        **{name: report[name] for name in ("run", "task", "test", "exact")},
        "report": report,
        "splits": SPLITS,
        "meaning": _meaning(report),
        "minor": metrics.CLASSES[task["minority_class"]],
        "major": metrics.CLASSES[task["majority_class"]],
        "few": FEW,
        "very_skewed": VERY_SKEWED,
        "significant": SIGNIFICANT,
    }


def markdown(report: dict[str, Any]) -> str:
    """report.md."""
    shown = [name for name in FIGURES if name != "exact" or report["exact"]]
    return words.markdown("report.md.j2", **_values(report), figures=shown, folder=FOLDER)


def overview(report: dict[str, Any], path: pathlib.Path) -> str:
    """What the scripts print at the end."""
    cells = (f"FN {n:,}" for n in report["test"]["confusion"].values())
    width = max(map(len, (_meaning(report)["positive"], *cells)))
    values = _values(report) | {"width": width, "path": path / REPORT_HTML}
    return words.render("overview.txt.j2", **values)


def captions(run: Run, report: dict[str, Any]) -> dict[str, str]:
    """What is to be seen in the figures, by the names in `FIGURES`."""
    test, exam = run.parts["test"], report["exact"]
    wrong = metrics.answers(test.logits) != test.labels
    counts = ("size", "negatives", "expected_negatives")
    return words.paragraphs(
        "run_captions.txt.j2",
        **_values(report),
        last={name: float(column[-1]) for name, column in run.history.items()},
        all={name: sum(report[split][name] for split in SPLITS) for name in counts},
        wrong=test.digits[wrong].sum(axis=1, dtype=np.int64).tolist(),
        worst=exam and max(exam["strata"], key=lambda of: of["wrong"] / of["series"]),
    )


def draw(run: Run, report: dict[str, Any]) -> dict[str, Callable[[], Figure]]:
    """What draws the figures of a run, by the names in `FIGURES`."""
    task, test = run.record.config.task, run.parts["test"]
    law = sum_law(task)
    title = f"{run.record.name}, seed {run.record.seed}"
    on_test = f"{title}: {report['test']['size']:,} test series"
    constants = {
        SPLITS[name]: report[name]["majority_accuracy"] for name in ("train", "validation")
    }
    observed = np.concatenate(
        [part.digits.sum(axis=1, dtype=np.int64) for part in run.parts.values()]
    )
    all_series = f"{title}: all {observed.size:,} series"
    minority = 1 - law.majority_class
    exam = report["exact"]
    drawn = {} if exam is None else {"exact": lambda: figures.exact(exam["strata"], task, title)}
    return drawn | {
        "confusion": lambda: figures.confusion(report["test"]["confusion"], task, on_test),
        "learning": lambda: figures.learning_curves(run.history, constants, title),
        "ranking": lambda: figures.ranking(test, report["test"], minority, task, on_test),
        "sums": lambda: figures.sums(observed, law, task, all_series),
        "errors": lambda: figures.errors(test, task, on_test),
    }


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
    text, drawn = markdown(report), pictures(draw(run, report), warn)
    svgs = {name: picture.svg for name, picture in drawn.items()}
    texts = {
        REPORT_JSON: files.to_json(report),
        REPORT_MD: text,
        REPORT_HTML: page.render(text, svgs, captions(run, report)),
    }
    folder.write_report(texts, [(name, of.png) for name, of in drawn.items()], FIGURES)
    return report
