"""Work killed at every moment at which a folder can be half-written: it always ends alike.

In process, a copy of the folder before every change is what a kill there leaves.  As processes,
one is killed, and others again and again where time does not matter.
"""

import dataclasses
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from sumrnn.errors import UserError
from sumrnn.report import experiment as experiment_report
from sumrnn.runs import files
from sumrnn.runs.folder import (
    CONFIG,
    FIGURES,
    PREDICTIONS,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
    RunFolder,
)
from sumrnn.runs.writer import RunWriter
from sumrnn.study import folder as study_folder
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL,
    SMALL_OPTIONS,
    THREE,
    break_second_moment,
    files_of,
    finish,
    results_of,
    small_experiment,
    snapshots,
    train,
    train_experiment,
    wait_for,
)

SEED = 7
Act = Callable[[pathlib.Path], object]


def write_report(path: pathlib.Path) -> None:
    """As good as a report, and quicker."""
    texts = {REPORT_JSON: '{"run": {"seconds": 1}}', REPORT_MD: "report"}
    with RunFolder(path).lock():
        files.write_report(path, texts, [("a", b"drawn"), ("b", b"drawn")], ())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a run that nothing disturbed."""
    return results_of(train(tmp_path_factory.mktemp("whole") / "run", THREE).path)


def interrupt(path: pathlib.Path) -> RunFolder:
    return train(path, THREE, until=2)


def damage_newest(path: pathlib.Path) -> None:
    interrupt(path).checkpoints.file(2).write_bytes(b"damaged")


def damage_end(path: pathlib.Path) -> None:
    train(path, THREE)
    (path / PREDICTIONS).write_bytes(b"damaged")


def damage_all(path: pathlib.Path) -> None:
    damage_end(path)
    shutil.rmtree(path / "checkpoints")


def diverge_next(path: pathlib.Path) -> None:
    break_second_moment(interrupt(path), THREE, SEED, 2)


def report_of_another_version(path: pathlib.Path) -> None:
    train(path, THREE)
    write_report(path)
    for file in (path / REPORT_JSON, path / REPORT_MD, *(path / FIGURES).iterdir()):
        file.write_text('{"run": {"seconds": 2}}')


def other_run(path: pathlib.Path) -> None:
    train(path, SMALL, seed=8)
    write_report(path)
    (path / "notes.txt").write_text("mine")


def resume(path: pathlib.Path) -> None:
    with RunFolder(path).lock():
        finish(path, THREE)


def replace(path: pathlib.Path) -> None:
    """As train.py --overwrite does, unless another one has begun to."""
    folder = RunFolder(path)
    with folder.lock():
        if folder.read().seed != SEED:
            folder.check_free(overwrite=True)
            RunWriter(folder).begin(THREE, SEED, "sheet")
        finish(path, THREE)


def run_experiment(path: pathlib.Path) -> None:
    train_experiment(path, small_experiment(2), (SEED,), every=2)


def nothing(path: pathlib.Path) -> None:
    pass


CASES: dict[str, tuple[Act, Act, str, int]] = {
    "a new run": (nothing, resume, "nothing", 4),
    "a resumed run": (interrupt, resume, "nothing", 4),
    "a run whose newest checkpoint is damaged": (damage_newest, resume, "2.npz: damaged", 4),
    "a run whose predictions are damaged": (damage_end, resume, "predictions.npz: damaged", 4),
    "a run of which the record is left": (damage_all, resume, ".npz: damaged|: missing", 4),
    "a run that diverges": (diverge_next, resume, "nothing", 4),
    "a run that replaces another": (other_run, replace, ": missing", 20),
    "a report": (report_of_another_version, write_report, "nothing", 5),
    "an experiment": (nothing, run_experiment, "nothing", 13),
}
"""What there is, what is done, what may be found wrong meanwhile, and how many moments at least."""


def state(path: pathlib.Path) -> dict[str, Any]:
    """The results of every run in a folder, its texts and pictures, and the names of all files.

    Without checkpoints before the last: a process that is killed after the end of a run leaves one.
    """
    runs = [file.parent for file in path.rglob(CONFIG)]
    results: dict[str, Any] = {str(run.relative_to(path)): results_of(run) for run in runs}
    there = files_of(path)
    texts = {name: there[name] for name in there if name.endswith((".md", ".txt", ".png"))}
    names = {name for name in there if not name.endswith(("/1.npz", "/2.npz"))}
    return results | texts | {"files": names}


@pytest.mark.parametrize(
    "case",
    [pytest.param(x, marks=pytest.mark.slow) if "damaged" in x else x for x in CASES],
)
def test_what_is_killed_before_any_change_ends_alike(
    case: str, whole: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    prepare, act, known, moments = CASES[case]
    path = tmp_path / "work"
    prepare(path)
    left = snapshots(path, tmp_path / "left", lambda: act(path))
    assert len(left) >= moments
    expected = state(path)
    if case == "a run that diverges":
        assert expected["."]["config.json"]["status"] == "diverged"
    elif act in (resume, replace):
        assert expected["."] == whole
    for folder in left:
        assert act is not replace or RunFolder(folder).is_run()
        for file in folder.rglob(CONFIG):
            record = RunFolder(file.parent).read()
            status, epoch, wrong = RunFolder(file.parent).survey(record.config, record.seed)
            old = act is replace and record.seed != SEED
            assert act is not replace or old or wrong == []
            assert [line for line in wrong if not re.search(known, line)] == []
            assert epoch == record.config.train.epochs or status == "unfinished"
            if old:  # It may still be what it was.
                copy = shutil.copytree(folder, tmp_path / "old")
                assert finish(copy, record.config, record.seed).status() == "finished"
                files.remove(copy)
        act(folder)
        assert state(folder) == expected


KILLED = -signal.SIGKILL
MANY = 50
"""Epochs of a run that is still at work when it is killed."""
LONG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=MANY))


def test_a_killed_script_leaves_a_run_that_continues_through_a_link(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: pathlib.Path
) -> None:
    """And one that is still at work sends others away."""
    path, link = tmp_path / "real", tmp_path / "link"
    path.mkdir()
    link.symlink_to("real")
    options = (*SMALL_OPTIONS, "--epochs", MANY, "--seed", SEED, "--checkpoint-every", 1)
    script = ROOT / "scripts" / "train.py"
    process = start(sys.executable, script, *options, "--out", link, cwd=tmp_path)
    wait_for(process, "epoch  1/")
    process.send_signal(signal.SIGSTOP)  # So that it is still there.
    for taken in (path, link):
        told = rf"{taken}: process {process.pid} on \S+ is at work there$"
        with pytest.raises(UserError, match=told), RunFolder(taken).lock():
            raise AssertionError
    process.send_signal(signal.SIGCONT)
    wait_for(process, "epoch  3/")  # That did not disturb it.
    process.kill()
    process.communicate(timeout=SECONDS)
    assert process.returncode == KILLED
    assert (path / files.LOCK).exists()
    status, epoch, wrong = RunFolder(link).survey(LONG, SEED)
    assert (status, wrong) == ("unfinished", [])
    assert 2 <= epoch < MANY
    finish(link, LONG)
    assert link.readlink() == pathlib.Path("real")
    assert results_of(path) == results_of(train(tmp_path / "whole", LONG).path)


def run_for(seconds: float, *command: object) -> int:
    """Runs Python for so long; its status, which must be that of its end or of a kill."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    assert process.returncode in (0, KILLED), errors
    return process.returncode


def kill_often(
    command: tuple[object, ...],
    path: pathlib.Path,
    kills: int,
    check: Callable[[pathlib.Path], None] = lambda path: None,
) -> tuple[pathlib.Path, pathlib.Path]:
    """Starts a command until it was killed so often, then lets it end.

    Each kill is at a random moment of the time that the command takes undisturbed, or of its first
    20 seconds; `check` looks at the folder after it.  Returns the folder of a command that nobody
    killed, and that folder.
    """
    whole, often, draw, killed = path / "whole", path / "often", random.Random(12), 0
    began = time.monotonic()
    assert run_for(3_600, *command, "--out", whole) == 0
    seconds = min(time.monotonic() - began, 20)
    while killed < kills:
        status = run_for(draw.uniform(0, seconds), *command, "--out", often)
        killed += status == KILLED
        check(often)
        if status == 0:  # It came to its end between two kills; again from its beginning.
            files.remove(often)
    assert run_for(3_600, *command, "--out", often) == 0
    assert set(files_of(often)) == set(files_of(whole))
    return whole, often


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_run_killed_again_and_again_ends_alike(tmp_path: pathlib.Path) -> None:
    def check(path: pathlib.Path) -> None:
        if (path / CONFIG).exists():
            folder = RunFolder(path)
            status, epoch, wrong = folder.survey(folder.read().config, 12)
            assert wrong == []
            assert status == "finished" or epoch % 3 == 0 or epoch == 40

    options = ("--epochs", 40, "--checkpoint-every", 3, "--resume")
    command = (ROOT / "scripts" / "train.py", "--seed", 12, *SMALL_OPTIONS, *options)
    whole, often = kill_often(command, tmp_path, 60, check)
    assert results_of(often) == results_of(whole)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("seeds", "kills"), [(3, 60), (64, 20)])
def test_an_experiment_killed_again_and_again_ends_alike(
    seeds: int, kills: int, tmp_path: pathlib.Path
) -> None:
    options = ("tiny", "--seeds", f"0:{seeds}", "--devices", 2, "--checkpoint-every", 1)
    command = (ROOT / "scripts" / "experiment.py", *options)
    whole, often = kill_often(command, tmp_path, kills)
    runs = {run.name for run in (whole / study_folder.RUNS).iterdir()}
    assert len(runs) == 3 * seeds
    for run in runs:
        again, expected = (results_of(path / study_folder.RUNS / run) for path in (often, whole))
        assert again == expected
    for name in (
        study_folder.EXPERIMENT,
        "runs.csv",
        experiment_report.SUMMARY_JSON,
        experiment_report.SUMMARY_MD,
        REPORT_HTML,
    ):
        assert (often / name).read_bytes() == (whole / name).read_bytes()
