"""Real processes killed again and again: the folder ends like one that nothing happened to."""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from sumrnn import batch, files, runs, summary
from tests.conftest import ROOT, SECONDS, results_of

KILLED = -signal.SIGKILL

AT_OPERATION = """
import os, pathlib, runpy, signal, sys
folder, left, script = os.path.abspath(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
WRITES = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,)}
RELATIVE = {"os.remove": 1, "os.rmdir": 1}  # Where the folder is told that a name is in.

def changes(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        paths = (path,) if writes else ()
    else:
        if event in RELATIVE and arguments[RELATIVE[event]] not in (-1, None):
            return True  # Within a folder that is removed.
        paths = [arguments[i] for i in WRITES.get(event, ())]
    return any(os.path.abspath(os.fsdecode(p)).startswith(folder)
               for p in paths if isinstance(p, (str, bytes, os.PathLike)))

def note(event, arguments):
    global left
    if (event == "open" or event in WRITES) and changes(event, arguments):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(note)
sys.argv = sys.argv[3:]
sys.path.insert(0, str(pathlib.Path(script).parent))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print(f"left {left}", flush=True)
"""
"""Runs a script that is killed just before its nth change of a file in a folder."""

Command = tuple[object, ...]


def at_operation(number: int, folder: pathlib.Path, command: Command) -> tuple[int, str]:
    """Runs a script up to its nth change of a file in a folder; its status and output."""
    done = subprocess.run(
        [sys.executable, "-c", AT_OPERATION, folder, str(number), *map(str, command)],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def after_seconds(seconds: float, folder: pathlib.Path, command: Command) -> tuple[int, str]:
    """Runs a script for so long; its status and output."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder.parent,
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


def kill_often(
    command: Command,
    folder: pathlib.Path,
    kills: int,
    operations: int,
    seconds: float,
    check: Callable[[], None],
) -> None:
    """Starts a command until it was killed so often, then lets it end.

    Args:
      command: script and options.
      folder: that it writes.
      kills: in turn before a change of a file, of the first `operations`, and after up to so many
        `seconds`; each moment is drawn at random.
      operations: see `kills`.
      seconds: see `kills`.
      check: looks at the folder after every kill.
    """
    draw = random.Random(12)
    killed = 0
    while killed < kills:
        if killed % 2:
            status, shown = after_seconds(draw.uniform(0, seconds), folder, command)
        else:
            status, shown = at_operation(draw.randint(1, operations), folder, command)
        assert status in (0, KILLED), shown
        killed += status == KILLED
        check()
        if status == 0:  # It came to its end between two kills; again from its beginning.
            files.remove(folder)
    status, shown = after_seconds(SECONDS, folder, command)
    assert status == 0, shown


def count(folder: pathlib.Path, command: Command) -> int:
    """Runs a script to its end; how often it changes a file in the folder."""
    many = 1_000_000
    status, shown = at_operation(many, folder, command)
    assert status == 0, shown
    return many - int(shown.splitlines()[-1].removeprefix("left "))


NUMBER = pytest.mark.parametrize(
    "kills", [6, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
)
TASK = ("--size", 400, "--length", 8, "--high", 3, "--threshold", 12, "--cells", 8)


@NUMBER
def test_a_run_killed_at_any_moment_ends_alike(kills: int, tmp_path: pathlib.Path) -> None:
    script, whole, often = ROOT / "scripts" / "train.py", tmp_path / "whole", tmp_path / "often"
    options = (script, "--seed", 12, *TASK, "--epochs", 40, "--checkpoint-every", 3)
    operations = count(whole, (*options, "--out", whole))
    assert operations > 200

    def check() -> None:
        if (often / runs.CONFIG).exists():
            found = runs.read_config(often)
            status, epoch, wrong = runs.survey(often, found["config"], 12)
            assert wrong == []
            assert status == "finished" or epoch % 3 == 0 or epoch == 40

    # Half of the time goes by before the first epoch.
    kill_often((*options, "--resume", "--out", often), often, kills, operations, 10, check)
    assert results_of(often) == results_of(whole)
    assert {entry.name for entry in often.iterdir()} == {entry.name for entry in whole.iterdir()}


def results_of_batch(path: pathlib.Path) -> dict[str, object]:
    names = (batch.EXPERIMENT, summary.TABLE, summary.SUMMARY_JSON, summary.SUMMARY_MD)
    folders = {folder.name: folder for folder in (path / batch.RUNS).iterdir()}
    return {name: (path / name).read_bytes() for name in names} | {
        name: results_of(folder) for name, folder in folders.items()
    }


@pytest.mark.parametrize(
    ("seeds", "kills"),
    [
        ("0:2", 4),
        pytest.param("0:3", 60, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)]),
        pytest.param("0:64", 20, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)]),
    ],
)
def test_a_batch_killed_at_any_moment_ends_alike(
    seeds: str, kills: int, tmp_path: pathlib.Path
) -> None:
    script, whole, often = ROOT / "scripts/experiment.py", tmp_path / "whole", tmp_path / "often"
    options = (script, "tiny", "--seeds", seeds, "--devices", 2, "--checkpoint-every", 1)
    operations = count(whole, (*options, "--out", whole))
    assert operations > 200
    kill_often((*options, "--out", often), often, kills, operations, 20, lambda: None)
    assert results_of_batch(often) == results_of_batch(whole)
    assert len(list((often / batch.RUNS).iterdir())) == 3 * len(range(*map(int, seeds.split(":"))))
