"""scripts/train.py: what a person types, sees and finds on disk."""

import csv
import json
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sumrnn import fields
from sumrnn.config import Config
from sumrnn.devices import compiler, machine
from sumrnn.report import run as report
from sumrnn.runs import files, origin
from sumrnn.runs.folder import CONFIG, FIGURES, HISTORY, PREDICTIONS, PROBES, REST, RunFolder
from sumrnn.runs.folder import REPORT_JSON as REPORT
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL_OPTIONS,
    THREE,
    TRAIN,
    Done,
    call,
    files_of,
    refused,
    results_of,
    run_script,
    train,
)

pytestmark = pytest.mark.usefixtures("quick_figures")
Trained = tuple[pathlib.Path, Done]
Start = Callable[..., "subprocess.Popen[str]"]


# --- what it leaves -----------------------------------------------------------------------


def test_the_folder_is_complete(trained: Trained) -> None:
    path, _ = trained
    assert {entry.name for entry in path.iterdir()} == {files.LOCK, CONFIG, *REST} - {PROBES}
    drawn = {entry.name for entry in (path / FIGURES).iterdir()}
    assert drawn == {f"{name}.png" for name in report.FIGURES}
    described = json.loads((path / CONFIG).read_text())
    assert set(described["versions"]) == {"code", "exact", "python", "sumrnn", *origin.PACKAGES}
    with (path / HISTORY).open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_it_prints_a_plain_line_per_epoch_and_the_scores(trained: Trained) -> None:
    path, done = trained
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line[:11] for line in lines[:2]] == ["epoch  1/2 ", "epoch  2/2 "]
    test = json.loads((path / REPORT).read_text())["test"]
    for name, score in (
        ("test accuracy", "accuracy"),
        ("constant answer", "majority_accuracy"),
        ("balanced accuracy", "balanced_accuracy"),
    ):
        (line,) = (line for line in lines if line.startswith(name))
        assert f"{test[score]:.2%}".replace("%", " %") in line
    for name, count in test["confusion"].items():
        assert f"{name.upper()} {count}" in done.stdout
    assert "runs/sheet-seed7/report.html" in lines[-1]
    assert "\x1b" not in done.stdout


def test_a_run_in_the_way_is_kept_unless_asked(trained: Trained, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(trained[0], tmp_path / "runs" / "sheet-seed7")
    before, arguments = files_of(path), ("--seed", 7, *SMALL_OPTIONS)
    line = refused("train", *arguments, cwd=tmp_path)
    assert line.startswith("runs/sheet-seed7: must be new or empty; --resume continues")
    done = call("train", *arguments, "--overwrite", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    # A run is a function of config and seed: the same bits, but for the wall clock.
    assert results_of(path) == results_of(trained[0])
    assert files_of(path)[PREDICTIONS] == before[PREDICTIONS]


FLAG = "--xla_cpu_enable_fast_math=false"


def test_a_run_goes_on_without_its_options_elsewhere_if_asked_to_the_same_results(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, whole = "c\\u t≥", results_of(train(tmp_path / "whole", THREE).path)
    folder = train(tmp_path / name, THREE, until=2)  # Nothing is special in a name.
    folder.checkpoints.file(2).write_bytes(b"")
    monkeypatch.setenv("XLA_FLAGS", FLAG)  # Which changes nothing here.
    resume = ("train", "--resume", "--out", name)
    line = refused(*resume, cwd=tmp_path)
    assert line.startswith(f"{name}/config.json: was made with XLA_FLAGS unset, this is {FLAG}, ")
    assert line.endswith("--anyway continues and records it")
    done = call(*resume, "--anyway", cwd=tmp_path)
    assert done.status == 0
    assert done.err.startswith(f"train.py: warning: {name}/checkpoints/2.npz: damaged (")
    assert done.err.endswith("); continuing after epoch 1\n")
    epochs = [line.split()[1] for line in done.out.splitlines() if line.startswith("epoch")]
    assert epochs == ["2/3", "3/3"]
    (continued,) = folder.read().continued
    assert (continued["epoch"], continued["settings"]) == (1, {"XLA_FLAGS": FLAG})
    found, before = results_of(folder.path), files_of(folder.path)
    assert found["report.json"]["run"]["continued"] is True
    assert {name: found[name] for name in whole} == whole | {"config.json": found["config.json"]}
    # The end of a run is no reason to train again, nor to be where it was made.
    monkeypatch.delenv("XLA_FLAGS")
    done = call(*resume, "--seed", 7, *SMALL_OPTIONS, "--epochs", 3, cwd=tmp_path)
    assert (done.status, done.err, "epoch" in done.out) == (0, "", False)
    assert files_of(folder.path) == before
    for anyway in ((), ("--anyway",)):
        line = refused(*resume, *anyway, "--preset", "sheet", cwd=tmp_path)
        assert "config.json: is of another run; its size is 200, not 10000" in line


# --- help and misuse ----------------------------------------------------------------------

DEFAULTS = fields.to_dict(Config())
OPTIONS = {
    "preset": "sheet",
    "seed": 0,
    "out": None,
    "checkpoint_every": None,
    **dict.fromkeys(("overwrite", "resume", "anyway"), False),
    **{name: DEFAULTS[name] for name in DEFAULTS if name.endswith("_seed")},
    **{name: x for part in ("task", "model", "train") for name, x in DEFAULTS[part].items()},
}
"""Of the command line, and their defaults."""


def test_help_names_every_option_with_its_default(tmp_path: pathlib.Path) -> None:
    done = call("train", "--help", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.replace("│", " ").split())
    for name, default in OPTIONS.items():
        option = f"--{name.replace('_', '-')} "
        words, _, after = text.partition(option)[2].partition("(default: ")
        assert " --" not in words, option
        assert after.partition(")")[0] == str(default), option
    notebook = call("train", "--preset", "notebook", "--help", cwd=tmp_path).out
    assert notebook.count("(default: 8)") == 1


BAD = {
    "low above high": (("--low", "10"), "high = 9: must be between 10 and 255"),
    "preset": (("--preset", "book"), "preset = 'book': must be 'sheet' or 'notebook' or "),
    "word for a number": (("--epochs", "many"), "--epochs: invalid literal for int()"),
    "choice": (("--initializer", "torch"), "'torch' for argument '--initializer'"),
    "no checkpoints": (("--checkpoint-every", "0"), "checkpoint_every = 0: must be between 1 and"),
    "both": (("--resume", "--overwrite"), "overwrite = True: must be without --resume"),
    "no name": (("--out", ""), "out = '': must be the name of a folder"),
    "file in the way": (("--out", "file"), "file: must be new, empty or a run folder"),
    "foreign folder": (("--out", "mine", "--overwrite"), "mine: must be new, empty or a run"),
    "name of two lines": (
        (*SMALL_OPTIONS, "--out", "file/a\nb"),
        "file/a\\nb: must be a folder that can be written",
    ),
    "name in no encoding": (("--out", "\udcff"), "out = '\\udcff': must be the name of a folder"),
    "long name": (("--out", "new/" + "x" * 300), "must be the name of a folder"),
    "address": (("--out", "gs://bucket/run"), "out = 'gs://bucket/run': must be a folder of this"),
    "file as a parent": ((*SMALL_OPTIONS, "--out", "file/run"), "file/run: must be a folder that"),
}


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_in_one_line_and_writes_nothing(name: str, among_mine: pathlib.Path) -> None:
    options, message = BAD[name]
    assert message in refused("train", *options, cwd=among_mine)


def test_the_compiler_knows_what_memory_does_not_hold(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles; nothing of it may be run."""
    quick = [{"xla_backend_optimization_level": 0}] * 4
    monkeypatch.setattr(compiler, "options", lambda platform: quick)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 0.6 * 2**30)
    options = ("--size", 50_000, "--batch-size", 36_000)
    line = refused("train", *options, cwd=tmp_path)
    assert line.startswith("batch_size = 36000: must be small enough for memory: the run needs ")


# --- real processes -----------------------------------------------------------------------


def test_divergence_is_told_with_its_own_status(tmp_path: pathlib.Path) -> None:
    options = (*SMALL_OPTIONS, "--batch-size", 48, "--learning-rate", "1e38")
    done = call("train", *options, cwd=tmp_path)
    assert done.status == 3
    (line,) = done.err.splitlines()
    assert line.startswith("train.py: error: loss = ")
    assert "must be finite; a learning_rate below 1e+38 may help" in line
    again = call("train", "--resume", cwd=tmp_path)
    assert (again.status, again.err) == (3, done.err)
    line = refused("analyze", "runs/sheet-seed0", cwd=tmp_path)
    message = "predictions.npz: missing, because the run diverged (see history.csv)"
    assert line == f"runs/sheet-seed0/{message}"


@pytest.fixture
def endless(start: Start, tmp_path: pathlib.Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a run that goes on, and waits until its first epoch is over."""

    def begin(*options: object) -> "subprocess.Popen[str]":
        arguments = (*SMALL_OPTIONS, *options, "--epochs", "100000")
        process: subprocess.Popen[str] = start(*TRAIN, *arguments, cwd=tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch ")
        return process

    return begin


NOTICE = "train.py: ends after this epoch; once more ends it now\n"


def test_a_signal_ends_after_the_epoch_and_says_how_to_go_on(
    endless: Any, tmp_path: pathlib.Path
) -> None:
    process = endless()
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    last = int(shown.splitlines()[-1].removeprefix("epoch ").partition("/")[0])
    said = f"train.py: error: interrupted after epoch {last} of 100000; python "
    notice, line = errors.splitlines(keepends=True)
    assert notice == NOTICE
    assert line.startswith(said)
    assert line.endswith(" --resume --out runs/sheet-seed0 continues\n")
    folder = RunFolder(tmp_path / "runs" / "sheet-seed0")
    config = folder.read().config
    assert folder.checkpoints.newest(config, 0) == (last, [])
    assert len((folder.path / HISTORY).read_text().splitlines()) == 1 + last


@pytest.mark.parametrize("reads_errors", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_closed_pipe_ends_after_the_epoch_and_says_how_to_go_on(
    reads_errors: bool, endless: Any, tmp_path: pathlib.Path
) -> None:
    """As `| head`; and as `2>&1 | tee log`, which a Ctrl-C ends too."""
    process = endless("--checkpoint-every", 100_000)
    process.stdout.close()
    if not reads_errors:
        process.stderr.close()
    assert process.wait(timeout=SECONDS) == 141
    folder = RunFolder(tmp_path / "runs" / "sheet-seed0")
    last, wrong = folder.checkpoints.newest(folder.read().config, 0)
    assert last > 1
    assert wrong == []
    if reads_errors:
        said = "train.py: error: stopped, because nobody reads the output any more, after epoch "
        line = process.stderr.read()
        assert line.startswith(f"{said}{last} of 100000; python ")
        assert line.endswith(" --resume --out runs/sheet-seed0 continues\n")


@pytest.mark.slow
def test_closed_streams_do_not_disturb(trained: Trained, tmp_path: pathlib.Path) -> None:
    options = map(str, (*TRAIN, "--seed", 7, *SMALL_OPTIONS, "--out", tmp_path / "run"))
    closed = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *options)
    assert subprocess.run(closed, timeout=SECONDS, check=False).returncode == 0
    assert results_of(tmp_path / "run") == results_of(trained[0])


def test_an_unknown_platform_is_misuse(tmp_path: pathlib.Path) -> None:
    done = run_script("train", *SMALL_OPTIONS, cwd=tmp_path, JAX_PLATFORMS="abacus")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.py: error: JAX_PLATFORMS = 'abacus': must be platforms that")
    assert files_of(tmp_path) == {}


WAITING = """
import time
from sumrnn.cli import command

def main(argv):
    print("ready", flush=True)
    time.sleep(600)

command.run(main)
"""


def test_a_signal_outside_of_training_ends_in_one_line(start: Start) -> None:
    process = start(sys.executable, "-c", WAITING, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (143, "-c: error: terminated\n")
