"""What a person reads of a batch: table, statistics, words and pictures, from its folder alone.

`collect` reads the runs, `build` makes the numbers, `markdown` and `overview` the words;
`write` puts them on disk.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import pathlib
from typing import Any

import numpy as np

from sumrnn import batch, figures, files, metrics, runs, statistics
from sumrnn import task as task_lib
from sumrnn.batch import SCORES, Experiment
from sumrnn.config import Config
from sumrnn.files import RunError
from sumrnn.report import number, percent, span, table

FORMAT = 1
TABLE = "runs.csv"
SUMMARY_JSON = "summary.json"
SUMMARY_MD = "summary.md"
COLUMNS = ("condition", "seed", "status", *SCORES)
SIGNIFICANT = 0.05


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

    def values(self, condition: str, score: str) -> dict[int, float]:
        """By seed: a score where it is defined."""
        return {
            row["seed"]: float(row[score])
            for row in self.rows
            if row["condition"] == condition and row[score] is not None
        }


def collect(path: pathlib.Path) -> Collected:
    """Reads every run of the batch in `path`.

    Raises:
      RunError: if the folder holds no batch, or a run in it that ended is damaged or another's.
    """
    found = batch.read(path)
    experiment, seeds = batch.declared(found), tuple(found["seeds"])
    rows, histories = [], {}
    for condition, config in experiment.conditions.items():
        law = task_lib.law(config.task)
        finished = []
        for seed in seeds:
            folder = batch.run_folder(path, condition, seed)
            row = dict.fromkeys(COLUMNS) | {"condition": condition, "seed": seed}
            row["status"] = runs.status(folder)
            if row["status"] == "diverged":  # What has finished is checked as it is loaded.
                runs.check_sums(folder)
            if row["status"] != "unfinished":
                read = runs.read_config(folder)
                if (read["config"], read["seed"]) != (config, seed):
                    raise RunError(
                        f"{folder / runs.CONFIG}: is another run; the batch has {condition} with "
                        f"seed {seed} here"
                    )
                if read["versions"] != found["versions"]:
                    raise RunError(
                        f"{folder / runs.CONFIG}: was made with other versions than "
                        f"{path / batch.EXPERIMENT} has"
                    )
            if row["status"] == "finished":
                run = runs.load(folder)
                part = run.parts["test"]
                scores = metrics.scores(part.labels, part.logits, law.majority_class)
                row |= {name: (scores | scores["confusion"])[name] for name in SCORES}
                finished.append(run.history)
            rows.append(row)
        if finished:
            histories[condition] = {
                name: np.stack([history[name] for history in finished]) for name in finished[0]
            }
    return Collected(experiment, seeds, found["versions"], rows, histories)


def build(collected: Collected) -> dict[str, Any]:
    """Every number of the summary, under the names of summary.json."""
    experiment = collected.experiment
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "question": experiment.question,
        "seeds": list(collected.seeds),
        "versions": collected.versions,
        "conditions": {
            name: _condition(collected, name, config)
            for name, config in experiment.conditions.items()
        },
        "differences": _differences(collected),
        "variance": _variance(collected) if "variance" in experiment.plots else None,
    }


def _condition(collected: Collected, name: str, config: Config) -> dict[str, Any]:
    rows = [row for row in collected.rows if row["condition"] == name]
    status = [row["status"] for row in rows]
    ended = [row for row in rows if row["status"] != "unfinished"]
    failed = sum(
        row["status"] == "diverged" or row["accuracy"] <= row["majority_accuracy"] for row in ended
    )
    beating = sum(
        row["status"] == "finished" and row["gain"] > 0 and row["constant_p_value"] < SIGNIFICANT
        for row in ended
    )
    collapsed = sum(
        row["status"] == "finished" and metrics.collapsed(row) is not None for row in ended
    )
    law = task_lib.law(config.task)
    values = {score: np.array([*collected.values(name, score).values()]) for score in SCORES}
    references = collected.experiment.references.get(name, {})
    return {
        "positive_rate": law.positive_rate,
        "majority_accuracy": law.majority_accuracy,
        "finished": status.count("finished"),
        "diverged": status.count("diverged"),
        "unfinished": status.count("unfinished"),
        "collapsed": collapsed,
        "failed": failed,
        "failed_share": failed / len(ended) if ended else None,
        "failed_interval": list(metrics.interval(failed, len(ended))) if ended else None,
        "beating": beating,
        "beating_share": beating / len(ended) if ended else None,
        "scores": {score: statistics.describe(values[score]) for score in SCORES},
        "references": {
            score: statistics.place(value, values[score]) for score, value in references.items()
        },
    }


def _differences(collected: Collected) -> list[dict[str, Any]]:
    """Between all pairs of conditions, unless these are the cells of a crossed design."""
    experiment = collected.experiment
    if "variance" in experiment.plots:
        return []
    found = []
    for first, second in itertools.combinations(experiment.conditions, 2):
        scores = {}
        for score in experiment.scores:
            a, b = collected.values(first, score), collected.values(second, score)
            shared = [seed for seed in a if seed in b]
            pair = (np.array([values[seed] for seed in shared]) for values in (a, b))
            scores[score] = statistics.difference(*pair)
        found.append({"first": first, "second": second, "scores": scores})
    return found


def _variance(collected: Collected) -> dict[str, Any]:
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
        whole = bool(grid) and all(cell in cells for cell in grid)
        if not whole or min(map(len, levels)) < 2:
            found[score] = None
            continue
        values = np.array([cells[cell] for cell in grid]).reshape(*map(len, levels))
        found[score] = statistics.variance_split(values)
    return found


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The table: one row per condition and seed; empty where a score is undefined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()}
        writer.writerow(shown)
    return text.getvalue()


def title(score: str) -> str:
    """A score's name in words."""
    return TITLES.get(score, score.replace("_", " "))


TITLES = {
    "gain": "accuracy minus constant answer's",
    "matthews_correlation": "Matthews correlation",
    "average_precision_minority": "average precision of the minority",
    "tn": "TN",
    "fp": "FP",
    "fn": "FN",
    "tp": "TP",
}


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if interval is None:
        return number(value)
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def _markdown_condition(summary: dict[str, Any], name: str, shown: tuple[str, ...]) -> list[str]:
    found = summary["conditions"][name]
    ended = found["finished"] + found["diverged"]
    if not ended:
        return [f"## {name}", f"No run has ended; {found['unfinished']} are missing."]
    says = [
        f"{found['finished']} runs finished"
        + (f", {found['diverged']} diverged" if found["diverged"] else "")
        + (f", {found['unfinished']} are missing" if found["unfinished"] else "")
        + (
            f"; {found['collapsed']} collapsed to one answer for every test series"
            if found["collapsed"]
            else ""
        )
        + f". By the exact law {percent(found['positive_rate'], 4)} of all series are positive, "
        f"and the constant answer scores {percent(found['majority_accuracy'], 4)}. "
        f"{found['failed']} of {ended} runs failed, diverged or at or below the constant answer on "
        f"their own test series ({percent(found['failed_share'], 1)}; 95 % interval "
        f"{span(found['failed_interval'])}); {found['beating']} beat it by more than chance "
        "(McNemar's exact p < 0.05)."
    ]
    rows = []
    for score in shown:
        s = found["scores"][score]
        rows.append(
            (
                title(score),
                str(s["runs"]),
                _with_interval(s["mean"], s["mean_interval"]),
                number(s["std"]),
                number(s["median"]),
                _with_interval(s["iqm"], s["iqm_interval"]),
                f"{number(s['min'])} to {number(s['max'])}",
            )
        )
    header = ("score", "runs", "mean", "std", "median", "inter-quartile mean", "range")
    parts = [f"## {name}", *says, table(header, rows)]
    if found["references"]:
        places = [
            (title(score), f"{p['value']:.6g}", str(p["below"]), str(p["equal"]), str(p["above"]))
            for score, p in found["references"].items()
        ]
        heads = ("value from elsewhere", "value", "runs below", "equal", "above")
        parts += ["Values from elsewhere among these runs:", table(heads, places)]
    return parts


def _markdown_differences(summary: dict[str, Any], shown: tuple[str, ...]) -> list[str]:
    pairs = summary["differences"]
    if not pairs:
        return []
    first = pairs[0]["first"]
    rows = []
    for pair in pairs:
        if pair["first"] != first:
            continue
        for score in shown:
            d = pair["scores"][score]
            if d["seeds"]:
                rows.append(
                    (
                        f"{pair['first']} − {pair['second']}",
                        title(score),
                        _with_interval(d["mean"], d["mean_interval"]),
                        f"{d['higher']} of {d['seeds']}",
                    )
                )
    every = "" if len(pairs) == 1 else f" Against {first}; {SUMMARY_JSON} has every pair."
    header = ("pair", "score", "mean difference", "seeds where the first is higher")
    says = f"By seed, with a 95 % bootstrap interval over the seeds.{every}"
    return ["## Paired differences", says, table(header, rows)]


def _markdown_variance(summary: dict[str, Any]) -> list[str]:
    if not summary["variance"]:
        return []
    found = summary["conditions"].values()
    total = {name: sum(c[name] for c in found) for name in ("finished", "diverged", "unfinished")}
    rows = []
    for score, split in summary["variance"].items():
        if split is None:
            rows.append((title(score), *["not crossed, or no variance"] * 4))
            continue
        shares = (percent(part["share"], 0) for part in split.values())
        rows.append((title(score), *shares))
    says = (
        f"{total['finished']} runs finished, {total['diverged']} diverged, "
        f"{total['unfinished']} are missing. Share of the variance between runs that each random "
        "source explains: variance components of a crossed random-effects model. The data are "
        "those of training and of test; without noise beside the seeds, what is left is "
        "interaction."
    )
    header = ("score", "data", "initialisation", "shuffling", "interaction")
    return ["## Where the spread comes from", says, table(header, rows)]


def markdown(summary: dict[str, Any], experiment: Experiment, drawn: tuple[str, ...]) -> str:
    """summary.md."""
    seeds = summary["seeds"]
    whole = seeds == list(range(seeds[0], seeds[-1] + 1))
    listed = (
        f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))
    )
    crossed = "variance" in experiment.plots
    conditions = [] if crossed else list(experiment.conditions)
    sections = [
        f"# Experiment {experiment.name}",
        experiment.question,
        f"Test series of the final networks; seeds {listed}; code {summary['versions']['code']}, "
        f"jax {summary['versions']['jax']}. Intervals are 95 % bootstrap intervals over the runs. "
        f"Every run is in [{TABLE}]({TABLE}).",
        *_markdown_variance(summary),
        *(
            part
            for name in conditions
            for part in _markdown_condition(summary, name, experiment.scores)
        ),
        *_markdown_differences(summary, experiment.scores),
        "## Figures",
        *(f"![{name}]({runs.FIGURES}/{name}.png)" for name in drawn),
    ]
    return "\n\n".join(sections) + "\n"


def overview(summary: dict[str, Any], path: pathlib.Path) -> str:
    """What the scripts print at the end: a line per condition."""
    width = max(len(name) for name in ["condition", *summary["conditions"]])
    lines = [
        "",
        f"{'condition':{width}}  runs  missing  diverged  collapsed  failed  "
        f"{'accuracy (95 % interval of the mean)':36}  constant",
    ]
    for name, found in summary["conditions"].items():
        ended = found["finished"] + found["diverged"]
        accuracy = found["scores"]["accuracy"]
        lines.append(
            f"{name:{width}}  {ended:4}  {found['unfinished']:7}  {found['diverged']:8}  "
            f"{found['collapsed']:9}  {found['failed']:6}  "
            f"{_with_interval(accuracy['mean'], accuracy['mean_interval']):36}  "
            f"{found['majority_accuracy']:8.4f}"
        )
    return "\n".join([*lines, "", f"summary  {path / SUMMARY_MD}"])


def draw(collected: Collected, summary: dict[str, Any]) -> dict[str, Any]:
    """The figures that the experiment asks for, by name."""
    experiment = collected.experiment
    found: dict[str, Any] = {}
    if not any(condition["finished"] for condition in summary["conditions"].values()):
        return found
    values = {
        title(score): {
            name: np.array([*collected.values(name, score).values()])
            for name in experiment.conditions
        }
        for score in experiment.scores
    }
    intervals = {
        title(score): {
            name: (condition["scores"][score]["mean"], condition["scores"][score]["mean_interval"])
            for name, condition in summary["conditions"].items()
        }
        for score in experiment.scores
    }
    rates = {name: c["positive_rate"] for name, c in summary["conditions"].items()}
    references = {
        title(score): {name: found_values[score]}
        for name, found_values in experiment.references.items()
        for score in experiment.scores
        if score in found_values
    }
    for plot in experiment.plots:
        if plot == "scores":
            found[plot] = figures.points(values, intervals, references, experiment.name)
        elif plot == "learning":
            found[plot] = figures.bands(collected.histories, experiment.name)
        elif plot == "skew":
            found[plot] = figures.skew(rates, values, intervals, experiment.name)
        elif summary["variance"] and any(summary["variance"].values()):
            splits = {title(s): split for s, split in summary["variance"].items() if split}
            found[plot] = figures.shares(splits, experiment.name)
    return found


def write(path: pathlib.Path) -> dict[str, Any]:
    """Rebuilds runs.csv, summary.json, summary.md and the figures of the batch in `path`.

    Returns:
      The numbers, as from `build`.

    Raises:
      RunError: if the folder holds no batch, a run in it is damaged, or it cannot be written.
    """
    collected = collect(path)
    summary = build(collected)
    drawn = draw(collected, summary)
    texts: dict[str, bytes | str] = {
        TABLE: to_csv(collected.rows),
        SUMMARY_JSON: files.to_json(summary),
        SUMMARY_MD: markdown(summary, collected.experiment, tuple(drawn)),
    }
    runs.write_report(path, texts, drawn)
    return summary
