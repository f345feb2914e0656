"""The figures of one run: pure functions from arrays to figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sklearn.metrics as sk
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sumrnn.config import TaskConfig
from sumrnn.report import words
from sumrnn.report.canvas import COLORS, GREY, HATCHES, INK, MARKS, RED, blank, percentages
from sumrnn.runs.results import Part
from sumrnn.scores import metrics
from sumrnn.task import Law

REACH = 15
"""Distance from the threshold up to which each sum has its own bar."""


def _class_label(c: int, task: TaskConfig) -> str:
    return f"{metrics.CLASSES[c]}: sum {'≥' if c else '<'} {task.threshold}"


def _mark(c: int) -> dict[str, Any]:
    """How the error rates of a class are marked."""
    return {"fmt": MARKS[c], "ms": 5, "color": COLORS[c], "mec": INK, "mew": 0.5}


def confusion(cells: dict[str, int], task: TaskConfig, title: str) -> Figure:
    """Heat map of the four outcomes, each with its name, count and share."""
    figure, (ax,) = blank(height=4.8)
    names = [["true negatives", "false positives"], ["false negatives", "true positives"]]
    counts = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])
    shares = counts / counts.sum()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{names[row][column]}\n{counts[row, column]:,}\n{words.percent(share)}"
        color = "white" if share > 0.5 else INK
        ax.text(column, row, text, ha="center", va="center", fontsize=13, color=color)
    answers = [f"sum < {task.threshold}", f"sum ≥ {task.threshold}"]
    ax.set_xticks([0, 1], answers)
    ax.set_yticks([0, 1], answers, rotation=90, va="center")
    ax.set(xlabel="answer of the network", ylabel="truth", title=title)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, format=PercentFormatter(1, 0, " %"), label="share of the series")
    return figure


def learning_curves(
    history: dict[str, np.ndarray], constants: dict[str, float], title: str
) -> Figure:
    """Loss, and accuracy beside the constant answer's, over the epochs.

    `history` has the columns of history.csv, `constants` the constant answer's accuracy by split.
    """
    figure, (loss, accuracy) = blank(2, height=4.6)
    epochs = history["epoch"]
    few = "o" if len(epochs) < 10 else ""
    for ax, name in ((loss, "loss"), (accuracy, "accuracy")):
        for column, label, color, style in (
            (name, "training", COLORS[1], "-"),
            (f"val_{name}", "validation", RED, "--"),
        ):
            ax.plot(epochs, history[column], color=color, ls=style, marker=few, label=label)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(ylabel="binary cross-entropy (nats)", yscale="log", title="Loss")
    for split, style in (("training", "-"), ("validation", "--")):
        label = f"constant answer, {split}: {words.percent(constants[split])}"
        accuracy.axhline(constants[split], color=GREY, lw=1, ls=style, label=label)
    accuracy.set(ylabel="accuracy (share of series)", title="Accuracy")
    accuracy.yaxis.set_major_formatter(percentages())
    for ax in (loss, accuracy):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.suptitle(title)
    return figure


def ranking(
    part: Part, scores: dict[str, Any], minority: int, task: TaskConfig, title: str
) -> Figure:
    """ROC and precision-recall curves of the minority class, if both classes are present.

    `scores` are the part's, as from `metrics.scores`; `minority` is 0 or 1.
    """
    figure, (roc, pr) = blank(2, height=4.8)
    if scores["roc_auc"] is None:
        reason = f"undefined:\n{scores['undefined']['roc_auc']}"
        for ax in (roc, pr):
            ax.text(0.5, 0.5, reason, ha="center", va="center")
    else:
        is_minority = part.labels == minority
        confidence = part.logits if minority else -part.logits
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
    roc.set(
        xlabel="false positive rate (share of the majority)",
        ylabel="true positive rate (share of the minority)",
        title="ROC",
    )
    pr.set(
        xlabel="recall (share of the minority found)",
        ylabel="precision (share of the found that is minority)",
        title="Precision and recall",
    )
    for ax in (roc, pr):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    figure.suptitle(f"{title}; minority class {_class_label(minority, task)}")
    return figure


def sums(observed: np.ndarray, law: Law, task: TaskConfig, title: str) -> Figure:
    """Histogram of the sums of all series, integer [n], over the exact law of one sum."""
    figure, (ax,) = blank()
    counts = np.bincount(observed - law.sums[0], minlength=law.sums.size)
    for c in (0, 1):
        of_class = (law.sums >= task.threshold) == c
        ax.bar(
            law.sums[of_class],
            counts[of_class],
            width=1.0,
            color=COLORS[c],
            hatch=HATCHES[c],
            edgecolor=INK if HATCHES[c] else COLORS[c],
            lw=0.3,
            label=f"{_class_label(c, task)} ({counts[of_class].sum():,} series)",
        )
    expected = law.probabilities * observed.size
    ax.plot(law.sums, expected, color=INK, lw=1.2, label="expected by the exact law")
    threshold = f"threshold {task.threshold}"
    ax.axvline(task.threshold - 0.5, ymax=0.8, color=INK, ls="--", lw=1, label=threshold)
    shown = law.sums[(counts > 0) | (expected > 0.05)]
    ax.set(
        xlim=(shown[0] - 1.5, shown[-1] + 1.5),
        xlabel="sum of the digits of a series",
        ylabel="number of series per sum",
        title=title,
    )
    ax.margins(y=0.28)
    ax.legend(loc="upper left", fontsize=8, ncols=2, frameon=False)
    return figure


def errors(part: Part, task: TaskConfig, title: str) -> Figure:
    """Error rate against the distance of the sum from the threshold, with 95 % intervals.

    Sums further away than `REACH` share the outermost bins.
    """
    figure, (ax,) = blank()
    distance = part.digits.sum(axis=1, dtype=np.int64) - task.threshold
    wrong = metrics.answers(part.logits) != part.labels
    binned = np.clip(distance, -REACH, REACH)
    for place in np.unique(binned):
        chosen = binned == place
        size, count = int(chosen.sum()), int(wrong[chosen].sum())
        c, rate = int(place >= 0), count / size
        low, high = metrics.interval(count, size)
        spread = ([max(rate - low, 0.0)], [max(high - rate, 0.0)])
        ax.errorbar(place, rate, spread, ecolor=GREY, elinewidth=0.8, capsize=2.5, **_mark(c))
        ax.annotate(
            f"{size:,}",
            (place, high),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=7,
        )
    ax.axvline(-0.5, color=INK, ls="--", lw=1)
    ticks = [-REACH, -10, -5, 0, 5, 10, REACH]
    labels = [f"≤ −{REACH}", "−10", "−5", "0", "5", "10", f"≥ {REACH}"]
    ax.set_xticks(ticks, labels)
    ax.set(
        xlim=(-REACH - 1, REACH + 1),
        xlabel=f"sum of the digits minus the threshold {task.threshold}",
        ylabel="error rate (share of the series)",
    )
    rates = "error rate" if wrong.any() else "error rate, 0 everywhere"
    legend = f"marks: {rates}; lines: 95 % Wilson interval; numbers: series"
    ax.set_title(f"{title}\n{legend}", fontsize=10)
    ax.yaxis.set_major_formatter(percentages())
    ax.margins(y=0.15)
    ax.set_ylim(bottom=-0.02 * ax.get_ylim()[1])  # A mark at 0 is whole.
    return figure


def exact(strata: Sequence[Mapping[str, Any]], task: TaskConfig, title: str) -> Figure:
    """Error rate by sum, with 95 % intervals, of the `strata` of `exact.scores`."""
    figure, (ax,) = blank()
    for c in (0, 1):
        own = [of for of in strata if (of["first"] >= task.threshold) == bool(c)]
        if not own:
            continue
        middle = np.array([(of["first"] + of["last"]) / 2 for of in own])
        half = np.array([(of["last"] - of["first"] + 1) / 2 for of in own])
        rates = np.array([of["wrong"] / of["series"] for of in own])
        low, high = np.array([metrics.interval(of["wrong"], of["series"]) for of in own]).T
        spread = (np.maximum(rates - low, 0), np.maximum(high - rates, 0))
        ax.errorbar(
            middle,
            rates,
            spread,
            half,
            lw=1,
            label=_class_label(c, task),
            **_mark(c),
        )
    ax.axvline(task.threshold - 0.5, color=INK, ls="--", lw=1)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(
        xlim=(task.threshold - REACH - 5, task.threshold + REACH + 5),
        ylim=(-5e-5, 1.3),
        xlabel="sum of the digits",
        ylabel="error rate (linear below 0.001)",
    )
    number = sum(of["series"] for of in strata)
    ax.set_title(f"{title}: {number:,} series drawn by sum, 95 % Wilson intervals", fontsize=10)
    ax.legend(fontsize=8, frameon=False)
    return figure
