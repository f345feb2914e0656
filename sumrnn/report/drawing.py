"""How figures look, and how they become PNG files and elements of a page.

Classes differ in brightness and in hatching or mark as well as in hue, so that grey prints work;
every colour has a contrast of 3 and more on white paper and, as a page shows it, on dark.
No pyplot: it keeps global state and is slow to import.
"""

import io
import re
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sumrnn.report import words

COLORS = ("#d87a1f", "#2b59a3")
"""Orange for the negatives, dark blue for the positives."""
HATCHES, MARKS = ("///", ""), ("s", "o")
"""Of the negatives and the positives."""
FILLS, TEXTURES = (COLORS[1], COLORS[0], "#579a86", "#949494"), ("", "///", "...", "xx")
"""Of the parts of a whole."""
INK = "#222222"
GREY = "#777777"
"""Of what needs no training: constant answers, chance."""
RED = "#d1495b"

MAX_POINTS = 5_000
"""Points of a panel beyond which its data are an image within the SVG, as that is smaller."""
IMAGE_DPI = 100
"""Dots per inch of such an image."""
MIN_SCALE, MAX_SCALE = 0.74, 1.25
"""Of a figure's size on a page: it scrolls below (but none of one panel on a phone), and no screen
makes it larger."""
FONTS = re.compile(r" ?font-family: [^;]*;?")
"""Lists fonts that a phone lacks; the page's style has others."""


def blank(
    panels: int = 1, columns: int = 0, width: float = 6.4, height: float = 4.2, grid: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure and its panels, in rows of so many columns; 0: in one row.

    Width and height of a panel are in inches.
    """
    columns = min(panels, columns or panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.ticklabel_format(useOffset=False)  # Or labels would be differences.
        if grid:
            ax.grid(color="#e5e5e5", lw=0.6)
    for ax in axes[panels:]:
        ax.set_visible(False)
    return figure, axes[:panels]


def legend(figure: Figure) -> None:
    """Names each kind of mark once, below the panels, where it hides none."""
    marks = [mark for ax in figure.axes for mark in ax.get_legend_handles_labels()[0]]
    if kinds := {mark.get_label(): mark for mark in marks}:
        figure.legend(handles=list(kinds.values()), loc="outside lower center", ncols=3)


def percentages() -> PercentFormatter:
    """Labels a linear axis of shares, all with the same number of digits."""
    return PercentFormatter(1, symbol=" %")


def percent_label(share: float, _: object) -> str:
    """The label of a share on an axis that is not linear."""
    return f"{words.general(100 * share, 3)} %"


def pictures(
    figures: Mapping[str, Callable[[], Figure]], warn: Callable[[str], None]
) -> dict[str, tuple[bytes, str]]:
    """Draws figures by name: each as the bytes of a PNG file and as text (see `svg`).

    Matplotlib's defaults hold, so that the same figure gives the same bytes, whatever the user's
    settings.  A figure that cannot be drawn is left out, and `warn` is told why.
    """
    drawn = {}
    for name, draw in figures.items():
        png = io.BytesIO()
        try:
            with mpl.rc_context():
                mpl.rcdefaults()
                figure = draw()
                figure.savefig(png, format="png", metadata={"Software": None})
                drawn[name] = png.getvalue(), svg(figure, name)
        except Exception as error:  # Of many kinds, and the numbers do not need it.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warn(f"figure {name}: not drawn ({reason})")
    return drawn


def svg(figure: Figure, name: str) -> str:
    """A figure as the text of an `<svg>` element, of which a page may have several.

    Its ids depend on the name; its alternative text has the id "caption.NAME".  It is black on
    nothing: the page has the paper.  The same figure gives the same text.
    """
    for ax in figure.axes:
        paths = [line.get_path() for line in ax.lines] + [patch.get_path() for patch in ax.patches]
        paths += [path for collection in ax.collections for path in collection.get_paths()]
        if sum(np.shape(path.vertices)[0] for path in paths) > MAX_POINTS:
            for artist in (*ax.lines, *ax.patches, *ax.collections):
                artist.set_rasterized(True)
    file = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", dpi=IMAGE_DPI, transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # HTML knows the namespace of an <svg>.
        values = ((key.rpartition("}")[2], FONTS.sub("", text)) for key, text in element.items())
        element.attrib = dict(values)
        if element.tag == "g":
            element.attrib.pop("id", None)  # Every figure has the same, and nothing refers to them.
        elif element.tag == "style":
            element.text = None  # It would hold for all of the page, whose own style says as much.
    viewbox = root.attrib["viewBox"]
    low, high = (scale * float(viewbox.split()[2]) for scale in (MIN_SCALE, MAX_SCALE))
    root.attrib = {"viewBox": viewbox, "role": "img", "aria-labelledby": f"caption.{name}"}
    root.set("style", f"min-width:{low:.0f}px;max-width:{high:.0f}px")
    return ElementTree.tostring(root, encoding="unicode")
