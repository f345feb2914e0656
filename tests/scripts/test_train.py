"""scripts/train.py: what a person types, sees and finds on disk."""

import csv
import dataclasses
import json
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sumrnn.devices import compiler, memory, mesh
from sumrnn.report import run as report
from sumrnn.runs import files, origin
from sumrnn.runs.folder import CONFIG, FIGURES, HISTORY, PREDICTIONS, REST, RunFolder
from sumrnn.runs.folder import REPORT_JSON as REPORT
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL,
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
    wait_for,
)

Trained = tuple[pathlib.Path, Done]
Start = Callable[..., "subprocess.Popen[str]"]


# --- what it leaves -----------------------------------------------------------------------


def test_the_folder_is_complete(trained: Trained) -> None:
    path, _ = trained
    assert {entry.name for entry in path.iterdir()} == {files.LOCK, CONFIG, *REST}
    drawn = {entry.name for entry in (path / FIGURES).iterdir()}
    assert drawn == {f"{name}.png" for name in report.FIGURES}
    described = json.loads((path / CONFIG).read_text())
    assert described["seed"] == 7
    assert described["config"]["task"]["length"] == 5
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


def test_the_report_can_be_recomputed_from_the_predictions(trained: Trained) -> None:
    """With nothing but NumPy and the definitions."""
    path, _ = trained
    found = json.loads((path / REPORT).read_text())
    with np.load(path / PREDICTIONS) as arrays:
        digits, labels, logits = (arrays[name] for name in ("digits", "labels", "logits"))
    assert (digits.shape, digits.dtype, logits.dtype) == ((40, 5), np.uint8, np.float32)
    np.testing.assert_array_equal(labels, digits.sum(axis=1) >= 8)
    answers = logits > 0
    test = found["test"]
    tn, fp, fn, tp = (
        int(((labels == label) & (answers == answer)).sum())
        for label in (0, 1)
        for answer in (0, 1)
    )
    assert test["confusion"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
    assert test["accuracy"] == pytest.approx((tn + tp) / 40)
    assert test["balanced_accuracy"] == pytest.approx((tn / (tn + fp) + tp / (tp + fn)) / 2)
    assert test["brier_score"] == pytest.approx(np.mean((1 / (1 + np.exp(-logits)) - labels) ** 2))
    ways = [sum(series) >= 8 for series in np.ndindex(*[4] * 5)]
    assert found["task"]["positive_rate"] == pytest.approx(np.mean(ways), abs=1e-12)
    majority = int(np.mean(ways) >= 0.5)
    assert test["majority_accuracy"] == pytest.approx(np.mean(labels == majority))
    assert math.isclose(test["positive_share"], labels.mean())


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


@pytest.mark.slow
def test_a_run_goes_on_without_its_options_to_the_same_results(tmp_path: pathlib.Path) -> None:
    options = ("--seed", 7, *SMALL_OPTIONS, "--epochs", 7, "--preset", "notebook", "--high", 3)
    whole = call("train", *options, "--out", "whole", cwd=tmp_path)
    assert (whole.status, whole.err) == (0, "")
    config = RunFolder(tmp_path / "whole").read().config
    five = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=5))
    name = "c\\u t≥"  # Nothing is special in a name.
    cut = RunFolder(pathlib.Path(shutil.copytree(tmp_path / "whole", tmp_path / name)))
    shutil.copy(train(tmp_path / "five", five).checkpoints.file(5), cut.checkpoints.path)
    cut.checkpoints.forget(6)
    (cut.path / PREDICTIONS).unlink()
    again = call("train", "--resume", "--out", name, cwd=tmp_path)
    assert again.status == 0
    warning, _, rest = again.err.partition("predictions.npz: missing; ")
    assert (warning, rest) == (f"train.py: warning: {name}/", "continuing after epoch 5\n")
    epochs = [line.split()[1] for line in again.out.splitlines() if line.startswith("epoch")]
    assert epochs == ["6/7", "7/7"]
    assert results_of(cut.path) == results_of(tmp_path / "whole")
    before = files_of(cut.path)
    # With its options, and the end of a run is no reason to train again.
    done = call("train", *options, "--resume", "--out", name, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert "epoch" not in done.out
    assert files_of(cut.path) == before
    line = refused("train", "--resume", "--out", name, "--preset", "sheet", cwd=tmp_path)
    assert "is of another run; its size is 200, not 10000" in line


# --- help and misuse ----------------------------------------------------------------------

DEFAULTS = {
    "--preset": "sheet",
    "--seed": "0",
    "--size": "10000",
    "--length": "30",
    "--low": "0",
    "--high": "9",
    "--threshold": "100",
    "--test-fraction": "0.2",
    "--validation-fraction": "0.1",
    "--cells": "200",
    "--initializer": "keras",
    "--recurrence": "fused",
    "--epochs": "60",
    "--batch-size": "50",
    "--batch-shards": "2",
    "--learning-rate": "0.001",
    "--beta1": "0.9",
    "--beta2": "0.999",
    "--epsilon": "1e-08",
    "--data-seed": "None",
    "--init-seed": "None",
    "--shuffle-seed": "None",
    "--out": "None",
    "--overwrite": "False",
    "--resume": "False",
    "--anyway": "False",
    "--checkpoint-every": "None",
}


def test_help_names_every_option_with_its_default(tmp_path: pathlib.Path) -> None:
    done = call("train", "--help", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.replace("│", " ").split())
    assert {word for word in text.split() if word.startswith("--")} >= {*DEFAULTS, "--help"}
    for option, default in DEFAULTS.items():
        words, _, after = text.partition(f"{option} ")[2].partition("(default: ")
        assert " --" not in words, option
        assert after.partition(")")[0] == default, option
    notebook = call("train", "--preset", "notebook", "--help", cwd=tmp_path).out
    assert notebook.count("(default: 8)") == 1


BAD = {
    "negative size": (("--size", "-5"), "size = -5: must be between 1 and 2147483647"),
    "low above high": (("--low", "10"), "high = 9: must be between 10 and 255"),
    "unreachable threshold": (("--threshold", "271"), "threshold = 271: must be between 0 and 270"),
    "large batch": (("--batch-size", "7201"), "batch_size = 7201: must be between 1 and 7200"),
    "no shard": (("--batch-shards", "0"), "batch_shards = 0: must be between 1 and 1024"),
    "fraction": (("--test-fraction", "1"), "test_fraction = 1.0: must be between 1e-10 and"),
    "preset": (("--preset", "book"), "preset = 'book': must be 'sheet' or 'notebook' or "),
    "seed": (("--seed", "-1"), "seed = -1: must be between 0 and 4294967295"),
    "word for a number": (("--epochs", "many"), "--epochs: invalid literal for int()"),
    "word for a seed": (("--data-seed", "x"), "--data-seed: "),
    "choice": (("--initializer", "torch"), "'torch' for argument '--initializer'"),
    "not a number": (("--learning-rate", "nan"), "learning_rate = nan: must be a finite number"),
    "unknown option": (("--colour", "red"), "--colour"),
    "missing value": (("--seed",), "'--seed'"),
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
    "address of a file system": (("--out", "s3:/run"), "out = 's3:/run': must be a folder of this"),
    "file as a parent": ((*SMALL_OPTIONS, "--out", "file/run"), "file/run: must be a folder that"),
}


@pytest.fixture
def among_mine(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a file and a folder of somebody."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_in_one_line_and_writes_nothing(name: str, among_mine: pathlib.Path) -> None:
    options, message = BAD[name]
    assert message in refused("train", *options, cwd=among_mine)


def test_misuse_of_a_process(among_mine: pathlib.Path) -> None:
    """Where the terminal has no UTF-8, too."""
    options, _ = BAD["word for a number"]
    before, ascii_only = files_of(among_mine), {"PYTHONIOENCODING": "ascii"}
    done = run_script("train", *options, cwd=among_mine, **ascii_only)
    assert (done.returncode, done.stdout, done.stderr) == call("train", *options, cwd=among_mine)
    assert (done.returncode, files_of(among_mine)) == (2, before)


LARGE = {
    "size": ("--size", 2_000_000, "--length", 1_000),
    "length": ("--length", 10_000),
    "cells": ("--cells", 16_384),
    "batch_size": ("--size", 2_000_000, "--batch-size", 1_440_000),
    "batch_shards": ("--size", 20_000, "--batch-shards", 1_024),
}


@pytest.mark.parametrize("field", LARGE)
def test_what_memory_does_not_hold_is_refused_before_anything_is_made(
    field: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = types.SimpleNamespace(rows=1, at_once=False)
    program = types.SimpleNamespace(plan=plan, bytes_needed=100 << 30)
    monkeypatch.setattr(mesh, "_program", lambda config, plan: program)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4.0 * 2**30)
    line = refused("train", *LARGE[field], cwd=tmp_path)
    value = LARGE[field][-1] if field != "size" else 2_000_000
    told = f"{field} = {value}: must be small enough for memory: the run needs 100.0 GiB, of which"
    assert line.startswith(told)


@pytest.mark.parametrize(
    "field",
    [
        "batch_size",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE if name != "batch_size"),
    ],
)
def test_the_compiler_knows_what_memory_does_not_hold(
    field: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles; nothing of it may be run."""
    quick = [{"xla_backend_optimization_level": 0}] * 4
    monkeypatch.setattr(compiler, "options", lambda platform: quick)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 0.6 * 2**30)
    line = refused("train", *LARGE[field], cwd=tmp_path)
    assert line.startswith(f"{field} = ")
    assert ": must be small enough for memory: the run needs " in line


# --- another machine, an older program -----------------------------------------------------


FLAG = "--xla_cpu_enable_fast_math=false"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of `THREE` without an interruption."""
    return results_of(train(tmp_path_factory.mktemp("three"), THREE).path)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        pytest.param("settings", "XLA_FLAGS", marks=pytest.mark.slow),
        pytest.param("device", "kind", marks=pytest.mark.slow),
        pytest.param("versions", "jax", marks=pytest.mark.slow),
    ],
)
def test_another_machine_is_refused_unless_asked_and_then_recorded(
    part: str,
    name: str,
    three: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = train(tmp_path / "run", THREE, until=2)
    if part == "settings":
        monkeypatch.setenv(name, FLAG)
    else:
        here = getattr(origin, part)()
        monkeypatch.setattr(origin, part, lambda: here | {name: FLAG})
    resume = ("train", "--resume", "--out", "run")
    line = refused(*resume, cwd=tmp_path)
    assert line.startswith(f"run/config.json: was made with {name} ")
    assert f", this is {FLAG}, which may give other bits; " in line
    assert line.endswith("--anyway continues and records it")
    done = call(*resume, "--anyway", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    (continued,) = folder.read().continued
    assert (continued["epoch"], continued[part][name]) == (2, FLAG)  # type: ignore[literal-required]
    found = results_of(folder.path)
    assert found["report.json"]["run"]["continued"] is True
    # Nothing is really another.
    assert {name: found[name] for name in three} == three | {"config.json": found["config.json"]}
    monkeypatch.undo()
    assert folder.survey(THREE, 7).status == "finished"  # No bits are made any more.


def test_a_folder_of_the_format_before_is_told_apart(
    trained: Trained, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
    content = json.loads((path / CONFIG).read_text()) | {"format": 4}
    (path / CONFIG).write_text(json.dumps(content))
    message = "run/config.json: has format 4, of another version of this program; this one reads"
    assert message in refused("train", "--resume", "--out", "run", cwd=tmp_path)
    assert message in refused("analyze", "run", cwd=tmp_path)
    line = refused("train", *SMALL_OPTIONS, "--out", "run", cwd=tmp_path)
    assert line.startswith("run: must be new or empty")


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


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_after_the_epoch_and_says_how_to_go_on(
    number: signal.Signals, status: int, word: str, endless: Any, tmp_path: pathlib.Path
) -> None:
    process = endless()
    process.send_signal(number)
    shown, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == status
    last = int(shown.splitlines()[-1].removeprefix("epoch ").partition("/")[0])
    said = f"train.py: error: {word} after epoch {last} of 100000; python "
    notice, line = errors.splitlines(keepends=True)
    assert notice == NOTICE
    assert line.startswith(said)
    assert line.endswith(" --resume --out runs/sheet-seed0 continues\n")
    folder = RunFolder(tmp_path / "runs" / "sheet-seed0")
    config = folder.read().config
    assert folder.checkpoints.newest(config, 0) == (last, [])
    assert len((folder.path / HISTORY).read_text().splitlines()) == 1 + last


STUCK = """
import sys, time
from sumrnn.cli import command, train
from sumrnn.devices.wave import Wave

step = Wave.step

def late(wave):
    time.sleep(600 if wave.epoch else 0)
    return step(wave)

Wave.step, sys.argv[0] = late, "train.py"
command.run(train.main)
"""


def test_a_second_signal_ends_at_once(start: Start, tmp_path: pathlib.Path) -> None:
    """In the midst of an epoch without an end; what was kept before is still there."""
    arguments = ("--seed", 7, *SMALL_OPTIONS, "--checkpoint-every", 1, "--out", "run")
    process = start(sys.executable, "-c", STUCK, *arguments, cwd=tmp_path)
    wait_for(process, "epoch  1/2")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == NOTICE
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, shown, errors) == (130, "", "train.py: error: interrupted\n")
    assert RunFolder(tmp_path / "run").survey(SMALL, 7) == ("unfinished", 1, [])


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


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_outside_of_training_ends_in_one_line(
    number: signal.Signals, said: str, start: Start
) -> None:
    process = start(sys.executable, "-c", WAITING, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (128 + number, f"-c: error: {said}\n")
