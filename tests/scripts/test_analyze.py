"""scripts/analyze.py: a report from a folder alone, of a run or of a batch."""

import pathlib
import shutil

import pytest

from sumrnn.report import experiment as experiment_report
from sumrnn.runs.folder import (
    CHECKPOINTS,
    FIGURES,
    HISTORY,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
)
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
        (("absent",), "absent: must be a run folder"),
        (("empty",), "empty/config.json: missing"),
        (("one", "--out", "new"), "Unrecognized options: --out, new"),
    ],
)
def test_what_is_no_folder_of_ours_is_refused(
    given: tuple[str, ...], message: str, among_mine: pathlib.Path
) -> None:
    assert message in refused("analyze", *given, cwd=among_mine)


IN_THE_WAY = {
    "a changed file": lambda path, run: (run / HISTORY).write_text("epoch\n"),
    "a file for a folder": lambda path, run: (
        shutil.rmtree(path / FIGURES),
        (path / FIGURES).write_text("mine"),
    ),
}


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("what", ["run", "batch"])
def test_what_cannot_be_read_or_written_is_told_by_its_folder(
    what: str, kind: str, trained: Trained, batched: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = copy(trained[0] if what == "run" else batched, tmp_path / what)
    IN_THE_WAY[kind](path, path if what == "run" else path / "runs" / "a-seed7")
    line = refused("analyze", what, cwd=tmp_path)
    assert line.startswith((f"{what}: ", f"{what}/"))
    assert "out" not in line
