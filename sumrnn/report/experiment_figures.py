"""The figures of an experiment: pure functions of its runs and of the numbers of its summary.

These numbers have the names of summary.json.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from sumrnn.report import probe_figures, words
from sumrnn.report.drawing import (
    COLORS,
    FILLS,
    GREY,
    INK,
    RED,
    TEXTURES,
    blank,
    legend,
    percent_label,
    percentages,
)
from sumrnn.study.table import Collection

# Where marks stand beside the place of their condition, which is 1 away from the next one's.
REFERENCE, MEAN, RUNS = -0.18, -0.06, (0.04, 0.3)


def _means(ax: Axes, places: Iterable[float], score: str, *, summary: dict[str, Any]) -> None:
    """A diamond at the mean of each condition; a bar through it where there is an interval."""
    for x, condition in zip(places, summary["conditions"].values(), strict=True):
        mean, interval = (condition["scores"][score][name] for name in ("mean", "mean_interval"))
        if mean is None:
            continue
        low, high = interval or (math.nan, math.nan)
        # Rounding may move a mean past its end.
        bar = ([np.maximum(mean - low, 0.0)], [np.maximum(high - mean, 0.0)])
        style: dict[str, Any] = {"fmt": "D", "ms": 5, "color": INK, "capsize": 4, "lw": 1.4}
        label = "mean, with its 95 % interval where there is one"
        ax.errorbar(x, mean, bar, zorder=3, clip_on=False, label=label, **style)


def scores(runs: Collection, summary: dict[str, Any]) -> Figure:
    """Every run as a point beside the mean with its interval; a panel for each score.

    Values from elsewhere, the references of the experiment, are drawn as crosses.
    """
    names, shown = list(summary["conditions"]), runs.experiment.scores
    slanted = len(names) > 3
    figure, axes = blank(len(shown), 3, width=4.6, height=4.2 if slanted else 3.8)
    for ax, score in zip(axes, shown, strict=True):
        values = [runs.array(name, score) for name in names]
        for place, y in enumerate(values):
            if not y.size:  # Nothing has no place in a layout.
                continue
            # Spread sideways in the order of the runs: nothing random, nothing hidden.
            steps = np.linspace(*RUNS, 2 * y.size + 1)[1::2]
            ax.plot(place + steps, y, "o", ms=4, color=COLORS[1], mec=INK, mew=0.4, clip_on=False)
        _means(ax, np.arange(len(names)) + MEAN, score, summary=summary)
        for name, references in runs.experiment.references.items():
            if score in references:
                x, kind = names.index(name) + REFERENCE, "value from elsewhere"
                ax.plot(x, references[score], "x", ms=9, mew=2.2, color=RED, label=kind)
        ax.set_xticks(range(len(names)), names)
        if slanted:
            for label in ax.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlim(-0.5, len(names) - 0.4)
        ax.set_title(words.score_name(score), fontsize=11)
        if score.endswith("error"):
            # By orders of magnitude, down to that of the smallest error that is none.
            smallest = min((float(x) for y in values for x in y if x > 0), default=1.0)
            ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)))
            ax.set_ylim(bottom=0)
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
    legend(figure)
    exact = [score.startswith("exact_") for score in shown]
    series = "" if all(exact) else ", on its own test series"
    mixed = "; exact: by the law" if any(exact) and series else ""
    figure.suptitle(f"{runs.experiment.name}: every run{series}{mixed}")
    return figure


def learning(runs: Collection, _: dict[str, Any]) -> Figure:
    """Learning curves of all runs: median, and bands of the middle 50 % and 90 %.

    Training losses above, validation errors below, with a panel for each condition, which has the
    median of the first one too.
    """
    histories = runs.histories
    columns = max(min(len(histories), 4), math.ceil(len(histories) ** 0.5))
    half = columns * -(-len(histories) // columns)
    figure, axes = blank(2 * half, columns, width=max(2.8, 6.4 / columns), height=2.2, grid=True)
    losses, errors = axes[:half], axes[half:]
    first = next(iter(histories))
    for panels, label in ((losses, "training loss (nats)"), (errors, "validation error")):
        panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for ax in panels[1:]:
            ax.sharex(panels[0])
            ax.sharey(panels[0])
            ax.tick_params(which="both", labelleft=ax in panels[::columns])
            ax.set_visible(ax in panels[: len(histories)])
        for ax in panels[::columns]:
            ax.set_ylabel(label)
        for ax, (name, history) in zip(panels, histories.items(), strict=False):
            for other in dict.fromkeys((first, name)):
                values = histories[other]["loss"]
                if panels is errors:
                    values = 1 - histories[other]["val_accuracy"]
                _bands(ax, histories[other]["epoch"][0], values, median_only=other != name)
            ax.set_title(f"{name}: {len(history['epoch'])} runs", fontsize=9)
    losses[0].set_yscale("log")  # And so all that share it.
    errors[0].yaxis.set_major_formatter(percentages())
    if errors[0].get_ylim()[0] < 0.01:
        # Zero errors on a validation set are common; a pure logarithm could not show them.
        errors[0].set_yscale("symlog", linthresh=1e-3)
        errors[0].set_ylim(bottom=-1e-4)  # A line at 0 is whole.
        errors[0].yaxis.set_major_formatter(FuncFormatter(percent_label))
    figure.supxlabel("epoch")
    also = f"; dashed: median of {first}" if len(histories) > 1 else ""
    title = f"{runs.experiment.name}\nline: median over runs; bands: middle 50 % and 90 %{also}"
    figure.suptitle(title, fontsize=10)
    return figure


def _bands(ax: Axes, epochs: np.ndarray, values: np.ndarray, *, median_only: bool) -> None:
    """Draws the median of values [runs, epochs], with bands or as a comparison."""
    low, lower, middle, upper, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), 0)
    marker = "o" if len(epochs) < 10 else ""
    if median_only:
        ax.plot(epochs, middle, color=GREY, lw=1, ls="--", marker=marker, ms=3, mfc="white")
        return
    ax.fill_between(epochs, low, high, color=COLORS[1], alpha=0.2, lw=0)
    ax.fill_between(epochs, lower, upper, color=COLORS[1], alpha=0.35, lw=0)
    ax.plot(epochs, middle, color=COLORS[1], lw=1.6, marker=marker, ms=4)


def skew(runs: Collection, summary: dict[str, Any]) -> Figure:
    """Scores against the exact share of positives: every run, and the mean with its interval."""
    shown = runs.experiment.scores
    figure, axes = blank(len(shown), width=3.7, height=4.4, grid=True)
    rates = {name: values["positive_rate"] for name, values in summary["conditions"].items()}
    # A logit axis has no 0 and no 1: what is there stands beside them, under its own label.
    x = {name: min(max(rate, 1e-6), 1 - 1e-6) for name, rate in rates.items()}
    labels = dict(zip(x.values(), words.percents(rates.values()), strict=True))
    places = np.array(sorted(labels))
    margin = 0.3
    odds = np.log(places / (1 - places))[[0, -1]] + (-margin, margin)
    for ax, score in zip(axes, shown, strict=True):
        for name in rates:
            y = runs.array(name, score)
            ax.plot(np.full(y.size, x[name]), y, "o", ms=3.5, color=COLORS[1], alpha=0.8, mew=0)
        _means(ax, x.values(), score, summary=summary)
        if score == "accuracy":
            constant = np.maximum(places, 1 - places)
            (line,) = ax.plot(places, constant, "--", color=GREY, label="constant answer")
            ax.legend(handles=[line], loc="lower right", fontsize=8)
        elif any(value < 0 for name in rates for value in runs.array(name, score)):
            ax.axhline(0, ls="--", color=GREY)
        ax.set_xscale("logit")
        ax.set_xlim(*1 / (1 + np.exp(-odds)))
        ax.set_xticks(places, [labels[place] for place in places], rotation=60)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("positives by the exact law")
        ax.set_title(words.score_name(score), fontsize=10)
    figure.suptitle(f"{runs.experiment.name}: every run, mean and 95 % interval")
    return figure


def variance(runs: Collection, summary: dict[str, Any]) -> Figure:
    """Stacked bars: the share of each score's variance that each source explains."""
    splits = {words.score_name(s): split for s, split in summary["variance"].items() if split}
    figure, (ax,) = blank(height=1.6 + 0.7 * len(splits))
    names, rows = list(next(iter(splits.values()))), np.arange(len(splits))
    inks = ("white", INK, INK, INK)
    left = np.zeros(len(splits))
    for name, fill, ink, hatch in zip(names, FILLS, inks, TEXTURES, strict=True):
        shares = np.array([split[name]["share"] for split in splits.values()])
        style: dict[str, Any] = {"color": fill, "hatch": hatch, "edgecolor": INK, "lw": 0.5}
        ax.barh(rows, shares, left=left, label=name, **style)
        behind = {"fc": "white", "lw": 0, "pad": 1} if hatch else None
        for y in np.flatnonzero(shares > 0.06).tolist():
            text, x = words.percent(shares[y], 0), left[y] + shares[y] / 2
            ax.text(x, y, text, ha="center", va="center", color=ink, bbox=behind)
        left += shares
    ax.set_yticks(rows, list(splits))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of the variance between runs")
    ax.xaxis.set_major_formatter(percentages())
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"{runs.experiment.name}: where the spread between runs comes from")
    return figure


FIGURES: dict[str, Callable[[Collection, dict[str, Any]], Figure]] = {
    figure.__name__: figure for figure in (scores, learning, skew, variance)
}
FIGURES |= probe_figures.FIGURES
"""By their names, which are those of `study.experiment.PLOTS`."""
