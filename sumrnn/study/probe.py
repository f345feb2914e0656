"""The probes of an experiment: what its declaration asks to be measured of each finished run.

A table is measured once, is kept in the folder of its run, and goes with the run.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sumrnn.config import Config
from sumrnn.devices import compiler
from sumrnn.models.network import Params
from sumrnn.probes import cells, digits, errors, lengths
from sumrnn.study.folder import ExperimentFolder

Rows = list[dict[str, Any]]
MEASURES: dict[str, Callable[[Config, Params], Iterator[dict[str, Any]]]] = {
    "lengths": lengths.measure,
    "digits": digits.measure,
    "cells": cells.measure,
    "errors": errors.measure,
}
"""By their names, which are those of `study.experiment.PROBES`."""


def measure(
    folder: ExperimentFolder, view: Callable[[list[str], int, int], None] = lambda *_: None
) -> None:
    """Measures what the finished runs of an experiment lack.

    `view` is told, before each table, what it is, how many are done, and how many there are.

    Raises `UserError` if the last checkpoint of such a run is missing or damaged, or its folder
    cannot be written.
    """
    declared = folder.read()
    specs = folder.specs(declared.experiment, declared.seeds)
    missing = [
        (name, spec)
        for name in declared.experiment.probes
        for spec in specs
        if spec.folder.status() == "finished" and spec.folder.read_table(name) is None
    ]
    for number, (name, spec) in enumerate(missing, 1):
        words = [f"measuring {name} {number}/{len(missing)}", f"{spec.name} with seed {spec.seed}"]
        view(words, number - 1, len(missing))
        record, params = spec.folder.network()
        with compiler.pinned():  # The same digits whatever the environment says.
            rows = list(MEASURES[name](record.config, params))
        spec.folder.write_table(name, to_csv(rows))


def read(folder: ExperimentFolder) -> dict[str, Rows]:
    """The tables of an experiment by probe, each of all runs that have it.

    Rows have `condition` and `seed`, and then what was measured: numbers, None where undefined.
    Raises `UserError` if a table is damaged.
    """
    declared = folder.read()
    tables: dict[str, Rows] = {}
    for name in declared.experiment.probes:
        tables[name] = [
            {"condition": spec.name, "seed": spec.seed, **row}
            for spec in folder.specs(declared.experiment, declared.seeds)
            for row in spec.folder.read_table(name) or ()
        ]
    return tables


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A table as text: nine digits, integers in full, and nothing where a value is undefined.

    It has these columns, or without them those of the first row.
    """
    text = io.StringIO()
    columns = list(rows[0] if rows else ()) if columns is None else columns
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """What a table has of a value: floats that are integers in all their digits, such as bits."""
    if not isinstance(value, float):
        return value
    return f"{value + 0.0:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.9g}"
