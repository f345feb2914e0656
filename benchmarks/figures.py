"""What a person looks at: pure functions from what was measured to figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

OURS, OTHERS = "#2b59a3", "#f4a259"
"""Dark blue for this package, light orange for the other libraries."""
INK = "#222222"


def _bars(ax: Axes, rows: Sequence[dict[str, Any]], end: float) -> None:
    """A bar for each row, the first on top; label, seconds, min and max, or nothing of these."""
    for place, row in enumerate(rows):
        if not row["installed"]:
            ax.text(end * 0.008, place, "not installed", va="center", color="#777777")
            continue
        middle, low, high = row["median"], row["min"], row["max"]
        ax.barh(place, middle, height=0.66, color=OURS if row["ours"] else OTHERS)
        ax.errorbar(
            middle, place, xerr=[[middle - low], [high - middle]], color=INK, lw=1, capsize=3
        )
        ax.text(high + end * 0.012, place, row["note"], va="center", fontsize=9.5, color=INK)
    ax.set_yticks(range(len(rows)), [row["label"] for row in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, end))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _seconds(value: float) -> str:
    return f"{value:.{2 if value >= 1 else 3}f} s"


def _note(row: dict[str, Any]) -> str:
    """What stands at the end of a bar."""
    if not row["installed"]:
        return ""
    ratio = row["times_as_long"]
    return _seconds(row["median"]) + ("" if ratio is None else f"  ({ratio:.2f}×)")


def speed(found: dict[str, Any]) -> Figure:
    """Seconds per epoch of every program, and the time of the matrix products alone."""
    rows = [
        row | {"ours": row["label"].startswith("sumrnn"), "note": _note(row)}
        for row in found["rows"]
    ]
    floor = found["flops_per_epoch"] / found["matrix"]["flops_per_second"]
    longest = max([floor, *(row["max"] for row in rows if row["installed"])])
    figure = Figure(figsize=(9, 1.7 + 0.46 * len(rows)), dpi=150, layout="constrained")
    ax = figure.subplots()
    _bars(ax, rows, 1.24 * longest)
    ax.axvline(floor, color=INK, lw=1.2, ls="--", zorder=0.5)
    near = floor < 0.6 * longest
    ax.annotate(
        f"matrix products alone: {_seconds(floor)}",
        (floor, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if near else "right",
        fontsize=9.5,
        color=INK,
    )
    work = found["work"]
    ax.set_xlabel(
        f"seconds per epoch: median and range of {len(found['matrix']['seconds'])} in turn"
        " (× the fastest single run's)"
    )
    ax.set_title(
        f"Training on {work['size']:,} series of {work['length']} digits, "
        f"{work['cells']} cells, batches of {work['batch_size']}",
        pad=20,
    )
    return figure


def whole(found: dict[str, Any]) -> Figure:
    """Wall-clock time of whole processes."""
    rows = [
        row | {"ours": row["label"].startswith("sumrnn"), "note": _note(row)}
        for row in found["rows"]
    ]
    longest = max(row["max"] for row in rows if row["installed"])
    figure = Figure(figsize=(9, 1.7 + 0.46 * len(rows)), dpi=150, layout="constrained")
    ax = figure.subplots()
    _bars(ax, rows, 1.24 * longest)
    ax.set_xlabel(f"seconds from start to end: median and range of {found['repetitions']}")
    ax.set_title(f"The whole exercise as one process, {found['epochs']} epochs")
    return figure


def growth(found: dict[str, Any]) -> Figure:
    """Time above and memory below against each size, both axes logarithmic."""
    series = found["series"]
    figure = Figure(figsize=(3.3 * len(series), 6), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(series), squeeze=False, sharex="col", sharey="row")
    for (above, below), (name, points) in zip(panels.T, series.items(), strict=True):
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
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xticks(values, [f"{value:,}" for value in values])
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", color="#dddddd", lw=0.6)
            ax.set_axisbelow(True)
    for ax, label in ((panels[0][0], "seconds per epoch"), (panels[1][0], "peak memory, MiB")):
        ax.set_ylabel(label)
    for ax in (panels[0][0], panels[1][0]):
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    panels[0][0].legend(frameon=False, loc="upper left")
    return figure


def endurance(found: dict[str, Any]) -> Figure:
    """Time of each epoch and memory over a long run."""
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    seconds = found["seconds"]
    above.plot(range(1, len(seconds) + 1), seconds, ".", color=OURS, ms=2, alpha=0.5)
    # The first one compiles, and some wait for the disk.
    above.set(ylim=(0, 4 * sorted(seconds)[len(seconds) // 2]), ylabel="seconds per epoch")
    if found["memory"]:
        below.plot(*zip(*found["memory"], strict=True), color=OURS)
    below.set_ylim(bottom=0)
    below.set(xlabel="epoch", ylabel="memory, MiB")
    for ax in (above, below):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
    above.set_title(f"A long run of a tiny network: {len(seconds):,} epochs")
    return figure
