"""Lets a trained network answer series of digits: whether their sum reaches the threshold.

The digits follow the folder, or come from standard input, a series per line, with spaces or commas
between.  A line for each says the probability, the network's answer, the true sum and its label.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import tyro

from sumrnn.cli import command, console, progress
from sumrnn.cli.command import Text
from sumrnn.config import MAX_LENGTH, TaskConfig
from sumrnn.errors import UserError, require

CHUNK = 10_000
"""Series that are read before they are answered."""
MAX_LINE = 10 * MAX_LENGTH
"""Characters of a line, its end included; of a longer one no more are read."""
SEPARATORS = re.compile(r"[,;\s]+")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to answer."""

    folder: tyro.conf.Positional[str]
    """Folder of a finished run."""
    digits: tyro.conf.Positional[tuple[Text, ...]] = ()
    """A series; none: series from standard input."""
    json: bool = False
    """Write a line of JSON for each series."""


def main(argv: list[str]) -> None:
    """Answers every series in its turn."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    path = command.folder("folder", arguments.folder)
    text = " ".join(arguments.digits)
    some = not arguments.digits or SEPARATORS.sub("", text) != ""
    require(some, "digits", text, "at least one digit")
    lines = [text] if arguments.digits else stream()

    # Imported late, so that --help is quick.
    from sumrnn.devices import mesh
    from sumrnn.exchange.predictor import Predictor
    from sumrnn.runs.folder import RunFolder

    mesh.use_cores()
    record, params = RunFolder(path).network()
    task, answer = record.config.task, Predictor(params, record.config)
    others = 0
    if not arguments.json:
        print("probability  answer  sum  label")
    with progress.counted("series", shown=not arguments.digits) as show:
        for chunk in chunks(series(lines, task)):
            others += sum(len(digits) != task.length for digits in chunk)
            sys.stdout.write("".join(rows(chunk, answer(chunk), task, arguments.json)))
            show(len(chunk))
    sys.stdout.flush()
    if others:
        trained_on = f"the network was trained on {task.length} digits"
        console.say(f"note: {others:,} series of another length; {trained_on}")


def stream() -> Iterator[str]:
    """The lines of standard input, each up to a character more than `MAX_LINE`.

    Raises `UserError` if it is closed.
    """
    require(sys.stdin is not None, "digits", (), "given, because standard input is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):  # What is no text is no digit either.
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    return iter(lambda: sys.stdin.readline(MAX_LINE + 1), "")


def series(lines: Iterable[str], task: TaskConfig) -> Iterator[np.ndarray]:
    """The digits of each line that has any, uint8 [length].

    Raises `UserError` that names row and column of what is none of the task's digits.
    """
    known = {str(digit): digit for digit in range(task.low, task.high + 1)}
    for number, line in enumerate(lines, 1):
        words = [word for word in SEPARATORS.split(line) if word]
        if len(words) > MAX_LENGTH:
            raise UserError(f"row {number}: must have at most {MAX_LENGTH:,} digits")
        if len(line) > MAX_LINE:
            raise UserError(f"row {number}: must have at most {MAX_LINE:,} characters")
        try:
            digits = [known[word] for word in words]
        except KeyError as error:
            column = 1 + words.index(error.args[0])
            where = f"row {number}, column {column}"
            allowed = f"a digit from {task.low} to {task.high}"
            raise UserError(f"{where}: {error.args[0][:40]!r} must be {allowed}") from None
        if digits:
            yield np.array(digits, np.uint8)


def chunks(series: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """So many at a time that memory stays bounded."""
    while chunk := list(itertools.islice(series, CHUNK)):
        yield chunk


def rows(
    chunk: list[np.ndarray], probabilities: np.ndarray, task: TaskConfig, as_json: bool
) -> Iterator[str]:
    """A line for each series."""
    for digits, probability in zip(chunk, probabilities.tolist(), strict=True):
        total = int(digits.sum(dtype=int))
        answer, label = int(probability > 0.5), int(total >= task.threshold)
        if as_json:
            row = {"probability": probability, "answer": answer, "sum": total, "label": label}
            yield json.dumps(row) + "\n"
        else:
            yield f"{probability:11.7f}{answer:8}{total:5}{label:7}\n"
