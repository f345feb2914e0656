"""The figures of one run: pure functions of the run and of the numbers of its report.

These numbers have the names of report.json.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.metrics as sk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sumrnn.config import TaskConfig
from sumrnn.report import words
from sumrnn.report.drawing import COLORS, GREY, HATCHES, INK, MARKS, RED, blank, percentages
from sumrnn.runs.results import Run
from sumrnn.scores import metrics
from sumrnn.task import sum_law

REACH = 15
"""Distance from the threshold up to which each sum has its own bar."""


def _title(run: Run) -> str:
    return f"{run.record.name}, seed {run.record.seed}"


def _test_title(run: Run) -> str:
    return f"{_title(run)}: {run.parts['test'].labels.size:,} test series"


def _class_label(label: int, task: TaskConfig) -> str:
    return f"{metrics.CLASSES[label]}: sum {'≥' if label else '<'} {task.threshold}"


def confusion(run: Run, report: dict[str, Any]) -> Figure:
    """Heat map of the four outcomes of the test series, each with its name, count and share."""
    figure, (ax,) = blank(height=4.8)
    names = ("true negatives", "false positives", "false negatives", "true positives")
    counts = np.array([report["test"]["confusion"][cell] for cell in ("tn", "fp", "fn", "tp")])
    shares, threshold = counts / counts.sum(), run.record.config.task.threshold
    image = ax.imshow(shares.reshape(2, 2), cmap="Blues", vmin=0, vmax=1)
    for i, (name, count, share) in enumerate(zip(names, counts, shares, strict=True)):
        text = f"{name}\n{count:,}\n{words.percent(share)}"
        color = "white" if share > 0.5 else INK
        ax.text(i % 2, i // 2, text, ha="center", va="center", fontsize=13, color=color)
    classes = [f"sum < {threshold}", f"sum ≥ {threshold}"]
    ax.set_xticks([0, 1], classes)
    ax.set_yticks([0, 1], classes, rotation=90, va="center")
    ax.set(xlabel="answer of the network", ylabel="truth", title=_test_title(run))
    ax.spines[:].set_visible(False)
    figure.colorbar(image, format=PercentFormatter(1, 0, " %"), label="share of the series")
    return figure


def learning(run: Run, report: dict[str, Any]) -> Figure:
    """Loss, and accuracy beside the constant answer's, over the epochs."""
    figure, (loss, accuracy) = blank(2, height=4.6)
    history, marker = run.history, "o" if len(run.history["epoch"]) < 10 else ""
    for ax, name in ((loss, "loss"), (accuracy, "accuracy")):
        curves = ((name, "training", COLORS[1], "-"), (f"val_{name}", "validation", RED, "--"))
        for column, label, color, style in curves:
            values = history[column]
            ax.plot(history["epoch"], values, color=color, ls=style, marker=marker, label=label)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(ylabel="binary cross-entropy (nats)", yscale="log", title="Loss")
    for split, name, style in (("train", "training", "-"), ("validation", "validation", "--")):
        constant = report[split]["majority_accuracy"]
        label = f"constant answer, {name}: {words.percent(constant)}"
        accuracy.axhline(constant, color=GREY, lw=1, ls=style, label=label)
    accuracy.set(ylabel="accuracy (share of series)", title="Accuracy")
    accuracy.yaxis.set_major_formatter(percentages())
    for ax in (loss, accuracy):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.suptitle(_title(run))
    return figure


def ranking(run: Run, report: dict[str, Any]) -> Figure:
    """ROC and precision-recall curves of the minority class, if both classes are present."""
    figure, (roc, pr) = blank(2, height=4.8)
    test, scores, minority = run.parts["test"], report["test"], report["task"]["minority_class"]
    if scores["roc_auc"] is None:
        reason = f"undefined:\n{scores['undefined']['roc_auc']}"
        for ax in (roc, pr):
            ax.text(0.5, 0.5, reason, ha="center", va="center")
    else:
        is_minority = test.labels == minority
        confidence = test.logits if minority else -test.logits
        fpr, tpr, _ = sk.roc_curve(is_minority, confidence)
        label = f"network, area {words.number(scores['roc_auc'])}"
        roc.plot(fpr, tpr, color=COLORS[1], label=label)
        precision, recall, _ = sk.precision_recall_curve(is_minority, confidence)
        label = f"network, average {words.number(scores['average_precision_minority'])}"
        pr.step(recall, precision, color=COLORS[1], where="post", label=label)
        roc.plot([0, 1], [0, 1], color=GREY, ls="--", label="chance, area 0.5")
        share = is_minority.mean()
        pr.axhline(share, color=GREY, ls="--", label=f"chance, {words.number(share)}")
        roc.legend(loc="lower right")
        pr.legend(loc="center left")
    roc.set(title="ROC", xlabel="false positive rate (share of the majority)")
    roc.set_ylabel("true positive rate (share of the minority)")
    pr.set(title="Precision and recall", xlabel="recall (share of the minority found)")
    pr.set_ylabel("precision (share of the found that is minority)")
    for ax in (roc, pr):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    label = _class_label(minority, run.record.config.task)
    figure.suptitle(f"{_test_title(run)}; minority class {label}")
    return figure


def sums(run: Run, _: dict[str, Any]) -> Figure:
    """Histogram of the sums of all series over the exact distribution of one sum."""
    figure, (ax,) = blank()
    task, distribution = run.record.config.task, sum_law(run.record.config.task)
    values, digits = distribution.sums, np.concatenate([part.digits for part in run.parts.values()])
    counts = np.bincount(digits.sum(axis=1, dtype=np.int64) - values[0], minlength=values.size)
    for label in (0, 1):
        chosen = (values >= task.threshold) == label
        name = f"{_class_label(label, task)} ({counts[chosen].sum():,} series)"
        edge = INK if HATCHES[label] else COLORS[label]
        bars = ax.bar(values[chosen], counts[chosen], 1.0, color=COLORS[label], label=name)
        for bar in bars:
            bar.set(hatch=HATCHES[label], edgecolor=edge, lw=0.3)
    expected = distribution.probabilities * len(digits)
    ax.plot(values, expected, color=INK, lw=1.2, label="expected by the exact law")
    threshold = f"threshold {task.threshold}"
    ax.axvline(task.threshold - 0.5, ymax=0.8, color=INK, ls="--", lw=1, label=threshold)
    shown = values[(counts > 0) | (expected > 0.05)]
    ax.set(
        xlim=(shown[0] - 1.5, shown[-1] + 1.5), title=f"{_title(run)}: all {len(digits):,} series"
    )
    ax.set(xlabel="sum of the digits of a series", ylabel="number of series per sum")
    ax.margins(y=0.28)
    ax.legend(loc="upper left", fontsize=8, ncols=2, frameon=False)
    return figure


def _error_rates(
    ax: Axes, label: int, task: TaskConfig, *, wrong: np.ndarray, series: np.ndarray, **where: Any
) -> np.ndarray:
    """Marks error rates on a class, wrong [n] of series [n], with their 95 % Wilson intervals.

    The rest is for `Axes.errorbar`.  Returns the upper ends of the intervals, float64 [n].
    """
    ends = [metrics.interval(*pair) for pair in zip(wrong.tolist(), series.tolist(), strict=True)]
    (low, high), rates = np.array(ends).T, wrong / series
    bars = np.maximum((rates - low, high - rates), 0)  # Rounding may move a rate past its end.
    where |= {"fmt": MARKS[label], "ms": 5, "color": COLORS[label], "mec": INK, "mew": 0.5}
    ax.errorbar(y=rates, yerr=bars, label=_class_label(label, task), **where)
    return np.array(high)


def errors(run: Run, _: dict[str, Any]) -> Figure:
    """Error rate on the test series against the distance of the sum from the threshold.

    Sums further away than `REACH` share the outermost bins.
    """
    figure, (ax,) = blank()
    test, task = run.parts["test"], run.record.config.task
    distances = test.digits.sum(axis=1, dtype=np.int64) - task.threshold
    distances, wrong = (
        distances.clip(-REACH, REACH),
        metrics.predicted_labels(test.logits) != test.labels,
    )
    bars = {"ecolor": GREY, "elinewidth": 0.8, "capsize": 2.5}
    above: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "rotation": 90}
    for label in np.unique(test.labels).tolist():
        x, series = np.unique(distances[test.labels == label], return_counts=True)
        missed = np.array([wrong[distances == place].sum() for place in x])
        tops = _error_rates(ax, label, task, wrong=missed, series=series, x=x, **bars)
        for place, top, number in zip(x, tops, series, strict=True):
            ax.annotate(f"{number:,}", (place, top), ha="center", va="bottom", fontsize=7, **above)
    ax.axvline(-0.5, color=INK, ls="--", lw=1)
    ticks = [-REACH, -10, -5, 0, 5, 10, REACH]
    ax.set_xticks(ticks, [f"≤ −{REACH}", "−10", "−5", "0", "5", "10", f"≥ {REACH}"])
    ax.set(xlim=(-REACH - 1, REACH + 1), ylabel="error rate (share of the series)")
    ax.set_xlabel(f"sum of the digits minus the threshold {task.threshold}")
    rates = "error rate" if wrong.any() else "error rate, 0 everywhere"
    legend = f"marks: {rates}; lines: 95 % Wilson interval; numbers: series"
    ax.set_title(f"{_test_title(run)}\n{legend}", fontsize=10)
    ax.yaxis.set_major_formatter(percentages())
    ax.margins(y=0.15)
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])  # A mark at 0 is whole.
    return figure


def exact(run: Run, report: dict[str, Any]) -> Figure:
    """Error rate by sum, with 95 % intervals, of the strata of the exact evaluation."""
    figure, (ax,) = blank()
    task, strata = run.record.config.task, report["exact"]["strata"]
    names = ("first", "last", "wrong", "series")
    rows = np.array([[stratum[name] for name in names] for stratum in strata])
    for label in (0, 1):
        first, last, wrong, series = rows[(rows[:, 0] >= task.threshold) == bool(label)].T
        if first.size:
            x, half = (first + last) / 2, (last - first + 1) / 2
            _error_rates(ax, label, task, wrong=wrong, series=series, x=x, xerr=half, lw=1)
    ax.axvline(task.threshold - 0.5, color=INK, ls="--", lw=1)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(xlim=(task.threshold - REACH - 5, task.threshold + REACH + 5), ylim=(-5e-5, 1.3))
    ax.set(xlabel="sum of the digits", ylabel="error rate (linear below 0.001)")
    title = f"{_title(run)}: {rows[:, 3].sum():,} series drawn by sum, 95 % Wilson intervals"
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=8, frameon=False)
    return figure


FIGURES: dict[str, Callable[[Run, dict[str, Any]], Figure]] = {
    figure.__name__: figure for figure in (confusion, learning, ranking, sums, errors, exact)
}
"""By their names, in the order of the report."""
