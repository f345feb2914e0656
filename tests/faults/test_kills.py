"""Work killed at every moment at which a folder can be half-written: it always ends alike.

In process, a copy of the folder before every change is what a kill there leaves.  As processes,
one of each script is killed, and many of them again and again where time does not matter.
"""

import dataclasses
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
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
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import (
    EXPERIMENT,
    ROOT,
    SECONDS,
    SMALL,
    SMALL_OPTIONS,
    THREE,
    files_of,
    finish,
    history_of,
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
    RunFolder(path).write_report(texts, [("a", b"drawn"), ("b", b"drawn")])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a run that nothing disturbed."""
    return results_of(train(tmp_path_factory.mktemp("whole") / "run", THREE).path)


def interrupted(path: pathlib.Path) -> RunFolder:
    return train(path, THREE, until=2)


def damage_newest(path: pathlib.Path) -> None:
    interrupted(path).checkpoints.file(2).write_bytes(b"damaged")


def damage_end(path: pathlib.Path) -> None:
    train(path, THREE)
    (path / PREDICTIONS).write_bytes(b"damaged")


def damage_all(path: pathlib.Path) -> None:
    damage_end(path)
    shutil.rmtree(path / "checkpoints")


def resume(path: pathlib.Path) -> None:
    with RunFolder(path).lock():
        finish(path, THREE)


CASES: dict[str, tuple[Act, str]] = {
    "a new run": (lambda path: None, ""),
    "a resumed run": (interrupted, ""),
    "a run whose newest checkpoint is damaged": (damage_newest, "2.npz: damaged"),
    "a run whose predictions are damaged": (damage_end, "predictions.npz: damaged"),
    "a run of which the record is left": (damage_all, ".npz: damaged|: missing"),
}
"""What there is when the work begins, and what of it may be found wrong."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(x, marks=pytest.mark.slow) if "damaged" in x else x for x in CASES],
)
def test_a_run_killed_before_any_change_ends_alike(
    case: str, whole: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    prepare, known = CASES[case]
    path = tmp_path / "run"
    prepare(path)
    left = snapshots(path, tmp_path / "left", lambda: resume(path))
    assert len(left) > 3
    for folder in left:
        status, epoch, wrong = RunFolder(folder).survey(THREE, SEED)
        assert [line for line in wrong if not re.search(known or "nothing", line)] == []
        assert epoch == 3 or status == "unfinished"
        resume(folder)
        assert RunFolder(folder).survey(THREE, SEED) == ("finished", 3, [])
        assert results_of(folder) == whole
        assert not [name for name in files_of(folder) if name.endswith(files.TEMPORARY)]


def overwrite(path: pathlib.Path) -> None:
    """As train.py --overwrite does, unless another one has begun to."""
    folder = RunFolder(path)
    with folder.lock():
        folder.check_free(overwrite=True)
        RunWriter(folder).begin(THREE, SEED, "sheet")
        finish(path, THREE)


def test_a_run_killed_while_it_replaces_another_one_ends_alike(
    whole: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "run"
    train(path, SMALL, seed=8)
    write_report(path)
    (path / "notes.txt").write_text("mine")
    left = snapshots(path, tmp_path / "left", lambda: overwrite(path))
    seeds = []
    for folder in left:
        assert RunFolder(folder).is_run()
        seeds.append(RunFolder(folder).read().seed)
        if seeds[-1] == SEED:
            assert RunFolder(folder).survey(THREE, SEED).wrong == []
            resume(folder)
        else:  # Still the old one, which is whole or lacks something.
            shutil.copytree(folder, tmp_path / "old")
            assert all(": missing" in line for line in RunFolder(folder).survey(SMALL, 8).wrong)
            finish(tmp_path / "old", SMALL, seed=8)
            shutil.rmtree(tmp_path / "old")
            with pytest.raises(UserError, match=r"is of another run"):
                RunFolder(folder).survey(THREE, SEED)
            overwrite(folder)
        assert results_of(folder) == whole
        assert (folder / "notes.txt").read_text() == "mine"
    assert 8 < seeds.index(SEED) < len(seeds) - 10


def break_second_moment(path: pathlib.Path) -> None:
    """So that the third epoch diverges."""
    folder = interrupted(path)
    found = folder.checkpoints.load(THREE, SEED, 2)
    broken = jax.tree.map(lambda x: np.full_like(x, np.inf), found.state.opt_state[0].nu)
    adam = found.state.opt_state[0]._replace(nu=broken)
    state = found.state._replace(opt_state=(adam, *found.state.opt_state[1:]))
    folder.checkpoints.save(found._replace(state=state), THREE, SEED)


def test_a_run_killed_as_it_diverges_ends_alike(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    break_second_moment(path)
    left = snapshots(path, tmp_path / "left", lambda: resume(path))
    assert len(left) == 4
    for folder in left:
        assert RunFolder(folder).survey(THREE, SEED).wrong == []
        resume(folder)
        assert RunFolder(folder).survey(THREE, SEED) == ("diverged", 3, [])
        assert history_of(folder) == history_of(path)
        assert set(files_of(folder)) == set(files_of(path))


def test_a_report_killed_before_any_change_is_written_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    train(path, THREE)
    write_report(path)
    for file in (path / REPORT_JSON, path / REPORT_MD, *(path / FIGURES).iterdir()):
        file.write_text("of another version")
    left = snapshots(path, tmp_path / "left", lambda: write_report(path))
    assert len(left) == 5
    for folder in left:
        assert RunFolder(folder).survey(THREE, SEED) == ("finished", 3, [])
        with RunFolder(folder).lock():
            write_report(folder)
        assert files_of(folder) == files_of(path)


def run_batch(path: pathlib.Path) -> None:
    train_experiment(path, small_experiment(2), (7,), every=2)


def test_a_batch_killed_before_any_change_ends_alike(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "batch"
    left = snapshots(path, tmp_path / "left", lambda: run_batch(path))
    assert len(left) > 12
    runs = [path / study_folder.RUNS / f"{condition}-seed7" for condition in "ab"]
    expected = [results_of(run) for run in runs]
    for folder in left:
        run_batch(folder)
        assert [results_of(folder / run.relative_to(path)) for run in runs] == expected
        assert set(files_of(folder)) == set(files_of(path))


KILLED = -signal.SIGKILL
MANY = 50
"""Epochs of a run that is still at work when it is killed."""
LONG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=MANY))
Start = Callable[..., "subprocess.Popen[str]"]


def pause(process: "subprocess.Popen[str]") -> None:
    """Stops a process with all its threads, so that it is still there when another one comes."""
    process.send_signal(signal.SIGSTOP)
    stat = pathlib.Path(f"/proc/{process.pid}/task")
    while stat.exists() and any(
        (task / "stat").read_text().rpartition(")")[2].split()[0] not in "Tt"
        for task in stat.iterdir()
    ):
        pass


def test_a_killed_script_leaves_a_run_that_continues_through_a_link(
    start: Start, tmp_path: pathlib.Path
) -> None:
    """And one that is still at work sends others away."""
    path, link = tmp_path / "real", tmp_path / "link"
    path.mkdir()
    link.symlink_to("real")
    options = (*SMALL_OPTIONS, "--epochs", MANY, "--seed", 7, "--checkpoint-every", 1)
    script = ROOT / "scripts" / "train.py"
    process = start(sys.executable, script, *options, "--out", link, cwd=tmp_path)
    wait_for(process, "epoch  1/")
    pause(process)
    before = files_of(tmp_path)
    for taken in (path, link):
        told = r"process \d+ on \S+ is at work there$"
        with pytest.raises(UserError, match=told) as caught, RunFolder(taken).lock():
            raise AssertionError
        assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before
    process.send_signal(signal.SIGCONT)
    wait_for(process, "epoch  3/")  # That did not disturb it.
    process.kill()
    process.communicate(timeout=SECONDS)
    assert process.returncode == KILLED
    assert (path / files.LOCK).exists()
    status, epoch, wrong = RunFolder(link).survey(LONG, 7)
    assert (status, wrong) == ("unfinished", [])
    assert 2 <= epoch < MANY
    finish(link, LONG)
    assert link.readlink() == pathlib.Path("real")
    assert results_of(path) == results_of(train(tmp_path / "whole", LONG).path)


@pytest.mark.slow
def test_a_killed_script_leaves_a_batch_that_continues(
    start: Start, tmp_path: pathlib.Path
) -> None:
    """And of one that is still at work, others make the other runs."""
    found, long = ExperimentFolder(tmp_path / "batch"), small_experiment(MANY)
    options = ("--seeds", "7:8", "--devices", 2, "--checkpoint-every", 1, "--out", found.path)
    process = start(sys.executable, "-c", EXPERIMENT, MANY, *options, cwd=ROOT)
    wait_for(process, "runs 0/2  0:")  # An epoch is done, and time left.
    pause(process)
    before = files_of(found.run("a", 7).path)
    progress = train_experiment(found.path, long, (7,))
    assert (progress.done, progress.elsewhere) == (1, 1)
    assert files_of(found.run("a", 7).path) == before
    process.kill()
    process.communicate(timeout=SECONDS)
    assert process.returncode == KILLED
    status, _, wrong = found.run("a", 7).survey(LONG, 7)
    assert (status, wrong) == ("unfinished", [])
    train_experiment(found.path, long, (7,))
    for name, config in long.conditions.items():
        again = results_of(found.run(name, 7).path)
        whole = results_of(train(tmp_path / name, config).path)
        assert again["config.json"].pop("name") == name
        assert whole["config.json"].pop("name") == "sheet"
        assert again == whole


AT_OPERATION = """
import os, pathlib, runpy, signal, sys
from tests.conftest import before_changes
left, folder = int(sys.argv[1]), pathlib.Path(os.path.abspath(sys.argv[2]))
sys.argv = sys.argv[3:]
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))

def note(event, path):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

with before_changes(folder, note):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print(f"left {left}", flush=True)
"""
"""Runs a script that is killed just before its nth change of something in a folder."""

Command = tuple[object, ...]


def run_for(seconds: float, *command: object) -> tuple[int, str]:
    """Runs Python for so long; its status and output."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    shown, _ = process.communicate(timeout=SECONDS)
    return process.returncode, shown


def at_operation(number: int, folder: pathlib.Path, command: Command) -> tuple[int, str]:
    """Runs a script up to its nth change of something in a folder; its status and output."""
    return run_for(SECONDS, "-c", AT_OPERATION, number, folder, *command)


def count(folder: pathlib.Path, command: Command) -> int:
    """Runs a script to its end; how often it changes something in the folder."""
    many = 1_000_000
    status, shown = at_operation(many, folder, command)
    assert status == 0, shown
    return many - int(shown.splitlines()[-1].removeprefix("left "))


def kill_often(
    command: Command,
    folder: pathlib.Path,
    kills: int,
    operations: int,
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Starts a command until it was killed so often, then lets it end.

    Args:
      command: script and options.
      folder: that it writes.
      kills: in turn before a change in the folder, of the first `operations`, and after up to so
        many `seconds`; each moment is drawn at random.
      operations: see `kills`.
      seconds: see `kills`.
      check: looks at the folder after every kill.
    """
    draw, killed = random.Random(12), 0
    while killed < kills:
        if killed % 2:
            status, shown = run_for(draw.uniform(0, seconds), *command)
        else:
            status, shown = at_operation(draw.randint(1, operations), folder, command)
        assert status in (0, KILLED), shown
        killed += status == KILLED
        check()
        if status == 0:  # It came to its end between two kills; again from its beginning.
            files.remove(folder)
    status, shown = run_for(SECONDS, *command)
    assert status == 0, shown


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_run_killed_again_and_again_ends_alike(tmp_path: pathlib.Path) -> None:
    script, whole, often = ROOT / "scripts" / "train.py", tmp_path / "whole", tmp_path / "often"
    options = (script, "--seed", 12, *SMALL_OPTIONS, "--epochs", 40, "--checkpoint-every", 3)
    operations = count(whole, (*options, "--out", whole))
    assert operations > 50

    def check() -> None:
        if (often / CONFIG).exists():
            folder = RunFolder(often)
            status, epoch, wrong = folder.survey(folder.read().config, 12)
            assert wrong == []
            assert status == "finished" or epoch % 3 == 0 or epoch == 40

    # Half of the time goes by before the first epoch.
    kill_often((*options, "--resume", "--out", often), often, 60, operations, 8, check)
    assert results_of(often) == results_of(whole)
    assert set(files_of(often)) == set(files_of(whole))


def results_of_batch(path: pathlib.Path) -> dict[str, object]:
    names = (
        study_folder.EXPERIMENT,
        "runs.csv",
        experiment_report.SUMMARY_JSON,
        experiment_report.SUMMARY_MD,
        REPORT_HTML,
    )
    return {name: (path / name).read_bytes() for name in names} | {
        folder.name: results_of(folder) for folder in (path / study_folder.RUNS).iterdir()
    }


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("seeds", "kills"), [("0:3", 60), ("0:64", 20)])
def test_a_batch_killed_again_and_again_ends_alike(
    seeds: str, kills: int, tmp_path: pathlib.Path
) -> None:
    script, whole, often = ROOT / "scripts/experiment.py", tmp_path / "whole", tmp_path / "often"
    options = (script, "tiny", "--seeds", seeds, "--devices", 2, "--checkpoint-every", 1)
    operations = count(whole, (*options, "--out", whole))
    assert operations > 200
    kill_often((*options, "--out", often), often, kills, operations, 20)
    assert results_of_batch(often) == results_of_batch(whole)
    runs = 3 * len(range(*map(int, seeds.split(":"))))
    assert len(list((often / study_folder.RUNS).iterdir())) == runs
