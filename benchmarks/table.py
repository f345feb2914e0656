"""What a benchmark leaves: JSON with every number, Markdown to read, a picture."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers import cores
from sumrnn import files, runs

PEERS = ("keras", "tensorflow", "tensorflow-cpu", "torch")
"""Packages beside this one's own."""
SHOWN = ("python", "jax", *PEERS)
"""Versions that the text names; the JSON has all."""
NONE = "–"


def machine() -> dict[str, Any]:
    """What computes."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return {"processor": name, "cores": cores(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Versions of this package's code, and of every library that is installed."""
    found = runs.versions()
    for name in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def origin(found: dict[str, Any]) -> str:
    """A sentence: where the numbers come from."""
    with_what = [f"{name} {found['versions'][name]}" for name in SHOWN if name in found["versions"]]
    processor, count = found["machine"]["processor"], found["machine"]["cores"]
    return (
        f"Measured by `{found['command']}` on {count} core{'s' if count > 1 else ''} "
        f"({processor}), with {', '.join(with_what)}."
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """With so many decimals; a dash for what there is none of."""
    return NONE if value is None else f"{value:,.{digits}f}"


def prepare(out: pathlib.Path) -> None:
    """Makes the folder before anything is measured.

    Raises:
      RunError: if it cannot be written.
    """
    try:
        files.clear(out)
    except OSError as error:
        raise files.unwritable(out, error) from None


def write(out: pathlib.Path, kind: str, found: dict[str, Any], text: str, figure: Figure) -> None:
    """Writes KIND.json, KIND.md and KIND.png.

    Raises:
      RunError: if the folder cannot be written.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    contents: dict[str, bytes | str] = {
        "json": files.to_json(found),
        "md": text,
        "png": png.getvalue(),
    }
    try:
        for ending, content in contents.items():
            files.write_atomic(out / f"{kind}.{ending}", content)
    except OSError as error:
        raise files.unwritable(out, error) from None
