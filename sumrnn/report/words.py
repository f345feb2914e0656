"""Numbers as a person reads them, and the templates that put them into sentences."""

import functools
import re
from collections.abc import Iterable
from typing import Any

import jinja2
import numpy as np

TITLES = {
    "gain": "accuracy minus constant answer's",
    "matthews_correlation": "Matthews correlation",
    "exact_matthews_correlation": "exact Matthews correlation",
    "average_precision_minority": "average precision of the minority",
    "tn": "TN",
    "fp": "FP",
    "fn": "FN",
    "tp": "TP",
}
NOISE = 1e-14
"""What is nearer to a whole number is just that: the difference is the rounding of float64."""
MARKUP = re.compile(r"[\\`*\[\]<>&|~#$]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)|(?<=www)\.|^[-+=]", re.I)
"""What means something in Markdown, or to programs that make links of addresses, and formulas."""
UNDEFINED = "undefined"
NO_INTERVAL = "no interval"


def score_name(score: str) -> str:
    """A score's name in words."""
    return TITLES.get(score, score.replace("_", " "))


def plain(text: str) -> str:
    """A line of text as Markdown that shows it, whatever it holds."""
    return re.sub(r"^(\d+)([.)])(?!\S)", r"\1\\\2", MARKUP.sub(r"\\\g<0>", text.strip()))


def _format(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


def _clean(value: float, tiny: bool = False) -> float:
    """The whole number that is meant; if `tiny`, what is just above 0 may be a rate or p-value."""
    whole = float(np.rint(value)) + 0.0  # Nor is there a −0.
    meant = abs(value - whole) < NOISE and not (tiny and whole == 0 < value)
    return whole if meant else value


def _digits(value: float, digits: int, whole: float = 1) -> int:
    """So many digits that only 0 reads as 0, and only the whole as that."""
    while abs(value) not in (0, whole) and abs(round(value, digits)) in (0, whole):
        digits += 1
    return digits


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many digits after the point, or two that count where these show fewer.

    Of up to two digits, only where they would be 0.  What is not 1 has as many as show it.  None is
    undefined.
    """
    if value is None:
        return UNDEFINED
    value = _clean(value, tiny=True)
    small = 10.0 ** (1 - digits) if digits > 2 else 0.5 * 10**-digits
    form = "#.2g" if 0 < abs(value) < small else f".{_digits(value, digits)}f"
    return _format(value, form)


def general(value: float, digits: int) -> str:
    """A number with so many significant digits at most, or all those before the point."""
    value = _clean(value, tiny=True)
    while abs(value) != 1 and abs(float(f"{value:.{digits}g}")) == 1:
        digits += 1
    whole = abs(float(f"{value:.{digits}g}")) >= 10**digits
    return count(value) if whole else _format(value, f".{digits}g")


def count(value: float, digits: int = 0) -> str:
    """A number of things, by thousands; an expected one may have digits."""
    value = _clean(value)
    return _format(value, f",.{_digits(value, digits, 0)}f")


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage, with more digits where it would read as 0 or 100 and is not.

    None is undefined.
    """
    return UNDEFINED if value is None else percents([value], digits)[0]


def percents(values: Iterable[float], digits: int = 2) -> list[str]:
    """Shares as percentages that all have the same number of digits."""
    shown = [100 * _clean(value) for value in values]
    digits = max(_digits(value, digits, 100) for value in shown)
    return [f"{_format(value, f'.{digits}f')} %" for value in shown]


def span(interval: list[float] | None, digits: int = 2) -> str:
    """An interval of shares; None is none."""
    return NO_INTERVAL if interval is None else " to ".join(percents(interval, digits))


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
    for helper in (plain, score_name, number, general, count, percent, span, with_interval, row):
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
