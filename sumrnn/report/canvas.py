"""What all figures share: colours, an empty picture to draw on, and how it becomes a file.

Classes differ in brightness and hatching as well as in hue, so that grey prints work.
No pyplot: it keeps global state and is slow to import.
"""

import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sumrnn.report import svg

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


class Picture(NamedTuple):
    """A drawn figure, as a file and as an element of a page."""

    png: bytes
    svg: str


def pictures(
    figures: Mapping[str, Callable[[], Figure]], warn: Callable[[str], None]
) -> dict[str, Picture]:
    """Draws figures by name, under Matplotlib's defaults.

    The same figure gives the same bytes, whatever the user's settings.  One that cannot be drawn is
    left out, and `warn` is told why.
    """
    drawn = {}
    for name, draw in figures.items():
        png = io.BytesIO()
        try:
            with mpl.rc_context():
                mpl.rcdefaults()
                figure = draw()
                figure.savefig(png, format="png", metadata={"Software": None})
                drawn[name] = Picture(png.getvalue(), svg.draw(figure, name))
        except Exception as error:  # Of many kinds, and the numbers do not need it.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warn(f"figure {name}: not drawn ({reason})")
    return drawn
