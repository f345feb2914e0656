"""The report of an experiment: table, statistics, sentences and figures, from its folder alone.

`build` makes the numbers, `markdown`, `overview` and `captions` the sentences, the functions in
`experiment_figures` the figures; `write` puts them on disk.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sumrnn.config import Config
from sumrnn.report import page, words
from sumrnn.report.drawing import pictures
from sumrnn.report.experiment_figures import FIGURES
from sumrnn.report.probes import SUMMARIES
from sumrnn.runs import files
from sumrnn.runs.folder import FIGURES as FOLDER
from sumrnn.runs.folder import REPORT_HTML
from sumrnn.scores import metrics, statistics
from sumrnn.scores.statistics import SIGNIFICANT
from sumrnn.study import probe
from sumrnn.study.experiment import SCORES
from sumrnn.study.folder import ExperimentFolder
from sumrnn.study.table import TABLE, Collection, collect, to_csv
from sumrnn.task import sum_law

FORMAT = 1
SUMMARY_JSON = "summary.json"
SUMMARY_MD = "summary.md"
TIMES = "times.csv"
TIME_COLUMNS = ("condition", "runs", "seconds_per_epoch", "hours")
MAX_ROWS = 1_000
"""Runs in the table of a page, whose size has a limit then."""


def build(runs: Collection) -> dict[str, Any]:
    """Every number of the summary, under the names of summary.json.

    It holds `continued` only if runs were continued by something else than what began them.
    """
    experiment = runs.experiment
    crossed = "variance" in experiment.plots
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "question": experiment.question,
        "baselines": experiment.baselines,
        "seeds": list(runs.seeds),
        "versions": runs.versions,
        **({"continued": True} if runs.continued else {}),
        "processors": runs.processors,
        "conditions": {
            name: _condition(runs, name, config) for name, config in experiment.conditions.items()
        },
        # The cells of a crossed design are not compared in pairs.
        "differences": [] if crossed else _differences(runs),
        "variance": _variance(runs) if crossed else None,
        **{name: SUMMARIES[name](runs) for name in runs.probes},
    }


def _condition(runs: Collection, name: str, config: Config) -> dict[str, Any]:
    rows = [row for row in runs.rows if row["condition"] == name]
    finished = [row for row in rows if row["status"] == "finished"]
    diverged = sum(row["status"] == "diverged" for row in rows)
    ended = len(finished) + diverged
    failed = diverged + sum(row["accuracy"] <= row["majority_accuracy"] for row in finished)
    beating = sum(row["gain"] > 0 and row["constant_p_value"] < SIGNIFICANT for row in finished)
    distribution = sum_law(config.task)
    values = {score: runs.array(name, score) for score in SCORES}
    references = runs.experiment.references.get(name, {})
    return {
        "positive_rate": distribution.positive_rate,
        "majority_accuracy": distribution.majority_accuracy,
        "finished": len(finished),
        "diverged": diverged,
        "unfinished": len(rows) - ended,
        "collapsed": sum(metrics.collapsed(row) is not None for row in finished),
        "failed": failed,
        "failed_share": failed / ended if ended else None,
        "failed_interval": list(metrics.interval(failed, ended)) if ended else None,
        "beating": beating,
        "beating_share": beating / ended if ended else None,
        "scores": {score: statistics.describe(values[score]) for score in SCORES},
        "references": {
            score: statistics.rank(value, values[score]) for score, value in references.items()
        },
    }


def _differences(runs: Collection) -> list[dict[str, Any]]:
    """The differences between conditions, over the seeds for which both have the score."""
    experiment, differences = runs.experiment, []
    every = itertools.combinations(experiment.conditions, 2)
    for first, second in experiment.baselines.items() or every:
        scores = {}
        for score in experiment.scores:
            a, b = runs.values(first, score), runs.values(second, score)
            pairs = np.array([(a[seed], b[seed]) for seed in a if seed in b]).reshape(-1, 2)
            scores[score] = statistics.paired_difference(*pairs.T)
        differences.append({"first": first, "second": second, "scores": scores})
    return differences


def _variance(runs: Collection) -> dict[str, Any]:
    """The split for each score; None where the runs do not cross every seed with every other."""
    configs = runs.experiment.conditions

    def seeds(row: dict[str, Any]) -> tuple[int, ...]:
        """Those of data, initialisation and shuffling."""
        config = configs[row["condition"]]
        pinned = (config.data_seed, config.init_seed, config.shuffle_seed)
        return tuple(row["seed"] if seed is None else seed for seed in pinned)

    splits: dict[str, Any] = dict.fromkeys(runs.experiment.scores)
    for score in splits:
        cells = {seeds(row): row[score] for row in runs.rows if row[score] is not None}
        levels = [sorted(set(column)) for column in zip(*cells, strict=True)]
        grid, shape = list(itertools.product(*levels)), [len(level) for level in levels]
        if set(grid) == set(cells) and min(shape, default=0) >= 2:
            values = np.array([cells[cell] for cell in grid]).reshape(shape)
            splits[score] = statistics.variance_components(values)
    return splits


def markdown(summary: dict[str, Any], scores: Sequence[str], names: Sequence[str]) -> str:
    """The text of summary.md, with these scores, and with figures of these names."""
    seeds = summary["seeds"]
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    text = words.render(
        "summary.md.j2",
        summary=summary,
        scores=scores,
        exact=[score.startswith("exact_") for score in scores],
        seeds=f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds)),
        significant=SIGNIFICANT,
        table=TABLE,
        summary_json=SUMMARY_JSON,
        folder=FOLDER,
        figures=names,
    )
    return words.reflow(text)


def overview(summary: dict[str, Any], path: pathlib.Path) -> str:
    """What the commands print at the end: a line per condition of the experiment at `path`."""
    return words.render("experiment_overview.txt.j2", summary=summary, path=path / REPORT_HTML)


def figures(runs: Collection, summary: dict[str, Any]) -> list[str]:
    """The names of the figures that the experiment asks for; none before a run finished."""
    if not any(condition["finished"] for condition in summary["conditions"].values()):
        return []
    without = {"variance": not any((summary["variance"] or {}).values())}
    without |= {name: not rows for name, rows in runs.probes.items()}
    return [name for name in runs.experiment.plots if not without.get(name)]


def captions(runs: Collection, summary: dict[str, Any]) -> dict[str, str]:
    """What is to be seen in the figures, by their names, whether or not they are drawn."""
    text = words.render(
        "experiment_captions.txt.j2",
        summary=summary,
        scores=runs.experiment.scores,
        errors={
            name: float(np.median(1 - history["val_accuracy"][:, -1]))
            for name, history in runs.histories.items()
        },
    )
    return words.by_name(text)


def table(runs: Collection) -> str:
    """HTML of the runs of the lowest seeds, with the scores that the experiment shows."""
    rows, scores = sorted(runs.rows, key=lambda row: row["seed"]), runs.experiment.scores
    values = {"rows": rows[:MAX_ROWS], "total": len(rows), "scores": scores, "file": TABLE}
    return words.render("runs.html.j2", **values)


def times(runs: Collection) -> list[dict[str, Any]]:
    """What the training of each condition took, by wall clock: it differs from time to time.

    `seconds_per_epoch` is the median over the epochs of its finished runs, `hours` their sum; those
    of runs that were trained side by side, on a core each, both count.
    """
    return [
        {
            "condition": name,
            "runs": len(history["seconds"]),
            "seconds_per_epoch": float(np.median(history["seconds"])),
            "hours": float(history["seconds"].sum()) / 3_600,
        }
        for name, history in runs.histories.items()
    ]


def write(
    folder: ExperimentFolder, warn: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Rebuilds the tables, summary.json, summary.md, report.html and figures of an experiment.

    Returns the numbers of `build`.  `warn` is told of a figure that cannot be drawn.  Raises
    `UserError` if there is no experiment, a run in it is damaged, or it cannot be written.
    """
    with folder.lock():  # Who comes later has seen more.
        runs = collect(folder)
        summary = build(runs)
        names = figures(runs, summary)
        drawn = pictures({n: functools.partial(FIGURES[n], runs, summary) for n in names}, warn)
        text = markdown(summary, runs.experiment.scores, names)
        texts = {
            TABLE: to_csv(runs.rows),
            **{f"{name}.csv": probe.to_csv(rows) for name, rows in runs.probes.items()},
            TIMES: probe.to_csv(times(runs), TIME_COLUMNS),
            SUMMARY_JSON: files.to_json(summary),
            SUMMARY_MD: text,
            REPORT_HTML: page.render(
                text, drawn, captions(runs, summary), sections={"Every run": table(runs)}
            ),
        }
        shown = [(name, png) for name, (png, _) in drawn.items()]
        files.write_report(folder.path, texts, shown, FIGURES)
        return summary
