"""The report of an experiment: its table, its statistics, and what they are told and drawn with."""

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
from sumrnn.report import experiment as report
from sumrnn.report.experiment_figures import FIGURES
from sumrnn.runs import files
from sumrnn.runs.folder import REPORT_HTML
from sumrnn.runs.record import Record
from sumrnn.runs.results import Part, Run
from sumrnn.scores import statistics
from sumrnn.study import table
from sumrnn.study.experiment import PLOTS, Experiment
from sumrnn.study.folder import Declaration
from sumrnn.study.table import Collection

COMMITTED = pathlib.Path(__file__).parents[2] / "experiments"
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


class Folder:
    """A run folder in memory."""

    def __init__(self, condition: str, config: Config, seed: int) -> None:
        rng = np.random.default_rng([seed, *condition.encode()])
        digits = rng.integers(0, 4, (40, 5)).astype(np.uint8)
        margin = digits.sum(1, dtype=int) - 8
        logits = (margin + rng.normal(0.5, 2, 40)).astype(np.float32)
        self.path = pathlib.Path(f"{condition}-seed{seed}")
        versions = {"jax": "0", "python": "3", "code": f"code of {condition}"}
        self.record = Record(condition, seed, config, versions, {"kind": "cpu"}, {})
        self.part = Part(digits, (margin >= 0).astype(np.uint8), logits)
        self.history = {"epoch": np.array([1.0, 2.0])}
        self.history |= dict.fromkeys(("loss", "val_accuracy"), np.array([0.9, 0.4]))
        self.history["seconds"] = np.array([seed + 0.5, 3_600.0])
        self.ended = "finished"

    def change(self, **fields: Any) -> None:
        """Changes the record."""
        self.record = dataclasses.replace(self.record, **fields)

    def answer(self, logits: np.ndarray) -> None:
        self.part = dataclasses.replace(self.part, logits=logits)

    def status(self) -> str:
        return self.ended

    def read(self) -> Record:
        return self.record

    def check_files(self) -> None:
        assert self.ended == "diverged"

    def load(self) -> Run:
        return Run(self.record, self.history, {"test": self.part})


class Folders:
    """The folder of an experiment in memory."""

    def __init__(self, experiment: Experiment = EXPERIMENT, seeds: tuple[int, ...] = SEEDS) -> None:
        self.path, self.declared = pathlib.Path("out"), Declaration(experiment, seeds)
        self.runs = {
            (name, seed): Folder(name, config, seed)
            for name, config in experiment.conditions.items()
            for seed in seeds
        }

    def read(self) -> Declaration:
        return self.declared

    def run(self, condition: str, seed: int) -> Folder:
        return self.runs[condition, seed]

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def keep(self, path: pathlib.Path, texts: dict[str, str], pictures: Any, known: Any) -> None:
        """In the place of `files.write_report`."""
        assert (path, set(known)) == (self.path, set(PLOTS))
        self.texts, self.pictures = texts, dict(pictures)


def lacking(experiment: Experiment = EXPERIMENT) -> Folders:
    """An experiment with a run that is missing, one that diverged, and one that collapsed."""
    folders = Folders(experiment)
    folders.run("slow", 0).ended, folders.run("fast", 2).ended = "unfinished", "diverged"
    folders.run("fast", 1).answer(-np.ones(40, np.float32))
    return folders


def write(folders: Folders, drawn: bool = False) -> dict[str, Any]:
    """The summary; its figures, which take a second, only if `drawn`."""
    draw = report.pictures if drawn else lambda figures, warn: {}
    with (
        unittest.mock.patch.object(report, "pictures", draw),
        unittest.mock.patch.object(files, "write_report", folders.keep),
    ):
        return report.write(folders)  # type: ignore[arg-type]


def collect(folders: Folders) -> Collection:
    return table.collect(folders)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written() -> Folders:
    """Do not change it."""
    folders = Folders()
    write(folders)
    return folders


def accuracies(folders: Folders, condition: str) -> np.ndarray:
    parts = [folders.run(condition, seed).part for seed in SEEDS]
    return np.array([sk.accuracy_score(part.labels, part.logits > 0) for part in parts])


@pytest.mark.parametrize("name", sorted(p.parent.name for p in COMMITTED.glob("*/summary.json")))
def test_a_committed_summary_is_that_of_its_numbers(name: str) -> None:
    numbers = json.loads((COMMITTED / name / report.SUMMARY_JSON).read_text())
    text = (COMMITTED / name / report.SUMMARY_MD).read_text(encoding="utf-8")
    scores = list(numbers["variance"] or numbers["differences"][0]["scores"])
    assert report.markdown(numbers, scores, re.findall(r"^!\[(\w+)\]", text, re.M)) == text


def test_the_table_has_a_row_per_condition_and_seed(written: Folders) -> None:
    rows = list(csv.DictReader(written.texts[table.TABLE].splitlines()))
    assert [(row["condition"], int(row["seed"])) for row in rows] == list(written.runs)
    for row, folder in zip(rows, written.runs.values(), strict=True):
        labels, answers = folder.part.labels, folder.part.logits > 0
        assert float(row["accuracy"]) == pytest.approx(sk.accuracy_score(labels, answers))
        cells = np.bincount(2 * labels.astype(int) + answers, minlength=4).tolist()
        assert [int(row[cell]) for cell in ("tn", "fp", "fn", "tp")] == cells
        assert (row["status"], row["exact_accuracy"]) == ("finished", "")  # No exact evaluation.
    committed = (COMMITTED / "solve" / table.TABLE).read_text().splitlines()[0]
    assert written.texts[table.TABLE].splitlines()[0] == committed


def test_the_statistics_are_those_of_the_predictions(written: Folders) -> None:
    summary = json.loads(written.texts[report.SUMMARY_JSON])
    slow, fast = (accuracies(written, name) for name in ("slow", "fast"))
    condition, (pair,) = summary["conditions"]["fast"], summary["differences"]
    assert condition["scores"]["accuracy"]["mean"] == pytest.approx(fast.mean())
    assert condition["scores"]["accuracy"]["std"] == pytest.approx(fast.std(ddof=1))
    assert (pair["first"], pair["second"]) == ("slow", "fast")
    assert pair["scores"]["accuracy"]["mean"] == pytest.approx((slow - fast).mean())
    below, equal, above = ((fast < 0.5).sum(), (fast == 0.5).sum(), (fast > 0.5).sum())
    place = {"value": 0.5, "below": below, "equal": equal, "above": above}
    assert condition["references"]["accuracy"] == place
    shares = np.array([written.run("fast", seed).part.labels.mean() for seed in SEEDS])
    assert condition["failed"] == (fast <= np.maximum(shares, 1 - shares)).sum()
    committed = json.loads((COMMITTED / "reproduce" / report.SUMMARY_JSON).read_text())
    assert list(summary) == list(committed)
    assert list(condition) == list(committed["conditions"]["sheet"])


def test_the_time_of_training_is_told_by_condition(written: Folders) -> None:
    slow, fast = csv.DictReader(written.texts[report.TIMES].splitlines())
    assert (slow["condition"], fast["condition"], slow["runs"]) == ("slow", "fast", "3")
    assert float(slow["seconds_per_epoch"]) == pytest.approx((2.5 + 3_600) / 2)
    assert float(slow["hours"]) == pytest.approx((0.5 + 1.5 + 2.5) / 3_600 + 3)


def test_missing_diverged_and_collapsed_runs_are_counted(written: Folders) -> None:
    folders = lacking()
    summary = write(folders)
    slow, fast = summary["conditions"].values()
    assert [slow[name] for name in ("finished", "diverged", "unfinished")] == [2, 0, 1]
    assert [fast[name] for name in ("finished", "diverged", "unfinished")] == [2, 1, 0]
    assert (slow["collapsed"], fast["collapsed"]) == (0, 1)
    rows = [row for row in collect(folders).rows if row["condition"] == "fast"][:2]
    failed = 1 + sum(row["accuracy"] <= row["majority_accuracy"] for row in rows)
    assert fast["failed"] == failed
    text = folders.texts[report.SUMMARY_MD]
    assert "2 runs finished, 1 are missing." in text
    assert "finished, 1 diverged; 1 collapsed to one answer for every test series." in text
    assert re.search(r"\(\d+\.\d\d %; 95 % interval \d+\.\d\d % to \d+\.\d\d %\)", text)
    shown = report.overview(summary, folders.path)
    assert re.search(rf"^fast +3/3 +{failed} +1 ", shown, re.M)
    assert re.search(r"^slow +2/3 ", shown, re.M)
    assert "collapsed" not in written.texts[report.SUMMARY_MD]


def test_an_experiment_without_a_finished_run_has_a_summary() -> None:
    folders = Folders()
    for run in folders.runs.values():
        run.ended = "unfinished"
    assert write(folders, drawn=True)["conditions"]["slow"]["finished"] == 0
    assert "No run has ended; 3 are missing." in folders.texts[report.SUMMARY_MD]
    assert folders.pictures == {}


def test_runs_that_were_made_differently_are_taken_and_told(written: Folders) -> None:
    """Some with other versions; or one that went on elsewhere; or on several kinds of processor."""
    said, kinds = "continued on another kind of processor", "bits are promised per kind"
    went: Any = {"versions": {"jax": "0"}, "device": {"kind": "gpu"}, "settings": {}, "epoch": 1}
    versions = written.run("slow", 2).record.versions
    for fields in ({"versions": versions | {"jax": "1"}}, {"continued": (went,)}):
        folders = Folders()
        folders.run("slow", 2).change(**fields)
        write(folders)
        assert said in folders.texts[report.SUMMARY_MD]
    folders = Folders()
    for seed, model in ((0, "AuthenticAMD 25 17"), (1, "AuthenticAMD 26 2")):
        device = {"kind": "cpu", "machine": "x86_64", "model": model, "vectors": "SSE AVX2"}
        folders.run("slow", seed).change(device=device)
    assert write(folders)["processors"]["cpu AuthenticAMD 26 2 AVX2"] == 1
    assert kinds in folders.texts[report.SUMMARY_MD]
    rows = csv.DictReader(io.StringIO(folders.texts[table.TABLE]))
    assert [row["processor"] for row in rows if row["condition"] == "slow"][:2] == [
        "cpu AuthenticAMD 25 17 AVX2",
        "cpu AuthenticAMD 26 2 AVX2",
    ]
    assert said not in written.texts[report.SUMMARY_MD]
    assert kinds not in written.texts[report.SUMMARY_MD]
    assert "processor" not in written.texts[table.TABLE].splitlines()[0]


def test_a_crossed_design_splits_the_variance() -> None:
    conditions = {
        f"{data}-{init}": dataclasses.replace(EASY, data_seed=data, init_seed=init)
        for data in (0, 1)
        for init in (0, 1)
    }
    folders = Folders(Experiment("crossed", "Whence?", conditions, plots=("variance",)), (5, 6))
    for i, run in enumerate(folders.runs.values()):
        run.answer(run.part.logits + np.float32(i / 4))
    summary = write(folders, drawn=True)
    split = summary["variance"]["accuracy"]
    source = max(split, key=lambda name: split[name]["share"])
    told = f"of accuracy {source}, {100 * split[source]['share']:.0f} %"
    assert told in re.sub("<[^>]*>", "", str(folders.texts[REPORT_HTML])).replace("\xa0", " ")
    assert sum(part["share"] for part in split.values()) == pytest.approx(1)
    assert summary["differences"] == []
    assert set(folders.pictures) == {"variance"}
    folders.run("0-1", 6).ended = "unfinished"
    assert set(write(folders)["variance"].values()) == {None}
    assert "| not crossed, or no variance |" in folders.texts[report.SUMMARY_MD]


def test_equal_runs_are_shown_without_an_interval() -> None:
    """Told apart from what is undefined, in the text and at the terminal."""
    folders = Folders()
    for seed in SEEDS:
        folders.run("slow", seed).part = folders.run("slow", 0).part
    summary = write(folders)
    mean = f"{accuracies(folders, 'slow')[0]:.4f} (no interval)"
    assert f"| accuracy | 3 | {mean} |" in folders.texts[report.SUMMARY_MD]
    assert mean in report.overview(summary, folders.path)


def test_conditions_are_compared_with_their_baselines() -> None:
    conditions = {"slow": SMALL, "fast": EASY, "other": EASY}
    baselines = {"fast": "slow", "slow": "other"}
    changed: Any = {"conditions": conditions, "baselines": baselines, "references": {}}
    folders = Folders(dataclasses.replace(EXPERIMENT, **changed))
    summary = write(folders)
    assert {pair["first"]: pair["second"] for pair in summary["differences"]} == baselines
    text = folders.texts[report.SUMMARY_MD]
    assert "| fast − slow | accuracy |" in text
    assert "| slow − other | accuracy |" in text
    assert "other − " not in text


def test_one_sign_stands_for_minus() -> None:
    """Also in the values from elsewhere, beside means that are negative."""
    references = {"slow": {"gain": -0.125, "log_loss": 1.5e-7}}
    folders = Folders(dataclasses.replace(EXPERIMENT, references=references, scores=("gain",)))
    for run in folders.runs.values():
        run.answer(-run.part.logits)
    write(folders)
    text = folders.texts[report.SUMMARY_MD]
    assert "| −0.125 |" in text
    assert "| 1.5e−07 |" in text
    assert "answer's | 3 | −0." in text
    assert not re.search(r"-\d", text)


def test_what_is_seen_of_an_experiment_is_said_with_its_numbers() -> None:
    runs = collect(Folders())
    summary = report.build(runs)
    said = report.captions(runs, summary)
    assert set(EXPERIMENT.plots) <= set(said)
    means = {
        name: condition["scores"]["accuracy"]["mean"]
        for name, condition in summary["conditions"].items()
    }
    low, high = sorted(means, key=lambda name: means[name])
    assert f"accuracy {means[low]:.4f} ({low}) to {means[high]:.4f} ({high});" in said["scores"]
    assert "60.00 % (fast) to 60.00 % (slow)" in said["learning"]
    assert f"accuracy {means['slow']:.4f} and {means['fast']:.4f};" in said["skew"]


def draw(
    name: str,
    values: dict[str, list[float]],
    score: str = "accuracy",
    *,
    rates: dict[str, float] | None = None,
    references: Any = None,
    changed: Any = None,
) -> Any:
    """A figure of scores by condition; what is known of their means can be `changed`."""
    experiment: Any = types.SimpleNamespace(name="x", scores=(score,), references=references or {})
    conditions = {
        name: {
            "scores": {score: statistics.describe(np.array(column)) | (changed or {})},
            "positive_rate": (rates or {}).get(name),
        }
        for name, column in values.items()
    }
    pairs = [(name, *pair) for name, column in values.items() for pair in enumerate(column)]
    rows = [{"condition": name, "seed": seed, score: value} for name, seed, value in pairs]
    return FIGURES[name](Collection(experiment, SEEDS, {}, rows, {}), {"conditions": conditions})


def draw_curves(histories: dict[str, dict[str, np.ndarray]]) -> Any:
    figure = FIGURES["learning"](Collection(EXPERIMENT, SEEDS, {}, [], histories), {})
    figure.draw_without_rendering()
    return figure


def history(loss: float, error: float, epochs: int) -> dict[str, np.ndarray]:
    """Of three runs."""
    each = {"epoch": np.arange(1, epochs + 1), "loss": np.geomspace(1, loss, epochs)}
    each["val_accuracy"] = 1 - np.linspace(2, 1, epochs) * error
    return {name: np.tile(column, (3, 1)) for name, column in each.items()}


def test_one_mark_stands_for_means_with_an_interval_and_without() -> None:
    figure = draw("scores", {"x": [0.5] * 3, "y": [0.2, 0.25, 0.4]})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mean, with its 95 % interval where there is one"
    ]
    segments = [bars.get_segments() for bars in figure.axes[0].collections]
    ((low, high),) = (bar[:, 1].tolist() for bar in itertools.chain(*segments) if len(bar))
    assert [low, high] == statistics.bootstrap(np.array([0.2, 0.25, 0.4]))


@pytest.mark.parametrize("smallest", [9.3e-6, 1e-6, 3e-4, 0.2])
def test_an_error_is_shown_by_orders_of_magnitude_and_no_label_hides_another(
    smallest: float,
) -> None:
    figure = draw("scores", {"x": [0, smallest, 1e-2, 0.9]}, "exact_error")
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert (ax.get_yscale(), ax.get_ylim()[0]) == ("symlog", 0)
    ticks = [tick for tick in ax.yaxis.get_major_ticks() if tick.get_loc() >= 0]
    boxes = sorted((tick.label1.get_window_extent() for tick in ticks), key=lambda box: box.y0)
    assert len(boxes) > 1
    assert all(below.y1 < above.y0 for below, above in itertools.pairwise(boxes))


@pytest.mark.parametrize("number", [1, 2, 11])
def test_every_condition_has_its_own_panels_of_curves(number: int) -> None:
    """One of a single epoch is seen too, and one without an error."""
    histories = {
        f"c-{i}": history(10.0**-i, 0.2 * i / number, 1 + 20 * (i % 2)) for i in range(number)
    }
    shown = [ax for ax in draw_curves(histories).axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == 2 * [f"{name}: 3 runs" for name in histories]
    for ax, columns in zip(shown, 2 * [*histories.values()], strict=True):
        line, epochs = ax.lines[-1], columns["epoch"][0]
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        assert line.get_marker() == ("o" if len(epochs) == 1 else "")
        assert ax.get_ylim()[0] < min(line.get_ydata())
        assert max(line.get_ydata()) < ax.get_ylim()[1]
        assert len(ax.lines) == 1 + (columns is not histories["c-0"])
    assert len({ax.get_ylim() for ax in shown[:number]}) == 1


@pytest.mark.parametrize("error", [0.4, 0.005, 0.0])
def test_what_a_label_of_validation_errors_says_is_its_place(error: float) -> None:
    ax = draw_curves({"a": history(0.1, error, 5), "b": history(0.1, 0.4, 5)}).axes[2]
    for axis in (ax.yaxis, ax.xaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert len(ticks) > 1
        for tick in ticks:
            text = tick.label1.get_text()
            value = float(text.removesuffix(" %")) / (100 if text.endswith("%") else 1)
            assert value == pytest.approx(tick.get_loc())


def test_places_of_a_skew_are_labelled_by_their_shares() -> None:
    """Also where all or none are positive, which an axis of odds has no place for."""
    rates = {"none": 0.0, "some": 0.76, "most": 0.99995, "all": 1.0}
    figure = draw("skew", {name: [0.1, 0.2] for name in rates}, "gain", rates=rates)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0.000 %", "76.000 %", "99.995 %", "100.000 %"]


def test_every_condition_s_value_from_elsewhere_is_drawn_at_its_column() -> None:
    references = {"b": {"accuracy": 0.5}, "a": {"accuracy": 0.25, "gain": 0.1}}
    (ax,) = draw("scores", {"a": [0.4, 0.6], "b": [0.7, 0.8]}, references=references).axes
    crosses = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "x"]
    assert [(round(x), y) for x, y in crosses] == [(1, 0.5), (0, 0.25)]
    columns = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    for i, x in enumerate(columns):
        assert (np.round(x) == i).all()


@pytest.mark.parametrize("changed", [{}, {"mean": 0.1 + 1e-16, "mean_interval": [0.09, 0.1]}])
def test_figures_of_awkward_values_can_be_drawn(changed: Any) -> None:
    """All runs equal, a mean that rounding moves past its interval, none, rates of 0 and 1."""
    values: Any = {"a": [0.1] * 3, "b": [-0.2], "c": []}
    rates, references = {"a": 0.0, "b": 0.2, "c": 1.0}, {"b": {"gain": 0.5}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            draw("scores", {"c": []}, "gain"),
            draw("scores", values, "gain", references=references, changed=changed),
            draw("skew", values, "gain", rates=rates, changed=changed),
        ):
            figure.savefig(io.BytesIO(), dpi=40)
