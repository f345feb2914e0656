"""The figures of an experiment's probes: functions of its runs and of its summary's numbers."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from sumrnn.probes import digits as probed_digits
from sumrnn.probes import lengths as probed_lengths
from sumrnn.probes.cells import EXAMPLES
from sumrnn.report import words
from sumrnn.report.drawing import COLORS, FILLS, GREY, INK, RED, blank, legend, percent_label
from sumrnn.study.table import Collection

STYLES = tuple(itertools.product(("-", "--", ":"), (*FILLS[:3], INK, RED)))
"""Dashes and colours of lines; with more conditions they come again."""


def lengths(runs: Collection, summary: dict[str, Any]) -> Figure:
    """What is missing in accuracy, and in balanced accuracy, against the steps of the series."""
    figure, axes = _errors_along(summary["lengths"], "steps", scores=probed_lengths.SCORES)
    constant = {c["majority_accuracy"] for c in summary["conditions"].values()}
    for height in sorted(constant):
        axes[0].axhline(1 - height, color=GREY, ls=(0, (1, 2)), lw=1, label="constant answer")
    for ax, score in zip(axes, probed_lengths.SCORES, strict=True):
        ax.set_title(f"100 % − {words.score_name(score)}", fontsize=11)
    legend(figure)
    title = "errors by the exact law, of the same digits among ever more zeros"
    figure.suptitle(f"{runs.experiment.name}: {title}\nmean over the runs; band: all of them")
    return figure


def digits(runs: Collection, summary: dict[str, Any]) -> Figure:
    """What is missing in balanced accuracy against the number of digits, whose threshold moves.

    To the left of the networks as they are, to the right with the best bias of their output.
    """
    figure, axes = _errors_along(summary["digits"], "digits", scores=probed_digits.SCORES[:2])
    for ax, title in zip(axes, ("as trained", "with the best bias of the output"), strict=True):
        ax.axhline(0.5, color=GREY, ls=(0, (1, 2)), lw=1, label="constant answer")
        ax.set_xlabel("number of digits")
        ax.set_title(title, fontsize=11)
    legend(figure)
    title = "100 % − balanced accuracy, the threshold moved along"
    figure.suptitle(f"{runs.experiment.name}: {title}\nmean over the runs; band: all of them")
    return figure


def _errors_along(
    conditions: Mapping[str, list[dict[str, Any]]], column: str, *, scores: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """A panel for each score, of what it lacks to 100 % along a column of a probe.

    A line joins the means over the runs of a condition; its band reaches from the lowest run to the
    highest.
    """
    figure, axes = blank(len(scores), width=4.8, height=4.6, grid=True)
    ticks = sorted({point[column] for points in conditions.values() for point in points})
    for ax, score in zip(axes, scores, strict=True):
        for (name, points), (dashes, color) in zip(conditions.items(), itertools.cycle(STYLES)):
            places = [point[column] for point in points]
            means, low, high = (
                [1 - (math.nan if point[score][x] is None else point[score][x]) for point in points]
                for x in ("mean", "min", "max")
            )
            ax.fill_between(places, low, high, color=color, alpha=0.15, lw=0)
            ax.plot(places, means, dashes, color=color, marker="o", ms=3, lw=1.6, label=name)
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=60)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_yscale("symlog", linthresh=1e-4)
        ax.yaxis.set_major_formatter(FuncFormatter(percent_label))
        ax.set(xlabel=column, ylim=(0, 1))
    return figure, axes


def cells(runs: Collection, _: dict[str, Any]) -> Figure:
    """The running sum as it is read from the cell states, at every step of some series of each run.

    There is a panel for each condition; a point on the line is read right.
    """
    rows = runs.probes["cells"]
    names = list(dict.fromkeys(row["condition"] for row in rows))
    figure, axes = blank(len(names), 4, width=2.8, height=2.7, grid=True)
    for ax, name in zip(axes, names, strict=True):
        pairs = [
            (row[f"sum_{k}"], row[f"reading_{k}"])
            for row in rows
            if row["condition"] == name
            for k in range(EXAMPLES)
        ]
        sums, readings = np.array(pairs, float).T
        ax.axline((0, 0), slope=1, color=GREY, lw=1)
        ax.plot(sums, readings, ".", ms=2, color=COLORS[1], alpha=0.5)
        ax.set_title(name, fontsize=10)
        ax.sharex(axes[0])
        ax.sharey(axes[0])
    figure.supxlabel("running sum")
    figure.supylabel("reading of the cell states")
    figure.suptitle(f"{runs.experiment.name}: every step of {EXAMPLES} series of each run")
    return figure


def errors(runs: Collection, summary: dict[str, Any]) -> Figure:
    """Error rates by sum, and how often label 1 comes true where it is estimated as so likely.

    Both are means over the runs of a condition.
    """
    figure, (rates, reliability) = blank(2, width=4.8, height=4.6, grid=True)
    for (name, found), (dashes, color) in zip(summary["errors"].items(), itertools.cycle(STYLES)):
        style: dict[str, Any] = {"color": color, "marker": "o", "ms": 3, "lw": 1.4, "label": name}
        sums, values = zip(*((x["sum"], x["error"]) for x in found["rates"]), strict=True)
        rates.plot(sums, values, dashes, **style)
        points = ((x["estimate"], x["positive_rate"]) for x in found["reliability"])
        reliability.plot(*zip(*points, strict=True), dashes, **style)
    rates.set_yscale("symlog", linthresh=1e-3)
    rates.set_ylim(0, 1)
    rates.yaxis.set_major_formatter(FuncFormatter(percent_label))
    rates.set(xlabel="sum", title="error rate")
    reliability.axline((0, 0), slope=1, color=GREY, lw=1)
    reliability.set(xlabel="estimated probability of label 1", title="share of label 1")
    legend(figure)
    figure.suptitle(f"{runs.experiment.name}: where the networks err, and what they think of it")
    return figure


FIGURES: dict[str, Callable[[Collection, dict[str, Any]], Figure]] = {
    figure.__name__: figure for figure in (lengths, digits, cells, errors)
}
"""By their names, which are those of `study.experiment.PROBES`."""
