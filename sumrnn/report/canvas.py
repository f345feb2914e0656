"""What all figures share: colours, and an empty picture to draw on.

Classes differ in brightness and hatching as well as in hue, so that grey prints work.
No pyplot: it keeps global state and is slow to import.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

COLORS = ("#f4a259", "#2b59a3")
"""Light orange for the negatives, dark blue for the positives."""
HATCHES = ("///", "")
INK = "#222222"
GREY = "#777777"
"""Of what needs no training: constant answers, chance."""
RED = "#d1495b"


def blank(
    columns: int = 1, rows: int = 1, width: float = 6.4, height: float = 4.2
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row; width and height of a panel are in inches."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def percentages() -> PercentFormatter:
    """Labels an axis of shares."""
    return PercentFormatter(1, symbol=" %")
