"""The report of one run: its numbers, and what they are told with."""

import dataclasses
import json
import pathlib
import re
import warnings
from typing import Any

import numpy as np
import pytest

from sumrnn.config import Config, TaskConfig
from sumrnn.presets import PRESETS
from sumrnn.report import run as report
from sumrnn.runs import files
from sumrnn.runs.record import Record
from sumrnn.runs.results import Part, Run
from sumrnn.scores.strata import Counts, task_strata
from sumrnn.task import sum_law

COMMITTED = pathlib.Path(__file__).parents[2] / "experiments" / "reproduce"
SHEET, NOTEBOOK, EVEN = PRESETS["sheet"], PRESETS["notebook"], TaskConfig(threshold=135)


def make_run(task: TaskConfig, wrong: int = 4, seed: int = 0, **changed: Any) -> Run:
    """A run whose network errs on the `wrong` series nearest to the threshold."""
    rng = np.random.default_rng(seed)
    sizes = {"train": task.train_size, "validation": task.validation_size, "test": task.test_size}
    parts = {}
    for name, size in sizes.items():
        digits = rng.integers(task.low, task.high + 1, (size, task.length)).astype(np.uint8)
        margin = digits.sum(axis=1, dtype=np.int64) - task.threshold + 0.5
        logits = margin.astype(np.float32) / 4
        logits[np.argsort(np.abs(margin), kind="stable")[:wrong]] *= -1
        parts[name] = Part(digits, (margin > 0).astype(np.uint8), logits)
    config = Config(task)
    epochs = np.arange(1, config.train.epochs + 1)
    history = {"epoch": epochs, "seconds": np.ones(len(epochs))} | dict.fromkeys(
        ("loss", "val_loss", "accuracy", "val_accuracy"), 1 / epochs
    )
    record = Record("sheet", seed, config, {"jax": "0"}, {"kind": "cpu"}, {}, **changed)
    series = np.full(len(task_strata(task).labels), 500)
    return Run(record, history, parts, Counts(series, rng.binomial(series, 0.01)))


def with_test(run: Run, test: Part) -> Run:
    return dataclasses.replace(run, parts=run.parts | {"test": test})


def text_of(task: TaskConfig, wrong: int = 4) -> str:
    return report.markdown(report.build(make_run(task, wrong)))


@pytest.mark.parametrize("name", ["sheet-seed12", "notebook-seed12"])
def test_a_committed_report_is_that_of_its_numbers(name: str) -> None:
    numbers = json.loads((COMMITTED / name / "report.json").read_text())
    text = (COMMITTED / name / "report.md").read_text(encoding="utf-8")
    assert report.markdown(numbers) == text


def test_names_and_numbers() -> None:
    run = make_run(SHEET)
    built = json.loads(files.to_json(report.build(run)))
    test = built["test"]
    assert test["accuracy"] == pytest.approx(1 - 4 / 2_000)
    assert sum(test["confusion"].values()) == test["size"] == 2_000
    assert test["majority_accuracy"] == pytest.approx(run.parts["test"].labels.mean())
    assert built["task"]["positive_rate"] == sum_law(SHEET).positive_rate
    assert test["expected_positives"] == pytest.approx(2_000 * built["task"]["positive_rate"])
    assert built["run"]["config"] == dataclasses.asdict(run.record.config)
    committed = json.loads((COMMITTED / "sheet-seed12" / "report.json").read_text())
    assert [*built] == [*committed]
    for section in ("run", "task", "test", "exact"):
        assert [*built[section]] == [*committed[section]]


@pytest.mark.parametrize(
    ("task", "wrong", "told", "not_told"),
    [
        (SHEET, 4, ["98.83 %", "trust no single seed"], ["unusual", "continued", "collapsed"]),
        (NOTEBOOK, 4, ["92.61 %", "scores by class are usable"], []),
        (EVEN, 4, ["fair first measure"], ["misleads"]),
        (SHEET, 100, ["does not beat the constant answer"], []),
        (SHEET, 12, ["which chance could explain"], []),
        (
            TaskConfig(threshold=160),
            4,
            ["average precision, positive (the minority)", "negatives for every positive"],
            [],
        ),
        # One sign stands for minus, in the table of scores and in that of small p-values.
        (EVEN, 1_500, ["errors avoided | −5", "Matthews correlation | −0."], [r"-\d"]),
    ],
)
def test_the_discussion_is_written_from_the_numbers(
    task: TaskConfig, wrong: int, told: list[str], not_told: list[str]
) -> None:
    text = text_of(task, wrong)
    assert [words for words in told if words not in text] == []
    assert [pattern for pattern in not_told if re.search(pattern, text)] == []


def test_an_unusual_test_set_is_told() -> None:
    run = make_run(SHEET)
    test = run.parts["test"]
    kept = np.flatnonzero(test.labels | (np.arange(2_000) % 4 == 0))
    part = Part(test.digits[kept], test.labels[kept], test.logits[kept])
    built = report.build(with_test(run, part))
    assert built["test"]["p_value"] < 0.05
    assert "This test set is itself unusual: 1,9" in report.markdown(built)


@pytest.mark.parametrize("threshold", [0, 100, pytest.param(270, marks=pytest.mark.slow)])
def test_every_report_can_be_written_and_drawn(threshold: int) -> None:
    """Also where a class is absent, without a warning, and nothing outside the picture."""
    run = make_run(TaskConfig(threshold=threshold), wrong=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = report.build(run)
        text = report.markdown(built)
        for name, draw in report.FIGURES.items():
            figure = draw(run, built)
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(box.x0, box.y0) >= 0, name
            assert box.x1 <= width, name
            assert box.y1 <= height, name
    assert set(report.figures(built)) == set(report.FIGURES) == set(report.captions(run, built))
    files.to_json(built)
    assert "nan" not in text.lower().split()
    if threshold != 100:
        assert built["test"]["balanced_accuracy"] is None
        assert "* `test.balanced_accuracy`: no label is" in text
        assert "balanced accuracy | undefined |" in text
        assert "with a class absent" in text


def test_an_error_rate_of_0_is_a_mark_and_an_interval_no_bar() -> None:
    run = make_run(SHEET, wrong=0)
    (ax,) = report.FIGURES["errors"](run, report.build(run)).axes
    assert not ax.patches
    rates = [bars.lines[0] for bars in ax.containers]
    assert {line.get_marker() for line in rates} == {"s", "o"}  # Classes without their colours.
    assert all((line.get_ydata() == 0).all() and ax.get_ylim()[0] < 0 for line in rates)
    assert "error rate, 0 everywhere" in ax.get_title()


def test_numbers_in_sentences_have_the_digits_that_they_need() -> None:
    """Shares of one sentence alike; short times in seconds."""
    built = report.build(make_run(SHEET))
    built["test"]["recall"]["positive"] = 0.999996
    built["run"]["seconds"] = 0.1
    text = report.markdown(built)
    assert re.search(
        r"error rate of \d+\.\d\d %; of 1,\d{3} positives it misses \d+, 0.0004 %", text
    )
    assert f"it avoids {100 * built['test']['skill']:.2f} % of" in text
    assert " 0.10 s on cpu" in text


def test_the_overview_has_what_matters(tmp_path: pathlib.Path) -> None:
    built = report.build(make_run(SHEET))
    text, cells = report.overview(built, tmp_path), built["test"]["confusion"]
    assert f"TN {cells['tn']}" in text
    assert f"TP {cells['tp']:,}" in text
    for words in ("99.80 %", "by the law 98.83 %", "report.html"):
        assert words in text
    assert "collapsed" not in text


def test_what_is_seen_in_a_picture_is_said_with_the_numbers_of_the_report() -> None:
    run = make_run(SHEET, wrong=9)
    said, labels = report.captions(run, report.build(run)), run.parts["test"].labels
    assert f"{2_000 - 9:,} are answered rightly (99.55 %)" in said["confusion"]
    assert f"of {labels.sum():,} with sum ≥ 100" in said["confusion"]
    assert said["errors"].startswith("The test series that are answered wrongly, 9 of 2,000, have")
    total = sum(int((part.labels == 0).sum()) for part in run.parts.values())
    assert f"{total} have a sum < 100; the exact law expects 117.5" in said["sums"]
    run = make_run(SHEET, wrong=0)
    assert "Not one of 2,000" in report.captions(run, report.build(run))["errors"]


def test_a_collapse_is_told(tmp_path: pathlib.Path) -> None:
    run = make_run(SHEET)
    test = dataclasses.replace(run.parts["test"], logits=np.ones(2_000, np.float32))
    built = report.build(with_test(run, test))
    told = "It collapsed: its answer to all 2,000 test series is sum ≥ 100."
    assert told in report.overview(built, tmp_path).splitlines()
    assert told in report.markdown(built).splitlines()


def test_a_run_that_went_on_elsewhere_says_so() -> None:
    made: Any = {"versions": {"jax": "1"}, "device": {"kind": "gpu"}, "settings": {}, "epoch": 3}
    text = report.markdown(report.build(make_run(SHEET, continued=(made,))))
    assert "continued on another kind of processor" in text
