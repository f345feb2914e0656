"""The numbers that a summary has of probes, beside the same from every series in plain NumPy."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from sumrnn.config import Config
from sumrnn.probes import errors
from sumrnn.report import probes
from sumrnn.study.experiment import Experiment
from sumrnn.study.table import Collection
from tests.conftest import SMALL

SERIES, RUNS = errors.SERIES, 6
PROBABILITIES = np.array([0.3, 0.1, 0.6])
"""Of the sums 7, 8 and 9; the threshold is 8."""


def collection(config: Config, rows: list[dict[str, Any]]) -> Collection:
    experiment = Experiment("probed", "Where?", {"a": config}, probes=("errors",))
    return Collection(experiment, tuple(range(RUNS)), {}, [], {}, probes={"errors": rows})


@pytest.fixture(scope="module")
def estimates() -> np.ndarray:
    """The estimated probabilities of label 1, float64 [runs, sums, series]."""
    random = np.random.default_rng(0)
    centers = np.array([-1.0, 0.5, 2.0])[None, :, None]
    logits = centers + random.normal(size=(RUNS, 3, SERIES))
    return np.asarray(1 / (1 + np.exp(-logits)))


def test_errors_are_counted_by_run_and_weighed_by_the_law(estimates: np.ndarray) -> None:
    config = dataclasses.replace(SMALL, task=dataclasses.replace(SMALL.task, threshold=8))
    wrong = (estimates > 0.5) != (np.arange(7, 10) >= 8)[None, :, None]
    bins = np.minimum((errors.BINS * estimates).astype(int), errors.BINS - 1)
    rows: list[dict[str, Any]] = []
    for run in range(RUNS):
        for place, value in enumerate((7.0, 8.0, 9.0)):
            inside = [bins[run, place] == k for k in range(errors.BINS)]
            rows.append(
                {"condition": "a", "seed": run, "first": value, "last": value}
                | {"probability": PROBABILITIES[place], "series": float(SERIES)}
                | {"wrong": float(wrong[run, place].sum())}
                | {"followed": float(wrong[run, place, :48] @ 2.0 ** np.arange(48))}
                | {f"count_{k}": float(x.sum()) for k, x in enumerate(inside)}
                | {f"confidence_{k}": estimates[run, place, x].sum() for k, x in enumerate(inside)}
            )
    found = probes.errors(collection(config, rows))["a"]
    assert found["error"] == pytest.approx(wrong.mean(axis=(0, 2)) @ PROBABILITIES)
    assert [rate["error"] for rate in found["rates"]] == pytest.approx(wrong.mean(axis=(0, 2)))
    weights = np.repeat(PROBABILITIES / SERIES, SERIES)
    labels = np.repeat([0.0, 1.0, 1.0], SERIES)
    distances = []
    for run in range(RUNS):
        place, estimate = bins[run].ravel(), estimates[run].ravel()
        gaps = [(weights * (estimate - labels))[place == k].sum() for k in range(errors.BINS)]
        distances.append(np.abs(gaps).sum())
    assert found["calibration_error"] == pytest.approx(np.mean(distances))
    followed = wrong[:, :, :48]
    both = [(a & b).mean(axis=1) @ PROBABILITIES for a, b in itertools.combinations(followed, 2)]
    most = [
        (np.sum(votes, axis=0) >= 3).mean(axis=1) @ PROBABILITIES
        for votes in itertools.combinations(followed, 5)
    ]
    assert found["shared_error"] == pytest.approx(np.mean(both))
    assert found["majority_error"] == pytest.approx(np.mean(most))
