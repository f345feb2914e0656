import contextlib
import csv
import dataclasses
import io
import itertools
import json
import pathlib
import re
import types
import unittest.mock
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.errors import UserError
from sumrnn.report import batch as report
from sumrnn.report import batch_figures as figures
from sumrnn.runs import files
from sumrnn.runs.folder import REPORT_HTML
from sumrnn.runs.record import Record
from sumrnn.runs.results import Part, Run
from sumrnn.scores import statistics
from sumrnn.study import table
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import Batch

COMMITTED = pathlib.Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.parent.name for path in COMMITTED.glob("*/summary.json"))
SEEDS = (0, 1, 2)
SMALL = Config(
    TaskConfig(size=200, length=5, high=3, threshold=8),
    ModelConfig(cells=8),
    TrainConfig(epochs=2, batch_size=50),
)
EASY = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, learning_rate=1e-2))
EXPERIMENT = Experiment(
    "pair",
    "Does a larger step help?",
    {"slow": SMALL, "fast": EASY},
    plots=("scores", "learning", "skew"),
    references={"slow": {"accuracy": 0.25}, "fast": {"accuracy": 0.5, "tn": 3}},
)
VERSIONS = {"jax": "0", "python": "3"}


class Folder:
    """A run folder in memory."""

    def __init__(self, condition: str, config: Config, seed: int) -> None:
        rng = np.random.default_rng([seed, *condition.encode()])
        digits = rng.integers(0, 4, (40, 5)).astype(np.uint8)
        margin = digits.sum(1, dtype=int) - 8
        labels = (margin >= 0).astype(np.uint8)
        logits = (margin + rng.normal(0.5, 2, 40)).astype(np.float32)
        history = {name: np.array([0.9, 0.4]) for name in ("loss", "val_accuracy")}
        code = {"code": f"code of {condition}"}
        self.path = pathlib.Path(f"{condition}-seed{seed}")
        self.record = Record(condition, seed, config, code | VERSIONS, {"kind": "cpu"}, {})
        self.part = Part(digits, labels, logits)
        self.history = {"epoch": np.array([1.0, 2.0])} | history
        self.ended = "finished"

    def status(self) -> str:
        return self.ended

    def read(self) -> Record:
        return self.record

    def check_files(self) -> None:
        assert self.ended == "diverged"

    def load(self) -> Run:
        return Run(self.record, self.history, {"test": self.part})


class Folders:
    """A batch in memory."""

    def __init__(self, experiment: Experiment = EXPERIMENT, seeds: tuple[int, ...] = SEEDS) -> None:
        self.path = pathlib.Path("out")
        self.runs = {
            (name, seed): Folder(name, config, seed)
            for name, config in experiment.conditions.items()
            for seed in seeds
        }
        programs = {name: f"code of {name}" for name in experiment.conditions}
        made: Any = {"device": {"kind": "cpu"}, "settings": {}, "programs": programs}
        self.batch = Batch(experiment, seeds, (made | {"versions": {"code": "all"} | VERSIONS},))

    def read(self) -> Batch:
        return self.batch

    def run(self, condition: str, seed: int) -> Folder:
        return self.runs[condition, seed]

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def write_report(self, texts: dict[str, str], pictures: Any) -> None:
        self.texts, self.pictures = texts, pictures


def write(folders: Folders, drawn: bool = False) -> dict[str, Any]:
    """Figures take a second: they are drawn if they are asked for."""
    draw = report.pictures if drawn else lambda figures, warn: {}
    with unittest.mock.patch.object(report, "pictures", draw):
        return report.write(folders)  # type: ignore[arg-type]


def collect(folders: Folders) -> table.Collection:
    return table.collect(folders)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written() -> Folders:
    """Do not change it."""
    folders = Folders()
    write(folders, drawn=True)
    return folders


def accuracies(folders: Folders, condition: str) -> np.ndarray:
    parts = [folders.run(condition, seed).part for seed in SEEDS]
    return np.array([sk.accuracy_score(part.labels, part.logits > 0) for part in parts])


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in COMMITTED.glob("*/summary.json"))
)
def test_a_committed_summary_is_that_of_its_numbers(name: str) -> None:
    numbers = json.loads((COMMITTED / name / report.SUMMARY_JSON).read_text())
    text = (COMMITTED / name / report.SUMMARY_MD).read_text(encoding="utf-8")
    scores = list(numbers["variance"] or numbers["differences"][0]["scores"])
    drawn = [line[2 : line.index("]")] for line in text.splitlines() if line.startswith("![")]
    assert report.markdown(numbers, scores, drawn) == text


def test_the_table_has_a_row_per_condition_and_seed(written: Folders) -> None:
    rows = list(csv.DictReader(written.texts[table.TABLE].splitlines()))
    assert [(row["condition"], int(row["seed"])) for row in rows] == list(written.runs)
    assert {row["status"] for row in rows} == {"finished"}
    expected = np.concatenate([accuracies(written, name) for name in ("slow", "fast")])
    np.testing.assert_allclose([float(row["accuracy"]) for row in rows], expected, rtol=1e-8)
    for row, folder in zip(rows, written.runs.values(), strict=True):
        cells = sk.confusion_matrix(folder.part.labels, folder.part.logits > 0).ravel().tolist()
        assert [int(row[cell]) for cell in ("tn", "fp", "fn", "tp")] == cells
    assert {row["exact_accuracy"] for row in rows} == {""}  # These runs have no exam.
    committed = (COMMITTED / "solve" / table.TABLE).read_text().splitlines()[0]
    assert written.texts[table.TABLE].splitlines()[0] == committed


def test_the_statistics_are_those_of_the_predictions(written: Folders) -> None:
    found = json.loads(written.texts[report.SUMMARY_JSON])
    slow, fast = (accuracies(written, name) for name in ("slow", "fast"))
    described = found["conditions"]["fast"]["scores"]["accuracy"]
    assert described["mean"] == pytest.approx(fast.mean())
    assert described["std"] == pytest.approx(fast.std(ddof=1))
    (pair,) = found["differences"]
    assert (pair["first"], pair["second"]) == ("slow", "fast")
    assert pair["scores"]["accuracy"]["mean"] == pytest.approx((slow - fast).mean())
    place = found["conditions"]["fast"]["references"]["accuracy"]
    below, equal, above = ((fast < 0.5).sum(), (fast == 0.5).sum(), (fast > 0.5).sum())
    assert place == {"value": 0.5, "below": below, "equal": equal, "above": above}
    shares = np.array([written.run("fast", seed).part.labels.mean() for seed in SEEDS])
    failed = (fast <= np.maximum(shares, 1 - shares)).sum()
    assert found["conditions"]["fast"]["failed"] == failed
    committed = json.loads((COMMITTED / "reproduce" / report.SUMMARY_JSON).read_text())
    assert list(found) == list(committed)
    assert list(found["conditions"]["slow"]) == list(committed["conditions"]["sheet"])


@pytest.mark.slow
def test_analysis_again_gives_the_same_bytes(written: Folders) -> None:
    again = Folders()
    write(again, drawn=True)
    assert again.texts == written.texts
    first, second = dict(again.pictures), dict(written.pictures)
    assert tuple(first) == EXPERIMENT.plots
    assert first == second


def test_missing_and_diverged_runs_are_counted() -> None:
    folders = Folders()
    folders.run("slow", 0).ended, folders.run("fast", 2).ended = "unfinished", "diverged"
    summary = write(folders)
    found = summary["conditions"]
    assert [found["slow"][name] for name in ("finished", "diverged", "unfinished")] == [2, 0, 1]
    assert [found["fast"][name] for name in ("finished", "diverged", "unfinished")] == [2, 1, 0]
    assert found["fast"]["failed"] == 1 + sum(
        row["accuracy"] <= row["majority_accuracy"]
        for row in collect(folders).rows
        if row["condition"] == "fast" and row["status"] == "finished"
    )
    text = folders.texts[report.SUMMARY_MD]
    assert "2 runs finished, 1 are missing." in text
    assert "2 runs finished, 1 diverged." in text
    assert re.search(r"\(\d+\.\d\d %; 95 % interval \d+\.\d\d % to \d+\.\d\d %\)", text)
    assert "slow" in report.overview(summary, folders.path)


def test_runs_that_collapsed_are_counted(written: Folders) -> None:
    folders = Folders()
    constant = folders.run("fast", 1)
    constant.part = dataclasses.replace(constant.part, logits=-np.ones(40, np.float32))
    assert write(folders)["conditions"]["fast"]["collapsed"] == 1
    told = "; 1 collapsed to one answer for every test series."
    assert told in folders.texts[report.SUMMARY_MD]
    assert "collapsed" not in written.texts[report.SUMMARY_MD]


def test_a_batch_without_a_finished_run_has_a_summary() -> None:
    folders = Folders()
    for run in folders.runs.values():
        run.ended = "unfinished"
    write(folders, drawn=True)
    assert "No run has ended; 3 are missing." in folders.texts[report.SUMMARY_MD]
    assert json.loads(folders.texts[report.SUMMARY_JSON])["conditions"]["slow"]
    assert dict(folders.pictures) == {}


def test_a_run_of_something_else_is_refused() -> None:
    folders = Folders()
    other = folders.run("fast", 0)
    for versions in ({"jax": "0.1"}, {"code": "code of slow"}):
        mine = other.record.versions
        other.record = dataclasses.replace(other.record, versions=mine | versions)
        with pytest.raises(UserError, match=r"fast-seed0/config\.json: was made with other versi"):
            collect(folders)
        other.record = dataclasses.replace(other.record, versions=mine)
    folders.runs["fast", 0] = types.SimpleNamespace(  # type: ignore[assignment]
        **vars(folders.run("slow", 0)),
        **{name: getattr(folders.run("slow", 0), name) for name in ("status", "read", "load")},
    )
    with pytest.raises(UserError, match=r"seed0/config\.json: is another run; the batch has fast"):
        write(folders)


def test_runs_of_a_batch_that_went_on_elsewhere_are_taken_and_told() -> None:
    folders, said = Folders(), "continued on another kind of processor"
    write(folders)
    assert said not in folders.texts[report.SUMMARY_MD]
    (first,) = folders.batch.made
    later: Any = first | {"versions": first["versions"] | {"jax": "1"}}
    later["programs"] = dict.fromkeys(EXPERIMENT.conditions, "new code")
    run = folders.run("slow", 2)
    versions = run.record.versions | {"jax": "1", "code": "new code"}
    run.record = dataclasses.replace(run.record, versions=versions)
    with pytest.raises(UserError, match="other versions"):
        write(folders)
    folders.batch = dataclasses.replace(folders.batch, made=(first, later))
    write(folders)
    assert said in folders.texts[report.SUMMARY_MD]
    single = Folders()
    run = single.run("slow", 2)
    went: Any = {"versions": VERSIONS, "device": {"kind": "gpu"}, "settings": {}, "epoch": 1}
    run.record = dataclasses.replace(run.record, continued=(went,))
    write(single)
    assert said in single.texts[report.SUMMARY_MD]


def test_runs_of_different_kinds_of_processor_are_told_by_run() -> None:
    folders, said = Folders(), "bits are promised per kind"
    for seed, model in ((0, "AuthenticAMD 25 17"), (1, "AuthenticAMD 26 2")):
        run = folders.run("slow", seed)
        device = {"kind": "cpu", "machine": "x86_64", "model": model, "vectors": "SSE AVX2"}
        run.record = dataclasses.replace(run.record, device=device)
    summary = write(folders)
    assert said in folders.texts[report.SUMMARY_MD]
    assert summary["processors"]["cpu AuthenticAMD 26 2 AVX2"] == 1
    rows = list(csv.DictReader(io.StringIO(folders.texts["runs.csv"])))
    kinds = [row["processor"] for row in rows if row["condition"] == "slow"]
    assert kinds[:2] == ["cpu AuthenticAMD 25 17 AVX2", "cpu AuthenticAMD 26 2 AVX2"]
    alike = Folders()
    assert len(write(alike)["processors"]) == 1
    assert said not in alike.texts[report.SUMMARY_MD]
    assert "processor" not in alike.texts["runs.csv"].splitlines()[0]


def test_a_crossed_design_splits_the_variance() -> None:
    conditions = {
        f"{data}-{init}": dataclasses.replace(EASY, data_seed=data, init_seed=init)
        for data in (0, 1)
        for init in (0, 1)
    }
    folders = Folders(Experiment("crossed", "Whence?", conditions, plots=("variance",)), (5, 6))
    for i, run in enumerate(folders.runs.values()):
        logits = run.part.logits + np.float32(i / 4)
        run.part = dataclasses.replace(run.part, logits=logits)
    found = write(folders, drawn=True)
    split = found["variance"]["accuracy"]
    source = max(split, key=lambda name: split[name]["share"])
    told = f"of accuracy {source}, {100 * split[source]['share']:.0f} %"
    assert told in re.sub("<[^>]*>", "", str(folders.texts[REPORT_HTML])).replace("\xa0", " ")
    assert sum(part["share"] for part in split.values()) == pytest.approx(1)
    assert found["differences"] == []
    assert set(dict(folders.pictures)) == {"variance"}
    folders.run("0-1", 6).ended = "unfinished"
    assert set(write(folders)["variance"].values()) == {None}
    assert "| not crossed, or no variance |" in folders.texts[report.SUMMARY_MD]


def test_equal_runs_are_shown_without_an_interval() -> None:
    """Told apart from what is undefined, in the text, at the terminal and in the picture."""
    folders = Folders()
    for seed in SEEDS:
        folders.run("slow", seed).part = folders.run("slow", 0).part
    summary = write(folders)
    assert summary["conditions"]["slow"]["scores"]["accuracy"]["mean_interval"] is None
    mean = f"{accuracies(folders, 'slow')[0]:.4f} (no interval)"
    assert f"| accuracy | 3 | {mean} |" in folders.texts[report.SUMMARY_MD]
    assert mean in report.overview(summary, folders.path)


def test_one_mark_stands_for_means_with_an_interval_and_without() -> None:
    values = {"a": {"x": np.full(3, 0.5), "y": np.array([0.2, 0.4])}}
    intervals: Any = {"a": {"x": (0.5, None), "y": (0.3, [0.2, 0.4])}}
    figure = figures.points(values, intervals, {}, "equal")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mean, with its 95 % interval where there is one"
    ]
    bars = [bar for of in figure.axes[0].collections for bar in of.get_segments() if len(bar)]
    assert [bar[:, 1].tolist() for bar in bars] == [[0.2, 0.4]]


def drawn_labels(axis: Any) -> list[tuple[float, str]]:
    """The ticks within the view, and what they say."""
    low, high = sorted(axis.get_view_interval())
    labels = [(tick.get_loc(), tick.label1.get_text()) for tick in axis.get_major_ticks()]
    return [(at, text) for at, text in labels if low <= at <= high]


@pytest.mark.parametrize("smallest", [9.3e-6, 1e-6, 3e-4, 0.2])
def test_no_label_of_an_axis_of_errors_hides_another(smallest: float) -> None:
    errors = {"exact error": {"x": np.array([0, smallest, 1e-2, 0.9])}}
    figure = figures.points(errors, {"exact error": {"x": (0.1, None)}}, {}, "tiny")
    figure.draw_without_rendering()
    boxes = [
        tick.label1.get_window_extent()
        for tick in figure.axes[0].yaxis.get_major_ticks()
        if tick.get_loc() >= 0
    ]
    assert len(boxes) > 1
    for below, above in itertools.pairwise(sorted(boxes, key=lambda box: box.y0)):
        assert below.y1 < above.y0


def history(loss: float, error: float, epochs: int) -> dict[str, np.ndarray]:
    """Of three runs."""
    each = {"epoch": np.arange(1, epochs + 1), "loss": np.geomspace(1, loss, epochs)}
    each["val_accuracy"] = 1 - np.linspace(2, 1, epochs) * error
    return {name: np.tile(column, (3, 1)) for name, column in each.items()}


@pytest.mark.parametrize("number", [1, 2, 11, pytest.param(20, marks=pytest.mark.slow)])
def test_every_condition_has_its_own_panels_of_curves(number: int) -> None:
    """One of a single epoch is seen too, and one without an error."""
    histories = {
        f"c-{i}": history(10.0**-i, 0.2 * i / number, 1 + 20 * (i % 2)) for i in range(number)
    }
    figure = figures.bands(histories, "many")
    figure.draw_without_rendering()
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == 2 * [f"{name}: 3 runs" for name in histories]
    for ax, of in zip(shown, 2 * [*histories.values()], strict=True):
        line = ax.lines[-1]
        np.testing.assert_array_equal(line.get_xdata(), of["epoch"][0])
        assert line.get_marker() == ("o" if len(of["epoch"][0]) == 1 else "")
        assert ax.get_ylim()[0] < min(line.get_ydata())
        assert max(line.get_ydata()) < ax.get_ylim()[1]
        assert len(ax.lines) == 1 + (of is not histories["c-0"])
    assert len({ax.get_ylim() for ax in shown[:number]}) == 1


@pytest.mark.parametrize("error", [0.4, 0.005, 0.0])
def test_what_a_label_of_validation_errors_says_is_its_place(error: float) -> None:
    figure = figures.bands({"a": history(0.1, error, 5), "b": history(0.1, 0.4, 5)}, "some")
    figure.draw_without_rendering()
    for axis in (figure.axes[2].yaxis, figure.axes[2].xaxis):
        labels = drawn_labels(axis)
        assert len(labels) > 1
        for at, text in labels:
            percent = text.endswith(" %")
            assert float(text.removesuffix(" %")) == pytest.approx(at * (100 if percent else 1))


def test_places_of_a_skew_are_labelled_by_their_shares() -> None:
    """Also where all or none are positive, which an axis of odds has no place for."""
    rates = {"none": 0.0, "some": 0.76, "most": 0.99995, "all": 1.0}
    values = {"gain": {name: np.array([0.1, 0.2]) for name in rates}}
    intervals: Any = {"gain": dict.fromkeys(rates, (0.15, None))}
    figure = figures.skew(rates, values, intervals, "wide")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0.000 %", "76.000 %", "99.995 %", "100.000 %"]


def test_conditions_are_compared_with_their_baselines() -> None:
    conditions = {"slow": SMALL, "fast": EASY, "other": EASY}
    baselines = {"fast": "slow", "slow": "other"}
    experiment = dataclasses.replace(
        EXPERIMENT, conditions=conditions, baselines=baselines, references={}
    )
    folders = Folders(experiment)
    write(folders)
    found = json.loads(folders.texts[report.SUMMARY_JSON])
    pairs = [(pair["first"], pair["second"]) for pair in found["differences"]]
    assert pairs == list(baselines.items())
    text = folders.texts[report.SUMMARY_MD]
    assert "| fast − slow | accuracy |" in text
    assert "| slow − other | accuracy |" in text
    assert "other − " not in text


def test_an_error_is_shown_by_orders_of_magnitude() -> None:
    some = {"exact error": {"x": np.array([0.0, 1e-7, 1e-3])}}
    figure = figures.points(some, {"exact error": {"x": (3e-4, None)}}, {}, "tiny")
    assert figure.axes[0].get_yscale() == "symlog"
    assert figure.axes[0].get_ylim()[0] == 0


def test_one_sign_stands_for_minus() -> None:
    """Also in the values from elsewhere, beside means that are negative."""
    references = {"slow": {"gain": -0.125, "log_loss": 1.5e-7}}
    experiment = dataclasses.replace(EXPERIMENT, references=references, scores=("gain",))
    folders = Folders(experiment)
    for run in folders.runs.values():
        run.part = dataclasses.replace(run.part, logits=-run.part.logits)
    write(folders)
    text = folders.texts[report.SUMMARY_MD]
    assert "| −0.125 |" in text
    assert "| 1.5e−07 |" in text
    assert "answer's | 3 | −0." in text
    numbers = [line for line in text.splitlines() if "---" not in line]
    assert not any(f"-{digit}" in "".join(numbers) for digit in "0123456789")


def test_every_condition_s_value_from_elsewhere_is_drawn_at_its_column() -> None:
    collected = collect(Folders())
    axes = report.draw(collected, report.build(collected))["scores"]().axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    places = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in crosses)
    assert [value for _, value in places] == [0.25, 0.5]
    points = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    for column, (x, _) in enumerate(places):
        assert abs(x - column) <= 0.25
        near = [np.abs(runs - x).min() for runs in points]
        assert all(near[column] < far / 2 for i, far in enumerate(near) if i != column)


def test_figures_of_awkward_values_can_be_drawn() -> None:
    """All runs equal, a mean that rounding moves past its interval, none, rates of 0 and 1."""
    values = {"gain": {"a": np.array([0.1] * 3), "b": np.array([-0.2]), "c": np.array([])}}
    intervals: dict[str, dict[str, figures.Interval]] = {
        "gain": {
            name: (float(y.mean()) if y.size else None, statistics.bootstrap(y))
            for name, y in values["gain"].items()
        }
    }
    nothing = {"gain": {"c": np.array([])}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.points(nothing, intervals, {}, "none").savefig(io.BytesIO(), dpi=40)
        for mean, interval in ((0.1, None), (0.1 + 1e-16, [0.09, 0.1])):
            intervals["gain"]["a"] = (mean, interval)
            rates = {"a": 0.0, "b": 0.2, "c": 1.0}
            figures.points(values, intervals, {"gain": {"b": 0.5}}, "a").savefig(
                io.BytesIO(), dpi=40
            )
            figures.skew(rates, values, intervals, "awkward").savefig(io.BytesIO(), dpi=40)
    files.to_json(intervals)
