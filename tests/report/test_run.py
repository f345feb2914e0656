import dataclasses
import json
import pathlib
import re
import warnings
from typing import Any

import numpy as np
import pytest

from sumrnn.config import PRESETS, Config, TaskConfig
from sumrnn.report import run as report
from sumrnn.runs import files
from sumrnn.runs.record import Record
from sumrnn.runs.results import Part, Run
from sumrnn.scores.strata import Counts, strata
from sumrnn.task import sum_law

COMMITTED = pathlib.Path(__file__).parents[2] / "experiments" / "reproduce"
SHEET = PRESETS["sheet"]


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
    series = np.full(len(strata(task).masses), 500)
    return Run(record, history, parts, Counts(series, rng.binomial(series, 0.01)))


def text_of(task: TaskConfig, wrong: int = 4) -> str:
    return report.markdown(report.build(make_run(task, wrong)))


@pytest.mark.parametrize("name", ["sheet-seed12", "notebook-seed12"])
def test_a_committed_report_is_that_of_its_numbers(name: str) -> None:
    numbers = json.loads((COMMITTED / name / "report.json").read_text())
    text = (COMMITTED / name / "report.md").read_text(encoding="utf-8")
    assert report.markdown(numbers) == text


@pytest.mark.parametrize("name", PRESETS)
def test_names_and_numbers(name: str) -> None:
    run = make_run(PRESETS[name])
    built = json.loads(files.to_json(report.build(run)))
    test, part = built["test"], run.parts["test"]
    assert test["accuracy"] == pytest.approx(1 - 4 / 2_000)
    assert set(test["confusion"]) == {"tn", "fp", "fn", "tp"}
    assert sum(test["confusion"].values()) == test["size"] == 2_000
    assert test["majority_accuracy"] == pytest.approx(part.labels.mean())
    assert built["task"]["positive_rate"] == sum_law(PRESETS[name]).positive_rate
    assert test["expected_positives"] == pytest.approx(2_000 * built["task"]["positive_rate"])
    for split in ("train", "validation"):
        assert built[split]["size"] == len(run.parts[split].labels)
    committed = json.loads((COMMITTED / f"{name}-seed12" / "report.json").read_text())
    for part in (None, "run", "task", "test", "exact"):
        ours, theirs = (of if part is None else of[part] for of in (built, committed))
        assert [*ours] == [*theirs]
    assert built["run"]["config"] == dataclasses.asdict(run.record.config)
    assert report.build(make_run(PRESETS[name], seed=1))["test"] != test


def test_the_discussion_is_written_from_the_numbers() -> None:
    sheet, notebook = text_of(SHEET), text_of(PRESETS["notebook"])
    assert "98.83 %" in sheet
    assert "trust no single seed" in sheet
    assert "92.61 %" in notebook
    assert "scores by class are usable" in notebook
    even = text_of(TaskConfig(threshold=135))
    assert "fair first measure" in even
    assert "misleads" not in even
    assert "does not beat the constant answer" in text_of(SHEET, wrong=100)
    assert "which chance could explain" in text_of(SHEET, wrong=12)


def test_an_unusual_test_set_is_told() -> None:
    run = make_run(SHEET)
    few = run.parts["test"]
    kept = np.flatnonzero(few.labels | (np.arange(2_000) % 4 == 0))
    test = Part(few.digits[kept], few.labels[kept], few.logits[kept])
    built = report.build(dataclasses.replace(run, parts=run.parts | {"test": test}))
    assert built["test"]["p_value"] < 0.05
    assert "This test set is itself unusual: 1,9" in report.markdown(built)
    assert "unusual" not in text_of(SHEET)


def test_the_minority_may_be_the_positives() -> None:
    text = text_of(TaskConfig(threshold=160))
    assert "average precision, positive (the minority)" in text
    assert "negatives for every positive" in text


def test_one_sign_stands_for_minus() -> None:
    """Skill and correlation below zero stand in one table, small p-values in another."""
    text = text_of(TaskConfig(threshold=135), wrong=1_500)
    assert "errors avoided | −5" in text
    assert "Matthews correlation | −0." in text
    numbers = "".join(line for line in text.splitlines() if "---" not in line)
    assert not any(f"-{digit}" in numbers for digit in "0123456789")


@pytest.mark.parametrize("threshold", [0, 100, 270])
def test_every_report_can_be_written_and_drawn(threshold: int) -> None:
    """Also where a class is absent, without a warning, and nothing outside the picture."""
    run = make_run(TaskConfig(threshold=threshold), wrong=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = report.build(run)
        text = report.markdown(built)
        drawn = report.draw(run, built)
        for title, draw in drawn.items():
            figure = draw()
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(box.x0, box.y0) >= 0, title
            assert box.x1 <= width, title
            assert box.y1 <= height, title
    assert set(drawn) == set(report.FIGURES) == set(report.captions(run, built))
    files.to_json(built)
    assert "nan" not in text.lower().split()
    if threshold != 100:
        assert built["test"]["balanced_accuracy"] is None
        assert "* `test.balanced_accuracy`: no label is" in text
        assert "balanced accuracy | undefined |" in text
        assert "with a class absent" in text


def test_an_error_rate_of_0_is_a_mark_and_an_interval_no_bar() -> None:
    run = make_run(SHEET, wrong=0)
    (ax,) = report.draw(run, report.build(run))["errors"]().axes
    assert not ax.patches
    rates = [bars.lines[0] for bars in ax.containers]
    assert {line.get_marker() for line in rates} == {"s", "o"}  # Classes without their colours.
    assert all(line.get_ydata() == 0 > ax.get_ylim()[0] for line in rates)
    assert "error rate, 0 everywhere" in ax.get_title()


def test_a_sentence_has_shares_with_the_same_digits() -> None:
    built = report.build(make_run(SHEET))
    built["test"]["recall"]["positive"] = 0.999996
    text = report.markdown(built)
    assert re.search(
        r"error rate of \d+\.\d\d %; of 1,\d{3} positives it misses \d+, 0.0004 %", text
    )
    avoided = f"it avoids {100 * built['test']['skill']:.2f} % of"
    assert avoided in text


def test_short_times_are_told_in_seconds() -> None:
    built = report.build(make_run(SHEET))
    built["run"]["seconds"] = 0.1
    assert " 0.10 s on cpu" in report.markdown(built)


def test_the_overview_has_what_matters(tmp_path: pathlib.Path) -> None:
    built = report.build(make_run(SHEET))
    text = report.overview(built, tmp_path)
    cells = built["test"]["confusion"]
    for shown in (
        "99.80 %",
        "by the law 98.83 %",
        f"TN {cells['tn']}",
        f"TP {cells['tp']:,}",
        "report.html",
    ):
        assert shown in text


def test_a_collapse_is_told(tmp_path: pathlib.Path) -> None:
    run = make_run(SHEET)
    test = dataclasses.replace(run.parts["test"], logits=np.ones(2_000, np.float32))
    built = report.build(dataclasses.replace(run, parts=run.parts | {"test": test}))
    told = "It collapsed: its answer to all 2,000 test series is sum ≥ 100."
    assert told in report.overview(built, tmp_path).splitlines()
    assert told in report.markdown(built).splitlines()
    assert "collapsed" not in report.overview(report.build(run), tmp_path)


def test_a_run_that_went_on_elsewhere_says_so() -> None:
    made: Any = {"versions": {"jax": "1"}, "device": {"kind": "gpu"}, "settings": {}, "epoch": 3}
    text = report.markdown(report.build(make_run(SHEET, continued=(made,))))
    assert "continued on another kind of processor" in text
    assert "continued" not in text_of(SHEET)
