import logging

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from sumrnn.report import canvas

STRANGE = {
    "text.usetex": True,
    "font.family": ["No Such Font"],
    "savefig.bbox": "tight",
    "savefig.dpi": 30,
    "axes.grid": True,
    "figure.facecolor": "red",
}


def draw() -> Figure:
    figure, (ax,) = canvas.blank()
    ax.plot([1, 2], label="a line")
    ax.legend()
    return figure


def broken() -> Figure:
    raise RuntimeError("no room\nfor it")


def warned(line: str) -> None:
    raise AssertionError(line)


def test_pictures_are_the_same_under_a_stranger_s_settings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual = canvas.pictures({"a": draw}, warned)
    with mpl.rc_context(STRANGE), caplog.at_level(logging.WARNING):
        assert canvas.pictures({"a": draw}, warned) == usual
        assert {name: mpl.rcParams[name] for name in STRANGE} == STRANGE
    assert not caplog.records
    assert usual["a"].png.startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_costs_itself_and_a_line() -> None:
    lines: list[str] = []
    found = canvas.pictures({"a": broken, "b": draw}, lines.append)
    assert set(found) == {"b"}
    assert lines == ["figure a: not drawn (no room)"]
