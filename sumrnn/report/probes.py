"""The numbers of an experiment's summary that come from probes: functions of its runs.

Each is by condition, under the names of summary.json; a condition without a table is left out.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from sumrnn.probes import cells as probed_cells
from sumrnn.probes import digits as probed_digits
from sumrnn.probes import errors as probed_errors
from sumrnn.probes import lengths as probed_lengths
from sumrnn.scores import errors as scores
from sumrnn.scores import statistics
from sumrnn.study.probe import Rows
from sumrnn.study.table import Collection


def _tables(runs: Collection, probe: str) -> dict[str, Rows]:
    """The rows of each condition that has some."""
    tables: dict[str, Rows] = {name: [] for name in runs.experiment.conditions}
    for row in runs.probes[probe]:
        tables[row["condition"]].append(row)
    return {name: rows for name, rows in tables.items() if rows}


def _described(rows: Iterable[Mapping[str, Any]], column: str) -> dict[str, Any]:
    """The location and spread of a column's values, where they are defined."""
    values = [row[column] for row in rows if row[column] is not None]
    return statistics.describe(np.array(values, float))


def lengths(runs: Collection) -> dict[str, Any]:
    """For each number of steps: `steps`, and each score over the runs."""
    return _along(runs, "lengths", "steps", scores=probed_lengths.SCORES)


def digits(runs: Collection) -> dict[str, Any]:
    """For each number of digits: `digits`, and each score over the runs."""
    return _along(runs, "digits", "digits", scores=probed_digits.SCORES)


def _along(
    runs: Collection, probe: str, column: str, *, scores: tuple[str, ...]
) -> dict[str, list[dict[str, Any]]]:
    """For each value of a probe's column: that value, and each score over the runs."""
    described = {}
    for name, rows in _tables(runs, probe).items():
        described[name] = [
            {column: int(value)}
            | {
                score: _described((row for row in rows if row[column] == value), score)
                for score in scores
            }
            for value in dict.fromkeys(row[column] for row in rows)
        ]
    return described


def cells(runs: Collection) -> dict[str, Any]:
    """The readings of the last step over the runs, by `probes.cells.SCORES`."""
    described = {}
    for name, rows in _tables(runs, "cells").items():
        length = runs.experiment.conditions[name].task.length
        last = [row for row in rows if row["step"] == length]
        described[name] = {score: _described(last, score) for score in probed_cells.SCORES}
    return described


def errors(runs: Collection) -> dict[str, Any]:
    """Blur and calibration over the runs, and errors of one network, of two, and of a majority."""
    described = {}
    for name, rows in _tables(runs, "errors").items():
        seeds = dict.fromkeys(row["seed"] for row in rows)
        table = {
            column: np.array([row[column] for row in rows]).reshape(len(seeds), -1)
            for column in rows[0].keys() - {"condition"}
        }
        threshold = runs.experiment.conditions[name].task.threshold
        described[name] = {
            **_blur(table, threshold),
            **_calibration(table, threshold),
            **_agreement(table),
        }
    return described


def _blur(table: Mapping[str, np.ndarray], threshold: int) -> dict[str, Any]:
    """The error rate of each sum that stands alone, and the blur of each run that has one."""
    single = table["first"][0] == table["last"][0]
    sums, series, wrong = (table[name][:, single] for name in ("first", "series", "wrong"))
    yes = np.where(sums >= threshold, series - wrong, wrong)
    found = [scores.blur(*row) for row in zip(sums, yes, series, strict=True)]
    blurs = [blur._asdict() for blur in found if blur is not None]
    rates = (wrong / series).mean(axis=0)
    return {
        "rates": [
            {"sum": int(value), "error": float(rate)}
            for value, rate in zip(sums[0], rates, strict=True)
        ],
        **{name: _described(blurs, name) for name in scores.Blur._fields},
    }


def _calibration(table: Mapping[str, np.ndarray], threshold: int) -> dict[str, Any]:
    """The reliability of the runs' confidences together, and their mean calibration error."""
    counts, confidences = (
        np.stack([table[f"{column}_{k}"] for k in range(probed_errors.BINS)], axis=-1)
        for column in ("count", "confidence")
    )
    probabilities, series = table["probability"][0], table["series"]
    labels = (table["first"][0] >= threshold).astype(int)
    each = [
        scores.calibration(probabilities / size, count, confidence, labels)
        for size, count, confidence in zip(series, counts, confidences, strict=True)
    ]
    errors = [np.nansum(shares * np.abs(estimates - rates)) for shares, estimates, rates in each]
    every = scores.calibration(
        probabilities / series.sum(axis=0), counts.sum(axis=0), confidences.sum(axis=0), labels
    )
    rows = zip(*(values.tolist() for values in every), strict=True)
    return {
        "reliability": [
            {"share": share, "estimate": estimate, "positive_rate": rate}
            for share, estimate, rate in rows
            if share
        ],
        "calibration_error": float(np.mean(errors)),
    }


def _agreement(table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The error of one network, of two on the same series, and of a majority; None of too few.

    The latter two are of the series that are followed, the first of all.
    """
    bits = 2 ** np.arange(probed_errors.FOLLOWED)
    wrong = (table["followed"].astype(np.int64)[..., None] & bits) > 0
    probabilities, runs = table["probability"][0], len(wrong)

    def total(shares: np.ndarray) -> float:
        """The probability of what has these shares, float [rows, series]."""
        return float(shares.mean(axis=1) @ probabilities)

    return {
        "error": float((table["wrong"] / table["series"]).mean(axis=0) @ probabilities),
        "shared_error": total(scores.shared_error_rates(wrong)) if runs > 1 else None,
        "majority_error": total(scores.majority_error_rates(wrong))
        if runs >= scores.VOTERS
        else None,
    }


SUMMARIES: dict[str, Callable[[Collection], dict[str, Any]]] = {
    function.__name__: function for function in (lengths, digits, cells, errors)
}
"""By their names, which are those of `study.experiment.PROBES`."""
