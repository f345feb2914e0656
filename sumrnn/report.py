"""What a person reads: one run's report, built from its folder alone.

`build` makes the numbers, `markdown` and `summary` the words; `write` puts them on disk.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sumrnn import figures, files, metrics, runs
from sumrnn import task as task_lib
from sumrnn.config import to_dict
from sumrnn.runs import Run

FORMAT = 2
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
FIGURES = ("confusion", "learning", "ranking", "sums", "errors")
"""Names of the figures, in the order of the report."""
FEW = 50
"""Series of a class below which a share of them is too coarse to rest on."""
SKEWED = 0.9
"""Accuracy of the constant answer from which accuracy alone misleads."""


def build(run: Run) -> dict[str, Any]:
    """Every number of the report, under the names of report.json.

    `task` holds the exact law; `train`, `validation` and `test` hold the counts and the
    scores (see `metrics.counts` and `metrics.scores`) of the final network.
    """
    task = run.config.task
    law = task_lib.law(task)
    described = {
        **{name: getattr(task, name) for name in ("length", "low", "high", "threshold")},
        "mean_sum": law.mean,
        "std_sum": law.std,
        "positive_rate": law.positive_rate,
        "majority_class": law.majority_class,
        "minority_class": 1 - law.majority_class,
        "majority_accuracy": law.majority_accuracy,
    }
    splits = {
        name: metrics.counts(part.labels, law.positive_rate)
        | metrics.scores(part.labels, part.logits, law.majority_class)
        for name, part in run.parts.items()
    }
    return {
        "format": FORMAT,
        "run": {
            "name": run.name,
            "seed": run.seed,
            "config": to_dict(run.config),
            "versions": run.versions,
            "device": run.device,
            "seconds": float(run.history["seconds"].sum()),
        },
        "task": described,
        **splits,
    }


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; None is undefined."""
    return "undefined" if value is None else f"{value:.{digits}%}".replace("%", " %")


def number(value: float | None, digits: int = 4) -> str:
    """A number with a fixed number of digits; None is undefined."""
    return "undefined" if value is None else f"{value:.{digits}f}".replace("-", "−")


def span(interval: list[float] | None) -> str:
    """An interval of shares."""
    if interval is None:
        return "undefined"
    return f"{percent(interval[0])} to {percent(interval[1])}"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ("---",) + ("---:",) * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _meaning(c: int, task: dict[str, Any]) -> str:
    return f"sum {'≥' if c else '<'} {task['threshold']}"


def _score_rows(test: dict[str, Any], task: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "accuracy", percent(test["accuracy"])
    yield "accuracy of the constant answer", percent(test["majority_accuracy"])
    yield "skill: share of the constant answer's errors avoided", percent(test["skill"])
    yield "balanced accuracy", percent(test["balanced_accuracy"])
    for name in ("precision", "recall", "f1"):
        for c, of in enumerate(metrics.CLASSES):
            title = "F1" if name == "f1" else name
            yield f"{title}, {of} ({_meaning(c, task)})", percent(test[name][of])
    yield "Matthews correlation", number(test["matthews_correlation"])
    yield "area under the ROC curve", number(test["roc_auc"])
    minority = metrics.CLASSES[task["minority_class"]]
    yield (
        f"average precision, {minority} (the minority)",
        number(test["average_precision_minority"]),
    )
    yield "Brier score (0 is best)", f"{test['brier_score']:.5f}"


def _collapse(test: dict[str, Any], task: dict[str, Any]) -> str:
    answer = _meaning(metrics.CLASSES.index(test["collapsed"]), task)
    return f"It collapsed: its answer to all {test['size']:,} test series is {answer}."


def discussion(report: dict[str, Any]) -> str:
    """Whether accuracy is valid for this run, argued from its own numbers."""
    task, test = report["task"], report["test"]
    major, minor = task["majority_class"], task["minority_class"]
    minor_name, major_name = metrics.CLASSES[minor], metrics.CLASSES[major]
    minor_count, size = test[f"{minor_name}s"], test["size"]
    ratio = task["majority_accuracy"] / max(1.0 - task["majority_accuracy"], 1e-300)
    says = []

    skewed = task["majority_accuracy"] >= SKEWED
    if task["majority_accuracy"] == 1.0:
        says.append("**The law leaves only one class**, so that there is nothing to tell apart.")
    elif skewed:
        says.append(
            f"**Accuracy misleads here.** With digits {task['low']} to {task['high']}, "
            f"{percent(task['positive_rate'])} of all series reach {task['threshold']}: "
            f"{ratio:.3g} {major_name}s for every {minor_name}. A constant answer that never "
            f"looks at the digits scores {percent(test['majority_accuracy'])} on this test set."
        )
    else:
        says.append(
            f"**Accuracy is a fair first measure here.** With digits {task['low']} to "
            f"{task['high']}, {percent(task['positive_rate'])} of all series reach "
            f"{task['threshold']}, and a constant answer scores only "
            f"{percent(test['majority_accuracy'])} on this test set."
        )

    points = 100 * (test["accuracy"] - test["majority_accuracy"])
    p_value = test["constant_p_value"]
    if points <= 0:
        verdict = "does not beat the constant answer"
    elif p_value < 0.05:
        verdict = (
            f"beats the constant answer by {points:.2f} points (McNemar's exact p = {p_value:.2g})"
        )
    else:
        verdict = (
            f"is {points:.2f} points above the constant answer, which chance could explain "
            f"(McNemar's exact p = {p_value:.2g})"
        )
    avoided = (
        f" Read as skill, it avoids {percent(test['skill'], 1)} of the constant answer's errors."
        if test["skill"] is not None and points > 0
        else ""
    )
    says.append(f"The network's {percent(test['accuracy'])} {verdict}.{avoided}")
    if test["collapsed"]:
        says.append(_collapse(test, task))

    minor_recall, major_recall = test["recall"][minor_name], test["recall"][major_name]
    if minor_recall is None or major_recall is None:
        says.append(
            f"The test set has {test['negatives']} negatives and {test['positives']} positives; "
            "with a class absent, every score that compares the classes is undefined."
        )
        return "\n\n".join(says)
    missed = test["confusion"]["fp" if minor == 0 else "fn"]
    wrongly = test["confusion"]["fn" if minor == 0 else "fp"]
    says.append(
        f"By class: of {minor_count:,} {minor_name}s ({_meaning(minor, task)}) it misses "
        f"{missed}, an error rate of {percent(1 - minor_recall, 1)}; of {size - minor_count:,} "
        f"{major_name}s it misses {wrongly}, {percent(1 - major_recall, 2)}. "
        f"Balanced accuracy, which weighs both classes alike, is "
        f"{percent(test['balanced_accuracy'])}."
    )
    if not skewed:
        says.append(
            "Read accuracy with its interval; balanced accuracy and the Matthews correlation "
            f"({number(test['matthews_correlation'])}) should agree with it."
        )
    elif minor_count < FEW:
        says.append(
            f"But {minor_count} {minor_name}s are few: the 95 % interval of their recall runs "
            f"from {span(test['recall_interval'][minor_name])}, and one series more or less "
            f"moves balanced accuracy by {50 / minor_count:.1f} points. Read the confusion matrix "
            f"and the average precision of the minority "
            f"({number(test['average_precision_minority'])}), and trust no single seed: only "
            "several seeds, or more test series, can rank networks on this task."
        )
    else:
        says.append(
            f"With {minor_count} {minor_name}s the scores by class are usable: the 95 % interval "
            f"of their recall runs from {span(test['recall_interval'][minor_name])}. Read "
            f"balanced accuracy, the Matthews correlation "
            f"({number(test['matthews_correlation'])}) and the recall of the {minor_name}s "
            "instead of accuracy."
        )
    if test["p_value"] < 0.05:
        says.append(
            f"This test set is itself unusual: {test['positives']:,} positives of {size:,}, where "
            f"the law expects {test['expected_positives']:.1f} (two-sided binomial "
            f"p = {test['p_value']:.2g})."
        )
    return "\n\n".join(says)


def markdown(report: dict[str, Any]) -> str:
    """report.md."""
    run, task, test = report["run"], report["task"], report["test"]
    config = run["config"]
    network = f"{config['model']['cells']} LSTM cells"
    cells = test["confusion"]
    accuracies = [
        (
            title,
            f"{report[name]['size']:,}",
            percent(report[name]["accuracy"]),
            span(report[name]["accuracy_interval"]),
            percent(report[name]["majority_accuracy"]),
        )
        for name, title in SPLITS.items()
    ]
    counts = [
        (
            title,
            f"{part['negatives']:,} ({percent(part['negative_share'])})",
            f"{part['positives']:,} ({percent(part['positive_share'])})",
            f"{part['expected_negatives']:,.1f}",
            f"{part['expected_positives']:,.1f}",
            f"{part['p_value']:.2g}",
        )
        for name, title in SPLITS.items()
        for part in [report[name]]
    ]
    exact = (
        "exact law",
        percent(1 - task["positive_rate"], 4),
        percent(task["positive_rate"], 4),
        *("", "", ""),
    )
    undefined = [
        f"* `{name}.{score}`: {reason}"
        for name in SPLITS
        for score, reason in report[name]["undefined"].items()
    ]
    sections = [
        f"# Run {run['name']}, seed {run['seed']}",
        f"{network} read {task['length']} digits from {task['low']} to {task['high']} and say "
        f"whether their sum reaches {task['threshold']}. {config['train']['epochs']} epochs in "
        f"batches of {config['train']['batch_size']}, {run['seconds']:.0f} s on "
        f"{run['device']['kind']} with jax {run['versions']['jax']}.",
        "## Accuracy of the final network",
        table(
            ("series", "number", "accuracy", "95 % interval (Wilson)", "constant answer"),
            accuracies,
        ),
        "## Classes",
        f"Negative: {_meaning(0, task)}; positive: {_meaning(1, task)}. The sum has "
        f"mean {task['mean_sum']:.6g} and standard deviation {task['std_sum']:.4g}; p is that of a "
        "two-sided binomial test of the counts against the exact law.",
        table(
            ("series", "negative", "positive", "expected negative", "expected positive", "p"),
            [*counts, exact],
        ),
        "## Scores on the test series",
        table(
            ("truth", f"answer: {_meaning(0, task)}", f"answer: {_meaning(1, task)}"),
            [
                (_meaning(0, task), f"TN {cells['tn']:,}", f"FP {cells['fp']:,}"),
                (_meaning(1, task), f"FN {cells['fn']:,}", f"TP {cells['tp']:,}"),
            ],
        ),
        table(("score", "value"), list(_score_rows(test, task))),
        *(["Undefined scores:", "\n".join(undefined)] if undefined else []),
        "## Is accuracy valid here?",
        discussion(report),
        "## Figures",
        "\n".join(f"![{name}]({runs.FIGURES}/{name}.png)\n" for name in FIGURES),
    ]
    return "\n\n".join(sections).rstrip() + "\n"


def summary(report: dict[str, Any], path: pathlib.Path) -> str:
    """What the scripts print at the end."""
    test, task = report["test"], report["task"]
    cells = test["confusion"]
    low, high = _meaning(0, task), _meaning(1, task)
    width = max(len(high), *(len(f"FN {n:,}") for n in cells.values()))
    return "\n".join(
        [
            "",
            f"test accuracy      {percent(test['accuracy'])}"
            f"   (95 % interval {span(test['accuracy_interval'])}, {test['size']:,} series)",
            f"constant answer    {percent(test['majority_accuracy'])}"
            f"   (always {_meaning(task['majority_class'], task)}; "
            f"by the law {percent(task['majority_accuracy'], 4)})",
            f"balanced accuracy  {percent(test['balanced_accuracy'])}",
            *([_collapse(test, task)] if test["collapsed"] else []),
            "",
            f"confusion matrix   {'answer: ' + low:>{width + 8}}   {high:>{width}}",
            f"truth: {low:<11} {'TN ' + format(cells['tn'], ','):>{width + 8}}"
            f"   {'FP ' + format(cells['fp'], ','):>{width}}",
            f"       {high:<11} {'FN ' + format(cells['fn'], ','):>{width + 8}}"
            f"   {'TP ' + format(cells['tp'], ','):>{width}}",
            "",
            f"report             {path / runs.REPORT_MD}",
        ]
    )


def draw(run: Run, report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run, by the names in `FIGURES`."""
    task, test = run.config.task, run.parts["test"]
    law = task_lib.law(task)
    title = f"{run.name}, seed {run.seed}"
    on_test = f"{title}: {report['test']['size']:,} test series"
    constants = {
        SPLITS[name]: report[name]["majority_accuracy"] for name in ("train", "validation")
    }
    observed = np.concatenate(
        [part.digits.sum(axis=1, dtype=np.int64) for part in run.parts.values()]
    )
    return {
        "confusion": figures.confusion(report["test"]["confusion"], task, on_test),
        "learning": figures.learning_curves(run.history, constants, title),
        "ranking": figures.ranking(test, report["test"], 1 - law.majority_class, task, on_test),
        "sums": figures.sums(observed, law, task, f"{title}: all {observed.size:,} series"),
        "errors": figures.errors(test, task, on_test),
    }


def write(path: pathlib.Path) -> dict[str, Any]:
    """Rebuilds report.json, report.md and the figures of the run in `path`.

    Returns:
      The numbers, as from `build`.

    Raises:
      RunError: if the folder holds no finished run or cannot be written.
    """
    run = runs.load(path)
    report = build(run)
    texts: dict[str, bytes | str] = {
        runs.REPORT_JSON: files.to_json(report),
        runs.REPORT_MD: markdown(report),
    }
    runs.write_report(path, texts, draw(run, report))
    return report
