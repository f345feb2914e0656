"""What a person looks at: pure functions from arrays to figures.

Classes differ in brightness and hatching as well as in hue, so that grey prints work.
No pyplot: it keeps global state and is slow to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import cm
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from sumrnn import metrics
from sumrnn.config import TaskConfig
from sumrnn.runs import Part
from sumrnn.task import Law

COLORS = ("#f4a259", "#2b59a3")
"""Light orange for the negatives, dark blue for the positives."""
HATCHES = ("///", "")
INK = "#222222"
REACH = 15
"""Distance from the threshold up to which each sum has its own bar."""


def _figure(columns: int = 1, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4 * columns, height), dpi=150, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _class_label(c: int, task: TaskConfig) -> str:
    return f"{metrics.CLASSES[c]}: sum {'≥' if c else '<'} {task.threshold}"


def confusion(cells: dict[str, int], task: TaskConfig, title: str) -> Figure:
    """Heat map of the four outcomes, each with its name, count and share."""
    figure, (ax,) = _figure(height=4.8)
    names = (
        (("tn", "true negatives"), ("fp", "false positives")),
        (
            ("fn", "false negatives"),
            ("tp", "true positives"),
        ),
    )
    counts = np.array([[cells[name] for name, _ in row] for row in names])
    shares = counts / counts.sum()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        ax.text(
            column,
            row,
            f"{names[row][column][1]}\n{counts[row, column]:,}\n{100 * share:.2f} %",
            ha="center",
            va="center",
            fontsize=13,
            color="white" if share > 0.5 else INK,
        )
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

    Args:
      history: columns of history.csv.
      constants: accuracy of the constant answer on the train and validation series.
      title: of the figure.
    """
    figure, (loss, accuracy) = _figure(2, height=4.6)
    epochs = history["epoch"]
    few = "o" if len(epochs) < 10 else ""
    for ax, name in ((loss, "loss"), (accuracy, "accuracy")):
        ax.plot(epochs, history[name], color=COLORS[1], marker=few, label="training")
        ax.plot(
            epochs, history[f"val_{name}"], color="#d1495b", ls="--", marker=few, label="validation"
        )
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(ylabel="binary cross-entropy (nats)", yscale="log", title="Loss")
    for split, style in (("training", "-"), ("validation", "--")):
        accuracy.axhline(
            constants[split],
            color="#777777",
            lw=1,
            ls=style,
            label=f"constant answer, {split}: {100 * constants[split]:.2f} %",
        )
    accuracy.set(ylabel="accuracy (share of series)", title="Accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for ax in (loss, accuracy):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.suptitle(title)
    return figure


def ranking(
    part: Part, scores: dict[str, Any], minority: int, task: TaskConfig, title: str
) -> Figure:
    """ROC and precision-recall curves of the minority class, if both classes are present."""
    import sklearn.metrics

    figure, (roc, pr) = _figure(2, height=4.8)
    is_minority = part.labels == minority
    confidence = part.logits if minority else -part.logits
    if scores["roc_auc"] is None:
        for ax in (roc, pr):
            ax.text(
                0.5, 0.5, f"undefined:\n{scores['undefined']['roc_auc']}", ha="center", va="center"
            )
    else:
        fpr, tpr, _ = sklearn.metrics.roc_curve(is_minority, confidence)
        roc.plot(fpr, tpr, color=COLORS[1], label=f"network, area {scores['roc_auc']:.4f}")
        precision, recall, _ = sklearn.metrics.precision_recall_curve(is_minority, confidence)
        area = scores["average_precision_minority"]
        pr.step(
            recall, precision, color=COLORS[1], where="post", label=f"network, average {area:.4f}"
        )
        roc.plot([0, 1], [0, 1], color="#777777", ls="--", label="chance, area 0.5")
        share = is_minority.mean()
        pr.axhline(share, color="#777777", ls="--", label=f"chance, {share:.4f}")
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
    """Histogram of the sums of all series over the exact law.

    Args:
      observed: integer [n], the sums.
      law: of one sum.
      task: its threshold splits the classes.
      title: of the figure.
    """
    figure, (ax,) = _figure()
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
    figure, (ax,) = _figure()
    distance = part.digits.sum(axis=1, dtype=np.int64) - task.threshold
    wrong = metrics.answers(part.logits) != part.labels
    binned = np.clip(distance, -REACH, REACH)
    for bin_ in range(-REACH, REACH + 1):
        chosen = binned == bin_
        size, count = int(chosen.sum()), int(wrong[chosen].sum())
        if not size:
            continue
        c, rate = int(bin_ >= 0), count / size
        low, high = metrics.interval(count, size)
        ax.bar(bin_, rate, color=COLORS[c], hatch=HATCHES[c], edgecolor=INK, lw=0.5, width=0.8)
        spread = ([max(rate - low, 0.0)], [max(high - rate, 0.0)])
        ax.errorbar(bin_, rate, spread, color="#888888", lw=1, capsize=2)
        ax.annotate(
            f"{size:,}",
            (bin_, high),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=7,
        )
    ax.axvline(-0.5, color=INK, ls="--", lw=1)
    ends = {-REACH: f"≤ −{REACH}", REACH: f"≥ {REACH}"}
    ticks = [-REACH, -10, -5, 0, 5, 10, REACH]
    ax.set_xticks(ticks, [ends.get(tick, str(tick).replace("-", "−")) for tick in ticks])
    ax.set(
        xlim=(-REACH - 1, REACH + 1),
        xlabel=f"sum of the digits minus the threshold {task.threshold}",
        ylabel="error rate (share of the series)",
    )
    ax.set_title(
        f"{title}\nbars: error rate; lines: 95 % Wilson interval; numbers: series", fontsize=10
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.margins(y=0.15)
    ax.set_ylim(bottom=0)
    return figure


Interval = tuple[float | None, list[float] | None]
"""A mean and the ends of its interval."""


def _palette(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each condition, from dark to light in their order."""
    if len(names) <= 2:
        return dict(zip(names, (COLORS[1], COLORS[0]), strict=False))
    return {name: cm.viridis(0.9 * i / (len(names) - 1)) for i, name in enumerate(names)}


def _mean(ax: Axes, x: float, found: Interval, **style: Any) -> None:
    """A diamond at the mean with its interval."""
    mean, interval = found
    if mean is None:
        return
    low, high = interval or (mean, mean)
    spread = ([max(mean - low, 0.0)], [max(high - mean, 0.0)])
    ax.errorbar(x, mean, spread, fmt="D", ms=5, color=INK, capsize=4, lw=1.4, zorder=3, **style)


def points(
    values: dict[str, dict[str, np.ndarray]],
    intervals: dict[str, dict[str, Interval]],
    references: dict[str, dict[str, float]],
    title: str,
) -> Figure:
    """Every run as a point beside the mean with its interval; a panel for each score.

    Args:
      values: by score and condition, float [runs].
      intervals: by score and condition, of the mean over runs.
      references: by score and condition, values from elsewhere, drawn as crosses.
      title: of the figure.
    """
    columns = min(len(values), 3)
    rows = -(-len(values) // columns)
    names = list(next(iter(values.values())))
    slanted = len(names) > 3
    figure = Figure(
        figsize=(4.6 * columns, (4.2 if slanted else 3.8) * rows), dpi=150, layout="constrained"
    )
    colors = _palette(names)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (score, conditions) in zip(axes, values.items(), strict=False):
        for x, name in enumerate(names):
            y = conditions[name]
            # Spread sideways in the order of the runs: nothing random, nothing hidden.
            place = x + 0.1 + 0.5 * (np.arange(y.size) + 0.5) / max(y.size, 1)
            ax.plot(place, y, "o", ms=4, color=colors[name], mec=INK, mew=0.4)
            label = "mean, 95 % interval" if x == 0 else None
            _mean(ax, x - 0.1, intervals[score][name], label=label)
            if name in references.get(score, {}):
                value = references[score][name]
                label = "value from elsewhere"
                ax.plot(x - 0.3, value, "x", ms=9, mew=2.2, color="#d1495b", label=label)
        shown = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        ax.set_xticks(range(len(names)), names, **shown)
        ax.set_xlim(-0.5, len(names) - 0.3)
        ax.set_title(score, fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
        if score in references or ax is axes[0]:
            ax.legend(fontsize=8, loc="lower left", frameon=True)
    for ax in axes[len(values) :]:
        ax.set_visible(False)
    figure.suptitle(f"{title}: every run, on its own test series")
    return figure


def bands(histories: dict[str, dict[str, np.ndarray]], title: str) -> Figure:
    """Learning curves of many runs: median, and bands of the middle 50 % and 90 %.

    Args:
      histories: by condition, columns of history.csv, float64 [runs, epochs].
      title: of the figure.
    """
    figure, (loss, error) = _figure(2, height=4.8)
    colors = _palette(list(histories))
    for name, history in histories.items():
        epochs = history["epoch"][0]
        for ax, values in ((loss, history["loss"]), (error, 1 - history["val_accuracy"])):
            low, lower, middle, upper, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), 0)
            ax.fill_between(epochs, low, high, color=colors[name], alpha=0.15, lw=0)
            ax.fill_between(epochs, lower, upper, color=colors[name], alpha=0.3, lw=0)
            label = f"{name} ({len(values)} runs)"
            ax.plot(epochs, middle, color=colors[name], lw=1.6, label=label)
    loss.set(ylabel="binary cross-entropy (nats)", title="Training loss", yscale="log")
    # Zero errors on a validation set are common; a pure logarithm could not show them.
    error.set_yscale("symlog", linthresh=1e-3)
    error.set(ylabel="share of wrong answers", title="Validation error", ylim=(0, None))
    error.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for ax in (loss, error):
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(color="#e5e5e5", lw=0.6)
    columns = min(len(histories), 4)
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(f"{title}: median over runs, middle 50 % and 90 %")
    return figure


def skew(
    rates: dict[str, float],
    values: dict[str, dict[str, np.ndarray]],
    intervals: dict[str, dict[str, Interval]],
    title: str,
) -> Figure:
    """Scores against the exact share of positives: every run, and the mean with its interval.

    Args:
      rates: by condition, P(positive) by the law.
      values: by score and condition, float [runs].
      intervals: by score and condition, of the mean over runs.
      title: of the figure.
    """
    figure, axes = _figure(len(values), height=4.6)
    figure.set_size_inches(3.7 * len(values), 4.4)
    # A logit axis has no 0 and no 1.
    x = {name: min(max(rate, 1e-6), 1 - 1e-6) for name, rate in rates.items()}
    places = np.array(sorted(set(x.values())))
    margin = 0.3
    odds = np.log(places / (1 - places))[[0, -1]] + (-margin, margin)
    for ax, (score, conditions) in zip(axes, values.items(), strict=True):
        for name, y in conditions.items():
            ax.plot(np.full(y.size, x[name]), y, "o", ms=3.5, color=COLORS[1], alpha=0.55, mew=0)
            _mean(ax, x[name], intervals[score][name])
        if score == "accuracy":
            constant = np.maximum(places, 1 - places)
            ax.plot(places, constant, "--", color="#777777", label="constant answer")
            ax.legend(loc="lower right", fontsize=8)
        elif min(y.min(initial=0) for y in conditions.values()) < 0:
            ax.axhline(0, ls="--", color="#777777")
        ax.set_xscale("logit")
        ax.set_xlim(*1 / (1 + np.exp(-odds)))
        ax.set_xticks(places, [f"{100 * place:.3g}" for place in places], rotation=60)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(xlabel="positives by the exact law (%)", title=score)
        ax.title.set_fontsize(10)
        ax.grid(color="#e5e5e5", lw=0.6)
    figure.suptitle(f"{title}: every run, mean and 95 % interval")
    return figure


def shares(splits: dict[str, dict[str, dict[str, float]]], title: str) -> Figure:
    """Stacked bars: which source explains how much of a score's variance.

    Args:
      splits: by score, then source, as from `statistics.variance_split`.
      title: of the figure.
    """
    figure, (ax,) = _figure(height=1.6 + 0.7 * len(splits))
    names = list(next(iter(splits.values())))
    fills = dict(zip(names, (COLORS[1], COLORS[0], "#7fb7a3", "#dddddd"), strict=True))
    hatches = dict(zip(names, ("", "///", "...", ""), strict=True))
    for y, split in enumerate(splits.values()):
        left = 0.0
        for name in names:
            share = split[name]["share"]
            label = name if y == 0 else None
            ax.barh(
                y,
                share,
                left=left,
                color=fills[name],
                hatch=hatches[name],
                edgecolor=INK,
                lw=0.5,
                label=label,
            )
            if share > 0.06:
                ax.text(
                    left + share / 2,
                    y,
                    f"{100 * share:.0f} %",
                    ha="center",
                    va="center",
                    color="white" if name == names[0] else INK,
                    bbox=None if hatches[name] == "" else {"fc": "white", "lw": 0, "pad": 1},
                )
            left += share
    ax.set_yticks(range(len(splits)), list(splits))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of the variance between runs")
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"{title}: where the spread between runs comes from")
    return figure
