"""scripts/experiment.py as real processes: alone, interrupted, and several together."""

import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from sumrnn import batch, files, runs, summary
from tests.conftest import ROOT, SECONDS, Script, results_of
from tests.test_batch import contents

TOGETHER = 240
"""Time limit of several processes that work together."""


@pytest.fixture(scope="module")
def tiny(script: Script, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished batch of experiments/tiny.py on two devices.  Do not change it."""
    folder = tmp_path_factory.mktemp("experiment")
    done = script("experiment", "tiny", "--seeds", "0:3", "--devices", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "output").write_text(done.stdout)
    return folder / "runs" / "tiny"


def start(*arguments: object, cwd: pathlib.Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "experiment.py", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_leaves_runs_table_summary_and_figures(tiny: pathlib.Path) -> None:
    rebuilt = (summary.TABLE, summary.SUMMARY_JSON, summary.SUMMARY_MD, runs.FIGURES)
    assert {entry.name for entry in tiny.iterdir()} == {
        files.LOCK,
        batch.EXPERIMENT,
        batch.RUNS,
        *rebuilt,
    }
    assert len(list((tiny / batch.RUNS).iterdir())) == 9
    shown = (tiny.parents[1] / "output").read_text()
    assert shown.splitlines()[0] == "runs 0/9"
    assert "runs 9/9  " in shown
    assert "seed-epochs/s" in shown
    assert "0:00:00 left" in shown
    assert "runs/tiny/summary.md" in shown.splitlines()[-1]


def test_a_run_of_a_batch_is_the_run_of_train(
    tiny: pathlib.Path, script: Script, tmp_path: pathlib.Path
) -> None:
    """The same config and seed: the same bytes, from another script, on another device count."""
    options = ("--size", 500, "--length", 6, "--high", 4, "--threshold", 12, "--cells", 8)
    more = ("--epochs", 3, "--learning-rate", "1e-2", "--seed", 2, "--out", "alone")
    done = script("train", *options, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = batch.run_folder(tiny, "cells-8", 2) / runs.PREDICTIONS
    assert found.read_bytes() == (tmp_path / "alone" / runs.PREDICTIONS).read_bytes()


def test_analyze_rebuilds_the_summary_of_a_batch_and_the_report_of_its_run(
    tiny: pathlib.Path, script: Script, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(tiny, tmp_path / "moved")
    before = contents(path)
    for name in (summary.TABLE, summary.SUMMARY_JSON, summary.SUMMARY_MD):
        (path / name).unlink()
    done = script("analyze", "moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cells-4" in done.stdout
    assert contents(path) == before
    done = script("analyze", "moved/runs/cells-8-seed1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = batch.run_folder(path, "cells-8", 1) / runs.REPORT_MD
    assert "Run cells-8, seed 1" in report.read_text()


def test_a_killed_batch_continues_and_ends_with_the_same_bytes(
    tiny: pathlib.Path, script: Script, tmp_path: pathlib.Path
) -> None:
    arguments = ("tiny", "--seeds", "0:3", "--devices", 2)
    process = start(*arguments, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("runs 2/9"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=SECONDS)
    finished = list(tmp_path.rglob(runs.PREDICTIONS))
    assert 2 <= len(finished) < 9
    done = script("experiment", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith("runs 0/9")
    assert contents(tmp_path / "runs" / "tiny") == contents(tiny)
    for folder in (tiny / batch.RUNS).iterdir():
        again = tmp_path / "runs" / "tiny" / batch.RUNS / folder.name
        assert results_of(again) == results_of(folder)


BAD = {
    "nothing": (("nothing",), "experiment = 'nothing': must be one of reproduce, scale, skew"),
    "path": (("../scripts/train",), "experiment = '../scripts/train': must be one of"),
    "empty seeds": (("tiny", "--seeds", ""), "seeds = '': must be seeds and ranges"),
    "empty range": (("tiny", "--seeds", "4:4"), "seeds = '4:4': must be of ranges that hold"),
    "repeated seeds": (("tiny", "--seeds", "0:3,2"), "seeds = [2]: must be given once each"),
    "word": (("tiny", "--seeds", "all"), "seeds = 'all': must be seeds and ranges"),
    "negative": (("tiny", "--seeds=-1"), "seeds = '-1': must be seeds and ranges"),
    "huge": (("tiny", "--seeds", "0:4294967297"), "must be of seeds up to 4294967295"),
    "devices": (("tiny", "--devices", "0"), "devices = 0: must be at least 1"),
    "per device": (("tiny", "--per-device", "0"), "per_device = 0: must be at least 1"),
    "other folder": (("tiny", "--out", "mine"), "out = 'mine': must be new, empty or a batch"),
    "endless number": (("tiny", "--seeds", "9" * 5000), "must be seeds and ranges"),
    "patience": (
        ("tiny", "--distributed", "--patience", "86400"),
        "patience = 86400: must be at least 1 and below 86400",
    ),
    "no name": (("tiny", "--out", ""), "out = '': must be the name of a folder"),
    "no cluster": (("tiny", "--distributed"), "distributed = True: must be under Slurm"),
    "no port": (("tiny", "--coordinator", "here"), "coordinator = 'here': must be host:port"),
    "half a cluster": (("tiny", "--processes", "2"), "--coordinator, --processes and --process-id"),
    "process": (
        ("tiny", "--coordinator", "a:1", "--processes", "2", "--process-id", "2"),
        "process_id = 2: must be at least 0 and below processes",
    ),
    "unreachable": (
        ("tiny", "--coordinator", "127.0.0.1:9", "--processes", "2", "--process-id", "1",
         "--patience", "2"),
        "coordinator = '127.0.0.1:9': must be reached by every process within 2 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_in_one_line_and_writes_nothing(
    name: str, script: Script, tmp_path: pathlib.Path
) -> None:
    options, message = BAD[name]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    done = script("experiment", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("experiment.py: error: ")
    assert message in line
    assert contents(tmp_path) == {"mine/thesis": b"years"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def cluster(*arguments: object, cwd: pathlib.Path) -> list["subprocess.Popen[str]"]:
    """Two processes of two CPU devices each, on loopback."""
    shared = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", 2, "--devices", 2)
    return [start(*arguments, *shared, "--process-id", i, cwd=cwd) for i in range(2)]


def test_two_processes_give_the_bytes_of_one(tiny: pathlib.Path, tmp_path: pathlib.Path) -> None:
    processes = cluster("tiny", "--seeds", "0:3", cwd=tmp_path)
    outputs = [process.communicate(timeout=TOGETHER) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert contents(tmp_path / "runs" / "tiny") == contents(tiny)
    assert "runs 9/9" in outputs[0][0]
    assert "runs" not in outputs[1][0]


def test_a_refusal_of_the_first_process_ends_the_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_text("mine")
    processes = cluster("tiny", "--out", "mine", cwd=tmp_path)
    outputs = [process.communicate(timeout=TOGETHER) for process in processes]
    assert [process.returncode for process in processes] == [2, 1], outputs
    assert "out = 'mine': must be new" in outputs[0][1]
    assert "process 0 could not go on" in outputs[1][1]
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_with_an_error(
    victim: int, tmp_path: pathlib.Path
) -> None:
    processes = cluster("spread", cwd=tmp_path)
    shown = processes[0].stdout
    assert shown is not None
    for line in shown:
        if "epoch 1/" in line:
            break
    time.sleep(1)
    processes[victim].kill()
    other = processes[1 - victim]
    try:
        _, errors = other.communicate(timeout=SECONDS)
    finally:
        other.kill()
    if victim == 1:
        assert other.returncode == 1
        assert errors.splitlines()[-1].startswith("experiment.py: error: process 0 of 2 ends")
    else:
        # The runtime itself aborts when its coordinator is gone.
        assert other.returncode not in (0, None)
        assert "another task died" in errors or "lost another one" in errors
