"""Tables that are measured of the runs of an experiment: once, and as long as the run stands."""

import dataclasses
import pathlib
import unittest.mock
from collections.abc import Iterator
from typing import Any

import pytest

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.report import experiment as report
from sumrnn.runs.folder import PROBES
from sumrnn.runs.writer import RunWriter
from sumrnn.study import probe, table
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import SMALL, train_experiment

EXPERIMENT = Experiment(
    "probed",
    "How far?",
    {"a": SMALL},
    scores=("accuracy",),
    plots=("scores", "lengths"),
    probes=("lengths",),
)
measured: list[Config] = []


def measure(config: Config, params: Any) -> Iterator[dict[str, Any]]:
    """In the place of what takes a while."""
    measured.append(config)
    assert params["output"]["bias"].shape == (1,)
    for steps, accuracy in ((5, 0.75), (50, 0.123456789012)):
        yield {"steps": steps, "accuracy": accuracy, "balanced_accuracy": None}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[ExperimentFolder]:
    """A finished experiment of two runs."""
    train_experiment(tmp_path, EXPERIMENT, (1, 2))
    measured.clear()
    with unittest.mock.patch.dict(probe.MEASURES, {"lengths": measure}):
        yield ExperimentFolder(tmp_path)


def test_a_run_is_measured_once_and_its_table_reported(folder: ExperimentFolder) -> None:
    told: list[Any] = []
    probe.measure(folder, lambda *words: told.append(words))
    probe.measure(folder, lambda *words: told.append(words))
    assert measured == [SMALL, SMALL]
    assert [(words[0][1], *words[1:]) for words in told] == [
        ("a with seed 1", 0, 2),
        ("a with seed 2", 1, 2),
    ]
    rows = probe.read(folder)["lengths"]
    assert [(row["condition"], row["seed"], row["steps"]) for row in rows] == [
        ("a", seed, steps) for seed in (1, 2) for steps in (5, 50)
    ]
    assert rows[1]["accuracy"] == 0.123456789
    assert rows[1]["balanced_accuracy"] is None
    summary = report.write(folder)
    points = summary["lengths"]["a"]
    assert [point["steps"] for point in points] == [5, 50]
    assert points[0]["accuracy"]["mean"] == 0.75
    assert points[0]["balanced_accuracy"]["runs"] == 0
    header = "condition,seed,steps,accuracy,balanced_accuracy"
    lines = (folder.path / "lengths.csv").read_text().splitlines()
    assert lines[:2] == [header, "a,1,5,0.75,"]
    assert (folder.path / "figures" / "lengths.png").exists()
    text = (folder.path / "summary.md").read_text()
    assert "| a | 0.7500 (0.7500) | 0.1235 (0.1235) |" in text


def test_a_table_goes_with_its_run(folder: ExperimentFolder) -> None:
    probe.measure(folder)
    run = folder.run("a", 1)
    more = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=9))
    epochs = run.checkpoints.epochs()
    with run.lock():
        RunWriter(run).restore(more, 1, max(epochs))
    assert not (run.path / PROBES).exists()
    with run.lock():
        RunWriter(folder.run("a", 2)).begin(SMALL, 2, "a")
    assert not (folder.run("a", 2).path / PROBES).exists()
    assert probe.read(folder) == {"lengths": []}


def test_lengths_of_other_tasks_have_a_table_of_their_own(folder: ExperimentFolder) -> None:
    runs = table.collect(folder)
    rows = [
        {"condition": name, "seed": 1, "steps": steps, "accuracy": 0.5, "balanced_accuracy": None}
        for name, steps in (("a", 5), ("a", 50), ("b", 7))
    ]
    both = dataclasses.replace(
        runs.experiment, conditions={"a": SMALL, "b": SMALL}, plots=("scores",)
    )
    runs = dataclasses.replace(runs, experiment=both, probes={"lengths": rows})
    text = report.markdown(report.build(runs), ("accuracy",), ())
    heads = [line for line in text.splitlines() if line.startswith("| condition")]
    assert heads == ["| condition | 5 steps | 50 steps |", "| condition | 7 steps |"]
    assert "| a | 0.5000 (0.5000) | 0.5000 (0.5000) |\n\n| condition | 7 steps |" in text


def test_digits_are_reported_as_they_are_and_with_the_bias_moved(folder: ExperimentFolder) -> None:
    runs = table.collect(folder)
    rows = [
        {"condition": "a", "seed": seed, "digits": 5, "threshold": 8}
        | {"balanced_accuracy": value, "moved_balanced_accuracy": 0.75, "roc_auc": 1.0}
        for seed, value in ((1, 0.5), (2, 0.625))
    ]
    text = report.markdown(
        report.build(dataclasses.replace(runs, probes={"digits": rows})), ("accuracy",), ()
    )
    assert "| condition | 5 digits |\n| --- | ---: |\n| a | 0.562 (0.750) |\n" in text


def test_a_table_has_all_bits_of_integers() -> None:
    rows = [{"bits": float(2**48 - 1), "share": 1 / 3, "none": None, "count": 7}]
    assert probe.to_csv(rows) == "bits,share,none,count\n281474976710655,0.333333333,,7\n"


def test_without_a_table_the_report_does_without(folder: ExperimentFolder) -> None:
    summary = report.write(folder)
    assert summary["lengths"] == {}
    assert not (folder.path / "figures" / "lengths.png").exists()


@pytest.mark.parametrize("damage", ["three quarters", "0.75,1", ""])
def test_a_damaged_table_is_named(folder: ExperimentFolder, damage: str) -> None:
    probe.measure(folder)
    file = folder.run("a", 2).path / PROBES / "lengths.csv"
    file.write_text(file.read_text().replace("0.75,", f"{damage},") if damage else "")
    with pytest.raises(UserError, match=r"a-seed2/probes/lengths\.csv: damaged"):
        probe.read(folder)
