"""Numbers as a person reads them, and the templates that put them into sentences."""

import functools
import re
from collections.abc import Iterable
from typing import Any

import jinja2
import numpy as np

TITLES = {
    "gain": "accuracy minus constant answer's",
    "average_precision_minority": "average precision of the minority",
    **{cell: cell.upper() for cell in ("tn", "fp", "fn", "tp")},
}
ROUNDING = 1e-14
"""A number that is nearer than this to a whole one is that one, but for the rounding of float64."""
MARKUP = re.compile(r"[\\`*\[\]<>&|~#$]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)|(?<=www)\.|^[-+=]", re.I)
"""What means something in Markdown, or to programs that make links of addresses, and formulas."""


def score_name(score: str) -> str:
    """A score's name in words."""
    return TITLES.get(score, score.replace("_", " ").replace("matthews", "Matthews"))


def plain(text: str) -> str:
    """A line of text as Markdown that shows it, whatever it holds."""
    return re.sub(r"^(\d+)([.)])(?!\S)", r"\1\\\2", MARKUP.sub(r"\\\g<0>", text.strip()))


def _format(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


def _clean(value: float, keep_tiny: bool = False) -> float:
    """The value without the rounding of float64 beside a whole number.

    With `keep_tiny`, what is just above 0 stays: it may be a rate or a p-value.
    """
    whole = float(np.rint(value)) + 0.0  # Nor is there a −0.
    tiny = keep_tiny and whole == 0 < value
    return whole if abs(value - whole) < ROUNDING and not tiny else value


def _digits(value: float, digits: int, whole: float = 1) -> int:
    """At least so many digits after the point that only 0 reads as 0, and only `whole` as that."""
    while abs(value) not in (0, whole) and abs(round(value, digits)) in (0, whole):
        digits += 1
    return digits


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many digits after the point; None is undefined.

    It has two significant digits instead where these would show fewer, or, of up to two digits,
    none; and more digits where it would read as 1 and is not.
    """
    if value is None:
        return "undefined"
    value = _clean(value, keep_tiny=True)
    small = 10.0 ** (1 - digits) if digits > 2 else 0.5 * 10**-digits
    form = "#.2g" if 0 < abs(value) < small else f".{_digits(value, digits)}f"
    return _format(value, form)


def general(value: float, digits: int) -> str:
    """A number with so many significant digits at most, or all those before the point."""
    value = _clean(value, keep_tiny=True)
    while abs(value) != 1 and abs(float(f"{value:.{digits}g}")) == 1:
        digits += 1
    if abs(float(f"{value:.{digits}g}")) >= 10**digits:
        return count(value)
    return _format(value, f".{digits}g")


def count(value: float, digits: int = 0) -> str:
    """A number of things, by thousands; an expected number may have digits after the point."""
    value = _clean(value)
    return _format(value, f",.{_digits(value, digits, 0)}f")


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage, with more digits where it would read as 0 or 100 and is not.

    None is undefined.
    """
    return "undefined" if value is None else percents([value], digits)[0]


def percents(values: Iterable[float], digits: int = 2) -> list[str]:
    """Shares as percentages that all have the same number of digits."""
    shown = [100 * _clean(value) for value in values]
    digits = max(_digits(value, digits, 100) for value in shown)
    return [f"{_format(value, f'.{digits}f')} %" for value in shown]


def span(interval: list[float] | None, digits: int = 2) -> str:
    """An interval of shares; None is no interval."""
    return "no interval" if interval is None else " to ".join(percents(interval, digits))


def with_interval(value: float | None, interval: list[float] | None) -> str:
    """A number and its interval, which may be missing; None is undefined."""
    if value is None:
        return "undefined"
    ends = " to ".join(map(number, interval)) if interval else "no interval"
    return f"{number(value)} ({ends})"


def columns(text: str) -> str:
    """Lines whose cells have " | " between them, aligned: to the right but for the first column."""
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(map("  ".join, aligned))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sumrnn.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),  # The rest is no HTML.
    )
    filters = (plain, score_name, number, general, count, percent, span, with_interval, columns)
    for helper in filters:
        environment.filters[helper.__name__] = helper
    environment.filters["right"] = str.rjust
    return environment


def render(template: str, **values: Any) -> str:
    """The text of a file in `templates`; a value that is missing is an error, not empty."""
    return _environment().get_template(template).render(values)


def reflow(text: str) -> str:
    """A rendered Markdown text, whose lines may be broken anywhere: a paragraph becomes one line.

    The lines of tables and lists, which begin with `| ` or `* `, stay as they are.
    """
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        blocks.append(("\n" if lines[0].startswith(("| ", "* ")) else " ").join(lines))
    return "\n\n".join(blocks) + "\n"


def by_name(text: str) -> dict[str, str]:
    """The paragraphs of a rendered text, each by the name that it begins with."""
    paragraphs = reflow(text).strip().split("\n\n")
    return dict(paragraph.split(": ", 1) for paragraph in paragraphs)
