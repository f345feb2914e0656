import logging
import pathlib
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sumrnn.report import drawing

STYLE = pathlib.Path(drawing.__file__).parent / "templates" / "page.css.j2"
STRANGE = {
    "text.usetex": True,
    "font.family": ["No Such Font"],
    "savefig.bbox": "tight",
    "savefig.dpi": 30,
    "axes.grid": True,
    "figure.facecolor": "red",
}


def luminance(color: np.ndarray) -> float:
    """Relative luminance (WCAG 2.2) of a colour, float [3] within 0 and 1."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def in_the_dark(color: np.ndarray) -> np.ndarray:
    """The colour after the filter of the page's style, by the W3C's Filter Effects."""
    luma = np.array((0.213, 0.715, 0.072))
    turned = 2 * luma @ (0.9 - 0.8 * color) - (0.9 - 0.8 * color)  # By half a circle of hue.
    return np.clip(1.2 * np.clip(turned, 0, 1), 0, 1)


def test_every_colour_has_contrast_on_white_paper_and_on_dark() -> None:
    """Three, that of what must be seen to understand a figure (WCAG 2.2, 1.4.11)."""
    style = STYLE.read_text()
    assert "svg { filter: invert(.9) hue-rotate(180deg) brightness(1.2); }" in style
    _, dark = (to_rgb(paper) for paper in re.findall(r"--paper: (#\w+)", style))
    for name in (*drawing.COLORS, *drawing.FILLS, drawing.GREY, drawing.RED, drawing.INK):
        color = np.array(to_rgb(name))
        for shown, paper in ((color, (1, 1, 1)), (in_the_dark(color), dark)):
            low, high = sorted((luminance(shown), luminance(np.array(paper))))
            assert (high + 0.05) / (low + 0.05) >= 3, (name, paper)
    assert len(set(drawing.TEXTURES)) == len(drawing.FILLS)


@pytest.mark.parametrize("ends", [(0.99998, 0.999999), (1e-9, 2e-9), (10_000, 10_001)])
def test_what_a_label_says_is_its_place(ends: tuple[float, float]) -> None:
    figure, (ax,) = drawing.blank()
    ax.plot(ends, ends)
    figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        factor = float(axis.get_offset_text().get_text().replace("−", "-") or 1)
        for tick in axis.get_major_ticks():
            label = float(tick.label1.get_text().replace("−", "-"))
            assert label * factor == pytest.approx(tick.get_loc(), rel=1e-7, abs=0)


def line(points: int = 2) -> Figure:
    figure, (ax,) = drawing.blank()
    ax.plot(np.linspace(0, 1, points), np.random.default_rng(0).random(points), "o", label="a line")
    ax.legend()
    return figure


def broken() -> Figure:
    raise RuntimeError("no room\nfor it")


def warned(line: str) -> None:
    raise AssertionError(line)


def test_pictures_are_the_same_under_a_stranger_s_settings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual = drawing.pictures({"a": line}, warned)
    with mpl.rc_context(STRANGE), caplog.at_level(logging.WARNING):
        assert drawing.pictures({"a": line}, warned) == usual
        assert {name: mpl.rcParams[name] for name in STRANGE} == STRANGE
    assert not caplog.records
    assert usual["a"][0].startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_costs_itself_and_a_line() -> None:
    lines: list[str] = []
    assert set(drawing.pictures({"a": broken, "b": line}, lines.append)) == {"b"}
    assert lines == ["figure a: not drawn (no room)"]


def test_a_figure_of_very_many_points_stays_small() -> None:
    few, many = (drawing.svg(line(points), "a") for points in (100, 100_000))
    assert "<image" in many
    assert "<image" not in few
    assert max(len(few), len(many)) < 200_000
