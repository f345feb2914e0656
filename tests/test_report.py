import dataclasses
import json
import pathlib
import warnings

import numpy as np
import pytest

from sumrnn import files, report
from sumrnn import task as task_lib
from sumrnn.config import PRESETS, Config, TaskConfig
from sumrnn.runs import Part, Run


def make_run(task: TaskConfig, wrong: int = 4, seed: int = 0) -> Run:
    """A run whose network errs on the `wrong` series nearest to the threshold."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name, size in (
        ("train", task.train_size),
        ("validation", task.validation_size),
        ("test", task.test_size),
    ):
        digits = rng.integers(task.low, task.high + 1, (size, task.length)).astype(np.uint8)
        margin = digits.sum(axis=1, dtype=np.int64) - task.threshold + 0.5
        logits = margin.astype(np.float32) / 4
        nearest = np.argsort(np.abs(margin), kind="stable")[:wrong]
        logits[nearest] *= -1
        parts[name] = Part(digits, (margin > 0).astype(np.uint8), logits)
    config = Config(task)
    epochs = np.arange(1, config.train.epochs + 1)
    history = {"epoch": epochs, "seconds": np.ones(len(epochs))} | dict.fromkeys(
        ("loss", "val_loss", "accuracy", "val_accuracy"), 1 / epochs
    )
    return Run(config, seed, "sheet", {"jax": "0"}, {"kind": "cpu"}, history, parts)


@pytest.mark.parametrize("name", PRESETS)
def test_names_and_numbers(name: str) -> None:
    run = make_run(PRESETS[name])
    built = json.loads(files.to_json(report.build(run)))
    test, part = built["test"], run.parts["test"]
    assert test["accuracy"] == pytest.approx(1 - 4 / 2_000)
    assert set(test["confusion"]) == {"tn", "fp", "fn", "tp"}
    assert sum(test["confusion"].values()) == test["size"] == 2_000
    assert test["majority_accuracy"] == pytest.approx(part.labels.mean())
    assert built["task"]["positive_rate"] == task_lib.law(PRESETS[name]).positive_rate
    assert test["expected_positives"] == pytest.approx(2_000 * built["task"]["positive_rate"])
    for split in ("train", "validation"):
        assert built[split]["size"] == len(run.parts[split].labels)


def text_of(task: TaskConfig, wrong: int = 4) -> str:
    return report.discussion(report.build(make_run(task, wrong)))


def test_the_discussion_is_written_from_the_numbers() -> None:
    sheet, notebook = text_of(PRESETS["sheet"]), text_of(PRESETS["notebook"])
    assert "98.83 %" in sheet
    assert "trust no single seed" in sheet
    assert "92.61 %" in notebook
    assert "scores by class are usable" in notebook
    even = text_of(TaskConfig(threshold=135))
    assert "fair first measure" in even
    assert "misleads" not in even
    assert "does not beat the constant answer" in text_of(PRESETS["sheet"], wrong=100)
    assert "which chance could explain" in text_of(PRESETS["sheet"], wrong=12)


def test_the_minority_may_be_the_positives() -> None:
    rare = report.build(make_run(TaskConfig(threshold=160)))
    assert (rare["task"]["majority_class"], rare["task"]["minority_class"]) == (0, 1)
    assert "average precision, positive (the minority)" in report.markdown(rare)
    assert "negatives for every positive" in report.discussion(rare)


@pytest.mark.parametrize("threshold", [0, 100, 270])
def test_every_report_can_be_written_and_drawn(threshold: int) -> None:
    """Also where a class is absent, without a warning."""
    run = make_run(TaskConfig(threshold=threshold), wrong=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = report.build(run)
        text = report.markdown(built)
        drawn = report.draw(run, built)
        for figure in drawn.values():
            figure.draw_without_rendering()
    assert set(drawn) == set(report.FIGURES)
    files.to_json(built)
    assert "nan" not in text.lower().split()
    if threshold != 100:
        assert built["test"]["balanced_accuracy"] is None
        assert "* `test.balanced_accuracy`: no label is" in text
        assert "with a class absent" in report.discussion(built)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_is_drawn_outside_the_picture(name: str) -> None:
    run = make_run(PRESETS[name])
    for title, figure in report.draw(run, report.build(run)).items():
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0) >= 0, title
        assert drawn.x1 <= width, title
        assert drawn.y1 <= height, title


def test_the_summary_has_what_matters(tmp_path: pathlib.Path) -> None:
    built = report.build(make_run(PRESETS["sheet"]))
    text = report.summary(built, tmp_path)
    cells = built["test"]["confusion"]
    for shown in ("99.80 %", "98.8250 %", f"TN {cells['tn']}", f"TP {cells['tp']:,}", "report.md"):
        assert shown in text


def test_a_collapse_is_told(tmp_path: pathlib.Path) -> None:
    run = make_run(PRESETS["sheet"])
    test = dataclasses.replace(run.parts["test"], logits=np.ones(2_000, np.float32))
    built = report.build(dataclasses.replace(run, parts=run.parts | {"test": test}))
    told = "It collapsed: its answer to all 2,000 test series is sum ≥ 100."
    assert told in report.summary(built, tmp_path)
    assert told in report.markdown(built)
    assert "collapsed" not in report.summary(report.build(run), tmp_path)


def test_a_changed_seed_changes_the_report() -> None:
    first, second = (report.build(make_run(PRESETS["sheet"], seed=seed)) for seed in (0, 1))
    assert first["test"] != second["test"]
    assert dataclasses.asdict(make_run(PRESETS["sheet"]).config) == first["run"]["config"]
