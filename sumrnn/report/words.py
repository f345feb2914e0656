"""Numbers as a person reads them, and the templates that put them into sentences."""

import functools
import re
from collections.abc import Iterable
from typing import Any

import jinja2

TITLES = {
    "gain": "accuracy minus constant answer's",
    "matthews_correlation": "Matthews correlation",
    "average_precision_minority": "average precision of the minority",
    "tn": "TN",
    "fp": "FP",
    "fn": "FN",
    "tp": "TP",
}
UNDEFINED = "undefined"
NO_INTERVAL = "no interval"


def score_name(score: str) -> str:
    """A score's name in words."""
    return TITLES.get(score, score.replace("_", " "))


def _format(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


def number(value: float | None, digits: int = 4) -> str:
    """A number with a fixed number of digits, or two that count where these show fewer.

    Of up to two digits, only where they would be 0.  None is undefined.
    """
    if value is None:
        return UNDEFINED
    small = 10.0 ** (1 - digits) if digits > 2 else 0.5 * 10**-digits
    return _format(value, ".1e" if 0 < abs(value) < small else f".{digits}f")


def general(value: float, digits: int) -> str:
    """A number with so many significant digits at most."""
    return _format(value, f".{digits}g")


def count(value: float, digits: int = 0) -> str:
    """A number of things, by thousands; an expected one may have digits."""
    return _format(value, f",.{digits}f")


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage; None is undefined."""
    return UNDEFINED if value is None else _format(value, f".{digits}%").replace("%", " %")


def span(interval: list[float] | None, digits: int = 2) -> str:
    """An interval of shares; None is none."""
    if interval is None:
        return NO_INTERVAL
    return f"{percent(interval[0], digits)} to {percent(interval[1], digits)}"


def with_interval(value: float | None, interval: list[float] | None) -> str:
    """A number and its interval; only what is not undefined can have none."""
    if value is None:
        return UNDEFINED
    if interval is None:
        return f"{number(value)} ({NO_INTERVAL})"
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def row(cells: Iterable[object]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


@functools.cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("sumrnn.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),  # The rest is no HTML.
    )
    for helper in (score_name, number, general, count, percent, span, with_interval, row):
        found.filters[helper.__name__] = helper
    found.filters["right"] = str.rjust
    return found


def render(template: str, **values: Any) -> str:
    """The text of a file in `templates`; a value that is not given is an error, not empty."""
    return _environment().get_template(template).render(values)


def markdown(template: str, **values: Any) -> str:
    """As `render`, but its lines may be broken anywhere: a paragraph becomes one line.

    The lines of tables and lists, which begin with `| ` or `* `, stay as they are.
    """
    blocks = []
    for paragraph in re.split(r"\n\s*\n", render(template, **values).strip()):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        blocks.append(("\n" if lines[0].startswith(("| ", "* ")) else " ").join(lines))
    return "\n\n".join(blocks) + "\n"


def paragraphs(template: str, **values: Any) -> dict[str, str]:
    """The paragraphs of `markdown`, each by the name that it begins with."""
    found = markdown(template, **values).strip().split("\n\n")
    return dict(paragraph.split(": ", 1) for paragraph in found)
