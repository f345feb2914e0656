"""What all figures share: colours, an empty picture to draw on, and how it becomes a file.

Classes differ in brightness and in hatching or mark as well as in hue, so that grey prints work;
every colour has a contrast of 3 and more on white paper and, as a page shows it, on dark.
No pyplot: it keeps global state and is slow to import.
"""

import io
from collections.abc import Callable, Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from sumrnn.report import svg, words

COLORS = ("#d87a1f", "#2b59a3")
"""Orange for the negatives, dark blue for the positives."""
HATCHES, MARKS = ("///", ""), ("s", "o")
FILLS, TEXTURES = (COLORS[1], COLORS[0], "#579a86", "#949494"), ("", "///", "...", "xx")
"""Of parts of a whole."""
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
        ax.ticklabel_format(useOffset=False)  # Or labels would be differences.
    return figure, axes


def percentages() -> PercentFormatter:
    """Labels a linear axis of shares, all with the same number of digits."""
    return PercentFormatter(1, symbol=" %")


def orders() -> FuncFormatter:
    """Labels a logarithmic axis of shares, each with the digits that it needs."""
    return FuncFormatter(lambda share, _: f"{words.general(100 * share, 3)} %")


def decade(smallest: float) -> float:
    """The power of ten at or below a positive number: where a logarithmic axis ends before 0."""
    return float(10.0 ** np.floor(np.log10(smallest)))


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
