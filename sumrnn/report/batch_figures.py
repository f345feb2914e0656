"""The figures of a batch: pure functions from arrays to figures."""

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from sumrnn.report import words
from sumrnn.report.canvas import (
    COLORS,
    FILLS,
    GREY,
    INK,
    RED,
    TEXTURES,
    blank,
    decade,
    orders,
    percentages,
)

Interval = tuple[float | None, list[float] | None]
"""A mean and the ends of its interval, each None if there is none."""

# Where marks stand beside the place of their condition, which is 1 away from the next one's.
REFERENCE, MEAN, RUNS = -0.18, -0.06, (0.04, 0.3)


def _means(ax: Axes, places: Iterable[float], found: Iterable[Interval]) -> None:
    """A diamond at each mean; a bar through it where there is an interval."""
    for x, (mean, interval) in zip(places, found, strict=True):
        if mean is None:
            continue
        low, high = interval or (math.nan, math.nan)
        # Rounding may move a mean past its end.
        bar = ([np.maximum(mean - low, 0.0)], [np.maximum(high - mean, 0.0)])
        ax.errorbar(
            x,
            mean,
            bar,
            fmt="D",
            ms=5,
            color=INK,
            capsize=4,
            lw=1.4,
            zorder=3,
            clip_on=False,
            label="mean, with its 95 % interval where there is one",
        )


def points(
    values: dict[str, dict[str, np.ndarray]],
    intervals: dict[str, dict[str, Interval]],
    references: dict[str, dict[str, float]],
    title: str,
) -> Figure:
    """Every run as a point beside the mean with its interval; a panel for each score.

    By score and condition: `values` float [runs], `intervals` of their mean, and `references`,
    values from elsewhere, which are drawn as crosses.
    """
    names = list(next(iter(values.values())))
    slanted = len(names) > 3
    columns = min(len(values), 3)
    rows = -(-len(values) // columns)
    figure, axes = blank(columns, rows, width=4.6, height=4.2 if slanted else 3.8)
    places = np.arange(len(names))
    for ax, (score, conditions) in zip(axes, values.items(), strict=False):
        for x, name in zip(places, names, strict=True):
            y = conditions[name]
            # Spread sideways in the order of the runs: nothing random, nothing hidden.
            steps = np.linspace(*RUNS, 2 * y.size + 1)[1::2]
            ax.plot(x + steps, y, "o", ms=4, color=COLORS[1], mec=INK, mew=0.4, clip_on=False)
        _means(ax, places + MEAN, (intervals[score][name] for name in names))
        for name, value in references.get(score, {}).items():
            cross = names.index(name) + REFERENCE
            ax.plot(cross, value, "x", ms=9, mew=2.2, color=RED, label="value from elsewhere")
        ax.set_xticks(places, names)
        if slanted:
            for label in ax.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlim(-0.5, len(names) - 0.4)
        ax.set_title(score, fontsize=11)
        if score.endswith("error"):
            # By orders of magnitude, but for those without one.
            some = [x for y in conditions.values() for x in y if x > 0]
            ax.set_yscale("symlog", linthresh=decade(min(some, default=1.0)))
            ax.set_ylim(bottom=0)
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
    for ax in axes[len(values) :]:
        ax.set_visible(False)
    # Each kind of mark once, and where it hides none.
    kinds = {mark.get_label(): mark for ax in axes for mark in ax.get_legend_handles_labels()[0]}
    if kinds:
        figure.legend(handles=list(kinds.values()), loc="outside lower center", ncols=3)
    exact = [score.startswith("exact ") for score in values]
    of = "" if all(exact) else ", on its own test series"
    law = "; exact: by the law" if any(exact) and of else ""
    figure.suptitle(f"{title}: every run{of}{law}")
    return figure


def bands(histories: dict[str, dict[str, np.ndarray]], title: str) -> Figure:
    """Learning curves of many runs: median, and bands of the middle 50 % and 90 %.

    Training losses above, validation errors below, with a panel for each condition, which has the
    median of the first one too.  `histories` has the columns of history.csv by condition,
    float64 [runs, epochs].
    """
    columns = max(min(len(histories), 4), math.ceil(len(histories) ** 0.5))
    rows = 2 * -(-len(histories) // columns)
    figure, axes = blank(columns, rows, width=max(2.8, 6.4 / columns), height=2.2)
    losses, errors = axes[: len(axes) // 2], axes[len(axes) // 2 :]
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
                _band(ax, histories[other]["epoch"][0], values, other == name)
            ax.set_title(f"{name}: {len(history['epoch'])} runs", fontsize=9)
            ax.grid(color="#e5e5e5", lw=0.6)
    losses[0].set_yscale("log")  # And so all that share it.
    errors[0].yaxis.set_major_formatter(percentages())
    if errors[0].get_ylim()[0] < 0.01:
        # Zero errors on a validation set are common; a pure logarithm could not show them.
        errors[0].set_yscale("symlog", linthresh=1e-3)
        errors[0].set_ylim(bottom=-1e-4)  # A line at 0 is whole.
        errors[0].yaxis.set_major_formatter(orders())
    figure.supxlabel("epoch")
    also = f"; dashed: median of {first}" if len(histories) > 1 else ""
    figure.suptitle(
        f"{title}\nline: median over runs; bands: middle 50 % and 90 %{also}", fontsize=10
    )
    return figure


def _band(ax: Axes, epochs: np.ndarray, values: np.ndarray, whole: bool) -> None:
    """Draws the median of values [runs, epochs]; the whole has bands, the rest is a comparison."""
    low, lower, middle, upper, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), 0)
    few = "o" if len(epochs) < 10 else ""
    if not whole:
        ax.plot(epochs, middle, color=GREY, lw=1, ls="--", marker=few, ms=3, mfc="white")
        return
    ax.fill_between(epochs, low, high, color=COLORS[1], alpha=0.2, lw=0)
    ax.fill_between(epochs, lower, upper, color=COLORS[1], alpha=0.35, lw=0)
    ax.plot(epochs, middle, color=COLORS[1], lw=1.6, marker=few, ms=4)


def skew(
    rates: dict[str, float],
    values: dict[str, dict[str, np.ndarray]],
    intervals: dict[str, dict[str, Interval]],
    title: str,
) -> Figure:
    """Scores against the exact share of positives: every run, and the mean with its interval.

    `rates` is P(positive) by the law for each condition; the others are as those of `points`.
    """
    figure, axes = blank(len(values), width=3.7, height=4.4)
    # A logit axis has no 0 and no 1: what is there stands beside them, under its own label.
    x = {name: min(max(rate, 1e-6), 1 - 1e-6) for name, rate in rates.items()}
    labels = dict(zip(x.values(), words.percents(rates.values()), strict=True))
    places = np.array(sorted(labels))
    margin = 0.3
    odds = np.log(places / (1 - places))[[0, -1]] + (-margin, margin)
    for ax, (score, conditions) in zip(axes, values.items(), strict=True):
        for name, y in conditions.items():
            ax.plot(np.full(y.size, x[name]), y, "o", ms=3.5, color=COLORS[1], alpha=0.8, mew=0)
        _means(ax, x.values(), (intervals[score][name] for name in x))
        if score == "accuracy":
            constant = np.maximum(places, 1 - places)
            (line,) = ax.plot(places, constant, "--", color=GREY, label="constant answer")
            ax.legend(handles=[line], loc="lower right", fontsize=8)
        elif min(y.min(initial=0) for y in conditions.values()) < 0:
            ax.axhline(0, ls="--", color=GREY)
        ax.set_xscale("logit")
        ax.set_xlim(*1 / (1 + np.exp(-odds)))
        ax.set_xticks(places, [labels[place] for place in places], rotation=60)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("positives by the exact law")
        ax.set_title(score, fontsize=10)
        ax.grid(color="#e5e5e5", lw=0.6)
    figure.suptitle(f"{title}: every run, mean and 95 % interval")
    return figure


def shares(splits: dict[str, dict[str, dict[str, float]]], title: str) -> Figure:
    """Stacked bars: the share of each score's variance that each source explains.

    `splits` is by score, then source, as from `statistics.variance_split`.
    """
    figure, (ax,) = blank(height=1.6 + 0.7 * len(splits))
    names = list(next(iter(splits.values())))
    inks = ("white", INK, INK, INK)
    left = np.zeros(len(splits))
    for name, fill, ink, hatch in zip(names, FILLS, inks, TEXTURES, strict=True):
        share = np.array([split[name]["share"] for split in splits.values()])
        ax.barh(
            np.arange(len(splits)),
            share,
            left=left,
            color=fill,
            hatch=hatch,
            edgecolor=INK,
            lw=0.5,
            label=name,
        )
        behind = {"fc": "white", "lw": 0, "pad": 1} if hatch else None
        for y in np.flatnonzero(share > 0.06).tolist():
            text = words.percent(share[y], 0)
            middle = left[y] + share[y] / 2
            ax.text(middle, y, text, ha="center", va="center", color=ink, bbox=behind)
        left += share
    ax.set_yticks(range(len(splits)), list(splits))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of the variance between runs")
    ax.xaxis.set_major_formatter(percentages())
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"{title}: where the spread between runs comes from")
    return figure
