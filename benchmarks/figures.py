"""What a person looks at: pure functions from what was measured to figures."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sumrnn.report import canvas, words
from sumrnn.report.canvas import GREY, INK

OTHERS, OURS = canvas.COLORS
"""Orange for the other libraries, dark blue for this package."""
ROOM = 1.28
"""Length of the axis of bars, as a multiple of the longest."""


def _seconds(value: float) -> str:
    return f"{words.number(value, 2 if value >= 1 else 3)} s"


def _bars(found: dict[str, Any], title: str, label: str, floor: float = 0) -> Figure:
    """Median and range of every row, the first on top; and a line for what cannot be beaten."""
    rows = found["rows"]
    longest = max([floor, *(row["max"] for row in rows if row["installed"])])
    figure, (ax,) = canvas.blank(width=9, height=1.7 + 0.46 * len(rows))
    for place, row in enumerate(rows):
        if not row["installed"]:
            ax.text(0.01 * longest, place, "not installed", va="center", color=GREY)
            continue
        middle, low, high, ratio = (row[k] for k in ("median", "min", "max", "times_as_long"))
        ours = row["label"].startswith("sumrnn")
        ax.barh(place, middle, height=0.66, color=OURS if ours else OTHERS)
        ax.errorbar(
            middle, place, xerr=[[middle - low], [high - middle]], color=INK, lw=1, capsize=3
        )
        note = _seconds(middle) + ("" if ratio is None else f"  ({ratio:.2f}×)")
        ax.text(high + 0.015 * longest, place, note, va="center", fontsize=9.5, color=INK)
    if floor:
        ax.axvline(floor, color=INK, lw=1.2, ls="--", zorder=0.5)
        side = "left" if floor < 0.6 * longest else "right"
        note = f"matrix products alone: {_seconds(floor)}"
        ax.text(floor, -0.55, note, ha=side, va="bottom", fontsize=9.5, color=INK)
    ax.set_yticks(range(len(rows)), [row["label"] for row in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, ROOM * longest), xlabel=label)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(title, pad=20 if floor else 6)
    return figure


def speed(found: dict[str, Any]) -> Figure:
    """Seconds per epoch of every program, and the time of the matrix products alone."""
    work, rounds = found["work"], len(found["matrix"]["seconds"])
    return _bars(
        found,
        f"Training on {work['size']:,} series of {work['length']} digits, "
        f"{work['cells']} cells, batches of {work['batch_size']}",
        f"seconds per epoch: median and range of {rounds} in turn (× the fastest single run's)",
        found["flops_per_epoch"] / found["matrix"]["flops_per_second"],
    )


def whole(found: dict[str, Any]) -> Figure:
    """Wall-clock time of whole processes."""
    several = "s" if found["epochs"] > 1 else ""
    title = f"The whole exercise as one process, {found['epochs']} epoch{several}"
    label = f"seconds from start to end: median and range of {found['repetitions']}"
    return _bars(found, title, label)


def _grid(ax: Axes) -> None:
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.label_outer()


def growth(found: dict[str, Any]) -> Figure:
    """Time above and memory below against each size, both axes logarithmic."""
    series = found["series"]
    figure, axes = canvas.blank(len(series), 2, width=3.3, height=3)
    rows = axes[: len(series)], axes[len(series) :]
    for first, *others in rows:
        for ax in others:
            ax.sharey(first)
    for above, below, (name, points) in zip(*rows, series.items(), strict=True):
        values = [point["value"] for point in points]
        seconds = [point["seconds"] for point in points]
        predicted = [seconds[0] * point["predicted_factor"] for point in points]
        above.plot(values, predicted, color=INK, ls="--", lw=1.2, label="by arithmetic")
        above.plot(values, seconds, color=OURS, marker="o", label="measured")
        below.plot(values, [point["memory_mib"] for point in points], color=OURS, marker="o")
        above.set_title(found["titles"][name], fontsize=10.5)
        below.set_xlabel(name)
        for ax in (above, below):
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(values, [f"{value:,}" for value in values])
    for row, label in zip(rows, ("seconds per epoch", "peak memory, MiB"), strict=True):
        row[0].set_ylabel(label)
        for ax in row:
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            _grid(ax)
    axes[0].legend(frameon=False, loc="upper left")
    return figure


def quality(found: dict[str, Any]) -> Figure:
    """Error against seconds of training, a line for each run."""
    figure, (ax,) = canvas.blank(width=9, height=4.6)
    rows = [row for row in found["rows"] if row["installed"]]
    styles = ["--", ":", "-", "-.", "-"]
    for row, style in zip(rows, styles, strict=False):
        ours = row["label"].startswith("sumrnn")
        for number, points in enumerate(row["points"]):
            seconds, errors = zip(*[(s, e) for _, s, e in points if e > 0], strict=True)
            label = None if number else row["label"]
            ax.plot(seconds, errors, style, color=OURS if ours else OTHERS, lw=1.4, label=label)
    for level in found["rows"][0]["reached"]:
        ax.axhline(1 - float(level), color=GREY, lw=0.8, zorder=0.5)
    ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="error by the exact law")
    ax.legend(frameon=False)
    ax.set_title("How soon a network errs how rarely: the notebook's task")
    return figure


def endurance(found: dict[str, Any]) -> Figure:
    """Time of each epoch and memory over a long run."""
    figure, (above, below) = canvas.blank(rows=2, width=9, height=2.5)
    seconds = found["seconds"]
    above.plot(range(1, len(seconds) + 1), seconds, ".", color=OURS, ms=2, alpha=0.5)
    above.set(yscale="log", ylabel="seconds per epoch")
    below.plot(*zip(*found["memory"], strict=True), color=OURS)
    below.sharex(above)
    below.set(ylim=(0, None), xlabel="epoch", ylabel="memory, MiB")
    for ax in (above, below):
        _grid(ax)
    above.set_title(f"A long run of a tiny network: {len(seconds):,} epochs")
    return figure
