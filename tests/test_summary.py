import csv
import dataclasses
import io
import json
import pathlib
import shutil
import warnings

import numpy as np
import pytest

from sumrnn import batch, figures, files, runs, statistics, summary
from sumrnn.signals import Stop
from tests.conftest import SMALL

SEEDS = (0, 1, 2)
EASY = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, learning_rate=1e-2))
EXPERIMENT = batch.Experiment(
    "pair",
    "Does a larger step help?",
    {"slow": SMALL, "fast": EASY},
    plots=("scores", "learning", "skew"),
    references={"fast": {"accuracy": 0.5, "tn": 3}},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("summary") / "pair"
    batch.open_folder(path, EXPERIMENT, SEEDS)
    batch.run(path, EXPERIMENT, SEEDS, Stop())
    summary.write(path)
    return path


def accuracies(folder: pathlib.Path, condition: str) -> np.ndarray:
    """From the predictions alone, with NumPy."""
    found = []
    for seed in SEEDS:
        with np.load(batch.run_folder(folder, condition, seed) / runs.PREDICTIONS) as arrays:
            found.append(np.mean((arrays["logits"] > 0) == arrays["labels"]))
    return np.array(found)


def test_the_table_has_a_row_per_condition_and_seed(folder: pathlib.Path) -> None:
    with (folder / summary.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], row["seed"]) for row in rows] == [
        (name, str(seed)) for name in ("slow", "fast") for seed in SEEDS
    ]
    assert {row["status"] for row in rows} == {"finished"}
    found = [float(row["accuracy"]) for row in rows]
    expected = np.concatenate([accuracies(folder, name) for name in ("slow", "fast")])
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    for row in rows:
        assert sum(int(row[cell]) for cell in ("tn", "fp", "fn", "tp")) == SMALL.task.test_size


def test_the_statistics_are_those_of_the_predictions(folder: pathlib.Path) -> None:
    found = json.loads((folder / summary.SUMMARY_JSON).read_text())
    slow, fast = (accuracies(folder, name) for name in ("slow", "fast"))
    described = found["conditions"]["fast"]["scores"]["accuracy"]
    assert described["mean"] == pytest.approx(fast.mean())
    assert described["std"] == pytest.approx(fast.std(ddof=1))
    (pair,) = found["differences"]
    assert (pair["first"], pair["second"]) == ("slow", "fast")
    assert pair["scores"]["accuracy"]["mean"] == pytest.approx((slow - fast).mean())
    place = found["conditions"]["fast"]["references"]["accuracy"]
    assert place == {
        "value": 0.5,
        "below": int((fast < 0.5).sum()),
        "equal": int((fast == 0.5).sum()),
        "above": int((fast > 0.5).sum()),
    }
    constants = []
    for seed in SEEDS:
        part = runs.load(batch.run_folder(folder, "fast", seed)).parts["test"]
        constants.append(max(part.labels.mean(), 1 - part.labels.mean()))
    assert found["conditions"]["fast"]["failed"] == int((fast <= np.array(constants)).sum())


def test_analysis_again_gives_the_same_bytes(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(folder, tmp_path / "again")
    rebuilt = (summary.TABLE, summary.SUMMARY_JSON, summary.SUMMARY_MD)
    files = [*rebuilt, *(f"{runs.FIGURES}/{name}.png" for name in EXPERIMENT.plots)]
    before = [(path / name).read_bytes() for name in files]
    for name in files:
        (path / name).unlink()
    summary.write(path)
    assert [(path / name).read_bytes() for name in files] == before


def test_missing_and_diverged_runs_are_counted(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(folder, tmp_path / "holes")
    shutil.rmtree(batch.run_folder(path, "slow", 0))
    gone = batch.run_folder(path, "fast", 2)
    (gone / runs.PREDICTIONS).unlink()
    (gone / runs.HISTORY).write_text(",".join(runs.COLUMNS) + "\n1,nan,0.5,0.5,0.5,0.1\n")
    runs.give_up(gone)
    found = summary.write(path)["conditions"]
    assert [found["slow"][name] for name in ("finished", "diverged", "unfinished")] == [2, 0, 1]
    assert [found["fast"][name] for name in ("finished", "diverged", "unfinished")] == [2, 1, 0]
    assert found["fast"]["failed"] >= 1
    text = (path / summary.SUMMARY_MD).read_text()
    assert "2 runs finished, 1 are missing" in text
    assert "2 runs finished, 1 diverged" in text
    assert "slow" in summary.overview(summary.build(summary.collect(path)), path)


def test_runs_that_collapsed_are_counted(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(folder, tmp_path / "collapsed")
    constant = batch.run_folder(path, "fast", 1)
    parts = runs.load(constant).parts
    parts = {
        name: dataclasses.replace(part, logits=-np.ones_like(part.logits))
        for name, part in parts.items()
    }
    runs.write_predictions(constant, parts)
    files.write_sums(constant, files.read_sums(constant))
    before, after = (summary.write(p)["conditions"]["fast"]["collapsed"] for p in (folder, path))
    assert after == before + 1
    told = f"{after} collapsed to one answer for every test series"
    assert told in (path / summary.SUMMARY_MD).read_text()


def test_a_batch_without_a_finished_run_has_a_summary(tmp_path: pathlib.Path) -> None:
    batch.open_folder(tmp_path, EXPERIMENT, SEEDS)
    summary.write(tmp_path)
    assert "No run has ended; 3 are missing." in (tmp_path / summary.SUMMARY_MD).read_text()
    assert json.loads((tmp_path / summary.SUMMARY_JSON).read_text())["conditions"]["slow"]


def test_a_run_of_something_else_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(folder, tmp_path / "swapped")
    other = batch.run_folder(path, "fast", 0)
    described = files.read_sealed(other / runs.CONFIG, runs.FORMAT)
    described["versions"] = described["versions"] | {"jax": "0.1"}
    files.write_sealed(other / runs.CONFIG, described)
    files.write_sums(other, files.read_sums(other))
    with pytest.raises(files.RunError, match=r"fast-seed0/config\.json: was made with other versi"):
        summary.collect(path)
    shutil.rmtree(other)
    shutil.copytree(batch.run_folder(path, "slow", 0), other)
    with pytest.raises(files.RunError, match=r"fast-seed0/config\.json: is another run"):
        summary.write(path)


def test_a_crossed_design_splits_the_variance(tmp_path: pathlib.Path) -> None:
    crossed = batch.Experiment(
        "crossed",
        "Whence?",
        {
            f"{data}-{init}": dataclasses.replace(EASY, data_seed=data, init_seed=init)
            for data in (0, 1)
            for init in (0, 1)
        },
        plots=("variance",),
    )
    batch.open_folder(tmp_path, crossed, (5, 6))
    batch.run(tmp_path, crossed, (5, 6), Stop())
    found = summary.write(tmp_path)
    split = found["variance"]["accuracy"]
    assert sum(part["share"] for part in split.values()) == pytest.approx(1)
    assert found["differences"] == []
    assert (tmp_path / runs.FIGURES / "variance.png").exists()
    shutil.rmtree(batch.run_folder(tmp_path, "0-1", 6))
    assert set(summary.write(tmp_path)["variance"].values()) == {None}


def test_figures_of_awkward_values_can_be_drawn() -> None:
    """All runs equal, a mean that rounding moves past its interval, rates of 0 and 1."""
    values = {"gain": {"a": np.array([0.1] * 3), "b": np.array([-0.2]), "c": np.array([])}}
    intervals: dict[str, dict[str, figures.Interval]] = {
        "gain": {
            name: (float(y.mean()) if y.size else None, statistics.bootstrap(y))
            for name, y in values["gain"].items()
        }
    }
    intervals["gain"]["a"] = (0.1 + 1e-16, [0.1, 0.1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = (
            figures.points(values, intervals, {"gain": {"b": 0.5}}, "awkward"),
            figures.skew({"a": 0.0, "b": 0.2, "c": 1.0}, values, intervals, "awkward"),
        )
        for figure in drawn:
            figure.savefig(io.BytesIO())
