"""Figures as elements of a page: Matplotlib's SVG without what a page has already."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

MANY = 5_000
"""Points of a panel beyond which its data are an image within the SVG, as that is smaller."""
DENSITY = 100
"""Dots per inch of such an image."""
SHRUNK, GROWN = 0.74, 1.25
"""Of a figure's own size: where it scrolls (but none of one panel on a phone), or stops growing."""
FONT = re.compile(r" ?font-family: [^;]*;?")
"""Lists fonts that a phone lacks; the page's style has others."""


def draw(figure: Figure, name: str) -> str:
    """A figure as the text of an `<svg>` element, of which a page may have several.

    Its ids begin with `name` and a dot; its alternative text has the id "caption.NAME".  It is
    black on nothing: the page has the paper.  The same figure gives the same text.
    """
    for ax in figure.axes:
        paths = [line.get_path() for line in ax.lines] + [patch.get_path() for patch in ax.patches]
        paths += [path for several in ax.collections for path in several.get_paths()]
        if sum(np.shape(path.vertices)[0] for path in paths) > MANY:
            for artist in (*ax.lines, *ax.patches, *ax.collections):
                artist.set_rasterized(True)
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        undated = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", dpi=DENSITY, transparent=True, metadata=undated)
    return _element(file.getvalue(), name)


def _element(svg: bytes, name: str) -> str:
    root = ElementTree.fromstring(svg)
    for parent in root.findall(".//*[{*}style]"):
        parent.clear()
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # HTML knows the namespace of an <svg>.
        element.attrib = {
            key.rpartition("}")[2]: _value(key, value, name) for key, value in element.items()
        }
        if element.tag == "g":  # Nothing refers to these.
            element.attrib.pop("id", None)
        element.tail = None
        if element.text and not element.text.strip():
            element.text = None
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"caption.{name}",
        "style": f"min-width:{SHRUNK * width:.0f}px;max-width:{GROWN * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _value(key: str, value: str, name: str) -> str:
    """An attribute's value, its ids with a prefix."""
    if key == "id":
        return f"{name}.{value}"
    if key.endswith("href"):
        return f"#{name}.{value[1:]}" if value.startswith("#") else "".join(value.split())
    return FONT.sub("", " ".join(value.replace("url(#", f"url(#{name}.").split()))
