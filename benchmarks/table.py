"""What a benchmark leaves: JSON with every number, Markdown to read, a picture."""

from __future__ import annotations

import contextlib
import importlib.metadata
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from sumrnn.report import canvas, words
from sumrnn.runs import files

SHOWN = ("python", "jax", "keras", "tensorflow", "tensorflow-cpu", "torch")
"""Versions that the text names, where they are known; the JSON has all."""
NONE = "–"
BUSY = 0.15
"""Cores that are busy while every program idles, up to which a machine counts as at rest."""

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column of a table: what it shows of each row."""

    title: str
    field: str
    digits: int | None = None
    """After the point; None: text."""
    is_share: bool = False
    """Whether it is shown in percent."""

    def show(self, row: Row) -> str:
        """Its cell; a dash for what there is none of."""
        value = row.get(self.field)
        if value is None:
            return NONE
        if self.digits is None:
            return str(value)
        return (words.percent if self.is_share else words.count)(value, self.digits)


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [[column.title for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    for row in rows:
        lines.append([column.show(row) for column in columns])
        if not row.get("installed", True):
            lines[-1][1] = "not installed"
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(found: Row, columns: Sequence[Column], rows: Sequence[Row], **more: str) -> str:
    """The template of this kind of benchmark, filled; its paragraphs become one line each."""
    shown = ", ".join(f"{x} {found['versions'][x]}" for x in SHOWN if x in found["versions"])
    processor, count = found["machine"]["processor"], found["machine"]["cores"]
    where = f"{count} core{'s' if count > 1 else ''} ({processor}), with {shown}"
    origin = f"Measured by `{found['command']}` on {where}."
    if (found.get("busy_cores") or 0) > BUSY:
        origin += f" **Others kept {found['busy_cores']:.1f} cores busy meanwhile.**"
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates")
    template = jinja2.Environment(loader=loader).get_template(f"{found['kind']}.md.j2")
    text = template.render(found, origin=origin, table="{table}", **more)
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(paragraphs).replace("{table}", markdown(columns, rows))


def libraries(rows: Sequence[Row]) -> dict[str, str]:
    """Versions of what the programs of the rows need, where it is installed."""
    found = {}
    for package in dict.fromkeys(name for row in rows for name in row["needs"]):
        for name in (package, f"{package}-cpu"):  # TensorFlow's for CPUs has a name of its own.
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
    return found


def prepare(out: pathlib.Path) -> None:
    """Makes the folder before anything is measured; raises `UserError` if it cannot be written."""
    with files.writing(out):
        files.clear(out)


def write(
    out: pathlib.Path,
    found: Row,
    text: str,
    draw: Callable[[], Figure],
    warn: Callable[[str], None],
) -> None:
    """Writes KIND.json, KIND.md and KIND.png; raises `UserError` if the folder is not writable."""
    kind = found["kind"]
    with files.writing(out):
        files.write_atomic(out / f"{kind}.json", files.to_json(found))
        files.write_atomic(out / f"{kind}.md", text)
        for name, picture in canvas.pictures({kind: draw}, warn).items():
            files.write_atomic(out / f"{name}.png", picture.png)
