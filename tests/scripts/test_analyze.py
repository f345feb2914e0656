"""scripts/analyze.py: a report from a folder alone, of a run or of a batch."""

import pathlib
import shutil

import pytest

from sumrnn.report import experiment as experiment_report
from sumrnn.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    FIGURES,
    HISTORY,
    PREDICTIONS,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
)
from sumrnn.study import folder as study_folder
from sumrnn.study.folder import ExperimentFolder
from sumrnn.study.table import TABLE
from tests.conftest import Done, call, files_of, refused, small_experiment, train_experiment

Trained = tuple[pathlib.Path, Done]
SUMMARY = (TABLE, experiment_report.SUMMARY_JSON, experiment_report.SUMMARY_MD, REPORT_HTML)


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished batch of two conditions and a seed, with its summary.  Do not change it."""
    path, experiment = tmp_path_factory.mktemp("batched"), small_experiment(2)
    train_experiment(path, experiment, (7,))
    experiment_report.write(ExperimentFolder(path))
    return path


def copy(path: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(path, to))


def test_it_rebuilds_the_report_of_a_run(trained: Trained, tmp_path: pathlib.Path) -> None:
    path = copy(trained[0], tmp_path / "moved")
    before = files_of(path)
    for name in (REPORT_JSON, REPORT_MD, REPORT_HTML):
        (path / name).unlink()
    shutil.rmtree(path / FIGURES)
    shutil.rmtree(path / CHECKPOINTS)
    done = call("analyze", "moved", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    shown = trained[1].stdout.partition("\n\n")[2]  # After the epochs.
    assert done.out.strip() == shown.strip().replace("runs/sheet-seed7", "moved")
    after = files_of(path)
    assert after == {name: before[name] for name in after}
    assert {name for name in before if not name.startswith(CHECKPOINTS)} == set(after)


def test_it_rebuilds_the_summary_of_a_batch_and_the_report_of_its_run(
    batched: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = copy(batched, tmp_path / "moved")
    before = files_of(path)
    for name in SUMMARY:
        (path / name).unlink()
    shutil.rmtree(path / FIGURES)
    done = call("analyze", "moved", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1].endswith("moved/report.html")
    assert files_of(path) == before
    done = call("analyze", "moved/runs/b-seed7", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert "Run b, seed 7" in (path / "runs" / "b-seed7" / REPORT_MD).read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "Missing from analyze.py: "),
        (("",), "folder = '': must be the name of a folder"),
        (("a\udcff",), "folder = 'a\\udcff': must be the name of a folder"),
        (("x" * 300,), "must be the name of a folder"),
        (("absent",), "absent: must be a run folder"),
        (("file",), "file: must be a run folder"),
        (("empty",), "empty/config.json: missing"),
        (("mine",), "mine/config.json: missing"),
        (("a\nb",), "a\\nb: must be a run folder"),
        (("one", "two"), "Unrecognized options: two"),
        (("one", "--out", "new"), "Unrecognized options: --out, new"),
    ],
)
def test_what_is_no_folder_of_ours_is_refused(
    given: tuple[str, ...], message: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    assert message in refused("analyze", *given, cwd=tmp_path)


DAMAGES = {
    "half": lambda run: (run / PREDICTIONS).unlink(),
    "changed": lambda run: (run / HISTORY).write_text("epoch\n"),
    "no config": lambda run: (run / CONFIG).unlink(),
    "no json": lambda run: (run / CONFIG).write_text("{"),
    "in the way": lambda run: (shutil.rmtree(run / FIGURES), (run / FIGURES).write_text("mine")),
}
NO_BATCH = {
    "no json": lambda path: (path / study_folder.EXPERIMENT).write_text("{"),
    "foreign run": lambda path: (path / "runs" / "a-seed7" / CONFIG).unlink(),
    "damaged run": lambda path: (path / "runs" / "a-seed7" / HISTORY).unlink(),
    "in the way": lambda path: (shutil.rmtree(path / FIGURES), (path / FIGURES).write_text("x")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_that_cannot_be_read_or_written_is_told_by_its_folder(
    name: str, trained: Trained, tmp_path: pathlib.Path
) -> None:
    DAMAGES[name](copy(trained[0], tmp_path / "run"))
    line = refused("analyze", "run", cwd=tmp_path)
    assert line.startswith(("run: ", "run/"))
    assert "out" not in line


@pytest.mark.parametrize("name", NO_BATCH)
def test_a_batch_that_cannot_be_read_or_written_is_told_by_its_folder(
    name: str, batched: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    NO_BATCH[name](copy(batched, tmp_path / "batch"))
    line = refused("analyze", "batch", cwd=tmp_path)
    assert line.startswith(("batch: ", "batch/"))
    assert "out" not in line
