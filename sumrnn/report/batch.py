"""What a person reads of a batch: table, statistics, words and pictures, from its folder alone.

`build` makes the numbers, `markdown`, `overview` and `captions` the words, `draw` the pictures;
`write` puts them on disk.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sumrnn.config import Config
from sumrnn.report import batch_figures as figures
from sumrnn.report import page, words
from sumrnn.report.canvas import pictures
from sumrnn.runs import files
from sumrnn.runs.folder import FIGURES as FOLDER
from sumrnn.runs.folder import REPORT_HTML
from sumrnn.scores import metrics, statistics
from sumrnn.scores.statistics import SIGNIFICANT
from sumrnn.study.experiment import SCORES
from sumrnn.study.folder import ExperimentFolder
from sumrnn.study.table import TABLE, Collection, collect, to_csv
from sumrnn.task import sum_law

FORMAT = 1
SUMMARY_JSON = "summary.json"
SUMMARY_MD = "summary.md"
SHOWN = 1_000
"""Runs in the table of a page, whose size has a limit then."""


def build(collected: Collection) -> dict[str, Any]:
    """Every number of the summary, under the names of summary.json.

    It holds `continued` only if the batch was.
    """
    experiment = collected.experiment
    crossed = "variance" in experiment.plots
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "question": experiment.question,
        "baselines": experiment.baselines,
        "seeds": list(collected.seeds),
        "versions": collected.versions,
        **({"continued": True} if collected.continued else {}),
        "processors": collected.processors,
        "conditions": {
            name: _condition(collected, name, config)
            for name, config in experiment.conditions.items()
        },
        # The cells of a crossed design are not compared in pairs.
        "differences": [] if crossed else _differences(collected),
        "variance": _variance(collected) if crossed else None,
    }


def _condition(collected: Collection, name: str, config: Config) -> dict[str, Any]:
    rows = [row for row in collected.rows if row["condition"] == name]
    finished = [row for row in rows if row["status"] == "finished"]
    diverged = sum(row["status"] == "diverged" for row in rows)
    ended = len(finished) + diverged
    failed = diverged + sum(row["accuracy"] <= row["majority_accuracy"] for row in finished)
    beating = sum(row["gain"] > 0 and row["constant_p_value"] < SIGNIFICANT for row in finished)
    law = sum_law(config.task)
    values = {score: np.array([*collected.values(name, score).values()]) for score in SCORES}
    references = collected.experiment.references.get(name, {})
    return {
        "positive_rate": law.positive_rate,
        "majority_accuracy": law.majority_accuracy,
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
            score: statistics.place(value, values[score]) for score, value in references.items()
        },
    }


def _differences(collected: Collection) -> list[dict[str, Any]]:
    """Between conditions, over the seeds for which both have the score."""
    experiment, found = collected.experiment, []
    every = itertools.combinations(experiment.conditions, 2)
    for first, second in experiment.baselines.items() or every:
        scores = {}
        for score in collected.experiment.scores:
            a, b = collected.values(first, score), collected.values(second, score)
            shared = [seed for seed in a if seed in b]
            pair = (np.array([values[seed] for seed in shared]) for values in (a, b))
            scores[score] = statistics.difference(*pair)
        found.append({"first": first, "second": second, "scores": scores})
    return found


def _variance(collected: Collection) -> dict[str, Any]:
    """The split for each score; None where the runs do not cross every seed with every other."""
    configs = collected.experiment.conditions

    def effective(row: dict[str, Any]) -> tuple[int, ...]:
        config = configs[row["condition"]]
        pinned = (config.data_seed, config.init_seed, config.shuffle_seed)
        return tuple(row["seed"] if pin is None else pin for pin in pinned)

    found: dict[str, Any] = {}
    for score in collected.experiment.scores:
        cells = {effective(row): row[score] for row in collected.rows if row[score] is not None}
        levels = [sorted(set(seeds)) for seeds in zip(*cells, strict=True)]
        grid = list(itertools.product(*levels))
        found[score] = None
        if set(grid) == set(cells) and min(map(len, levels), default=0) >= 2:
            values = np.array([cells[cell] for cell in grid]).reshape(*map(len, levels))
            found[score] = statistics.variance_split(values)
    return found


def markdown(summary: dict[str, Any], scores: Sequence[str], drawn: Iterable[str]) -> str:
    """summary.md of the numbers of `build`, with the scores and figures of these names."""
    seeds = summary["seeds"]
    whole = seeds == list(range(seeds[0], seeds[-1] + 1))
    span, parts = f"{seeds[0]} to {seeds[-1]}", summary["conditions"].values()
    return words.markdown(
        "summary.md.j2",
        summary=summary,
        scores=scores,
        exact=[score.startswith("exact_") for score in scores],
        seeds=span if whole and len(seeds) > 2 else ", ".join(map(str, seeds)),
        total={n: sum(part[n] for part in parts) for n in ("finished", "diverged", "unfinished")},
        significant=SIGNIFICANT,
        table=TABLE,
        summary_json=SUMMARY_JSON,
        folder=FOLDER,
        drawn=list(drawn),
    )


def overview(summary: dict[str, Any], path: pathlib.Path) -> str:
    """What the scripts print at the end: a line per condition."""
    conditions = summary["conditions"]
    rows = [("condition", "runs", "failed", "collapsed", "accuracy (95 % interval)", "constant")]
    for name, found in conditions.items():
        ended, accuracy = found["finished"] + found["diverged"], found["scores"]["accuracy"]
        rows.append(
            (
                name,
                f"{ended}/{ended + found['unfinished']}",
                f"{found['failed']}",
                f"{found['collapsed']}",
                words.with_interval(accuracy["mean"], accuracy["mean_interval"]),
                words.number(found["majority_accuracy"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [""]
    for name, *cells, constant in rows:
        middle = (cell.rjust(width) for cell, width in zip(cells, widths[1:-1], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *middle, constant.rjust(widths[-1]))))
    if diverged := sum(found["diverged"] for found in conditions.values()):
        lines += ["", f"diverged, and so failed: {diverged}"]
    return "\n".join([*lines, "", f"summary  {path / REPORT_HTML}"])


def draw(collected: Collection, summary: dict[str, Any]) -> dict[str, Callable[[], Figure]]:
    """What draws the figures that the experiment asks for, by name; none before a run finished."""
    experiment, conditions = collected.experiment, summary["conditions"]
    if not any(condition["finished"] for condition in conditions.values()):
        return {}
    values, intervals, references = {}, {}, {}
    for score in experiment.scores:
        title = words.score_name(score)
        values[title] = {
            name: np.array([*collected.values(name, score).values()]) for name in conditions
        }
        described = {name: condition["scores"][score] for name, condition in conditions.items()}
        intervals[title] = {
            name: (found["mean"], found["mean_interval"]) for name, found in described.items()
        }
        references[title] = {
            name: found[score] for name, found in experiment.references.items() if score in found
        }
    rates = {name: condition["positive_rate"] for name, condition in conditions.items()}
    splits = {
        words.score_name(s): split for s, split in (summary["variance"] or {}).items() if split
    }
    known: dict[str, Callable[[], Figure]] = {
        "scores": lambda: figures.points(values, intervals, references, experiment.name),
        "learning": lambda: figures.bands(collected.histories, experiment.name),
        "skew": lambda: figures.skew(rates, values, intervals, experiment.name),
        **({"variance": lambda: figures.shares(splits, experiment.name)} if splits else {}),
    }
    return {plot: known[plot] for plot in experiment.plots if plot in known}


def captions(collected: Collection, summary: dict[str, Any]) -> dict[str, str]:
    """What is to be seen in the figures, by the names in `PLOTS`; for a batch that has some."""
    conditions, scores = summary["conditions"], collected.experiment.scores
    means = {
        score: sorted(
            (found["scores"][score]["mean"], name)
            for name, found in conditions.items()
            if found["scores"][score]["mean"] is not None
        )
        for score in scores
    }
    errors = sorted(
        (float(np.median(1 - history["val_accuracy"][:, -1])), name)
        for name, history in collected.histories.items()
    )
    splits = {score: split for score, split in (summary["variance"] or {}).items() if split}
    return words.paragraphs(
        "batch_captions.txt.j2",
        means=means,
        errors=errors,
        by_rate=sorted(conditions.values(), key=lambda found: found["positive_rate"]),
        largest={
            score: max((of["share"], source) for source, of in split.items())
            for score, split in splits.items()
        },
    )


def table(collected: Collection) -> page.Table:
    """The runs of the lowest seeds, with the scores that the experiment shows."""
    scores = collected.experiment.scores
    rows = sorted(collected.rows, key=lambda row: row["seed"])
    note = f"All {len(rows):,} runs, by seed."
    if len(rows) > SHOWN:
        note = f"The {SHOWN:,} runs of the lowest seeds; {TABLE} has all {len(rows):,}."
    return page.Table(
        "Every run",
        note,
        ("condition", "seed", "status", *map(words.score_name, scores)),
        [
            (
                row["condition"],
                str(row["seed"]),
                row["status"],
                *(words.number(row[s]) if row["status"] == "finished" else "" for s in scores),
            )
            for row in rows[:SHOWN]
        ],
    )


def write(
    batch: ExperimentFolder, warn: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Rebuilds runs.csv, summary.json, summary.md, report.html and the figures of a batch.

    Returns the numbers of `build`.  `warn` is told of a figure that cannot be drawn.  Raises
    `UserError` if there is no batch, a run in it is damaged, or it cannot be written.
    """
    with batch.lock():  # Who comes later has seen more.
        collected = collect(batch)
        summary = build(collected)
        plots = draw(collected, summary)
        text, drawn = markdown(summary, collected.experiment.scores, plots), pictures(plots, warn)
        svgs = {name: picture.svg for name, picture in drawn.items()}
        said = captions(collected, summary) if svgs else {}
        texts = {
            TABLE: to_csv(collected.rows),
            SUMMARY_JSON: files.to_json(summary),
            SUMMARY_MD: text,
            REPORT_HTML: page.render(text, svgs, said, table(collected)),
        }
        batch.write_report(texts, [(name, of.png) for name, of in drawn.items()])
        return summary
