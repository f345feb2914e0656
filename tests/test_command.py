"""The command line as real processes: what a person types, sees and finds on disk."""

import csv
import json
import math
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from sumrnn import checkpoint, files, report, runs
from tests.conftest import ROOT, SECONDS, SMALL_OPTIONS, Script, files_of, results_of

Trained = tuple[pathlib.Path, "subprocess.CompletedProcess[str]"]


def test_the_folder_is_complete(trained: Trained) -> None:
    path, _ = trained
    assert {entry.name for entry in path.iterdir()} == {files.LOCK, *runs.ENTRIES}
    assert {entry.name for entry in (path / runs.FIGURES).iterdir()} == {
        f"{name}.png" for name in report.FIGURES
    }
    described = json.loads((path / runs.CONFIG).read_text())
    assert described["seed"] == 7
    assert described["config"]["task"]["length"] == 5
    assert set(described["versions"]) == {"code", "python", *runs.PACKAGES}
    with (path / runs.HISTORY).open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_it_prints_a_plain_line_per_epoch_and_the_scores(trained: Trained) -> None:
    path, done = trained
    lines = done.stdout.splitlines()
    assert [line[:11] for line in lines[:2]] == ["epoch  1/2 ", "epoch  2/2 "]
    test = json.loads((path / runs.REPORT_JSON).read_text())["test"]
    for name, score in (
        ("test accuracy", "accuracy"),
        ("constant answer", "majority_accuracy"),
        ("balanced accuracy", "balanced_accuracy"),
    ):
        (line,) = (line for line in lines if line.startswith(name))
        assert f"{test[score]:.2%}".replace("%", " %") in line
    for name, count in test["confusion"].items():
        assert f"{name.upper()} {count}" in done.stdout
    assert "runs/sheet-seed7/report.md" in lines[-1]
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stderr


def test_the_report_can_be_recomputed_from_the_predictions(trained: Trained) -> None:
    """With nothing but NumPy and the definitions."""
    path, _ = trained
    found = json.loads((path / runs.REPORT_JSON).read_text())
    with np.load(path / runs.PREDICTIONS) as arrays:
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


def test_analyze_rebuilds_the_same_report(
    script: Script, trained: Trained, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(trained[0], tmp_path / "moved")
    before = files_of(path)
    for name in (runs.REPORT_JSON, runs.REPORT_MD):
        (path / name).unlink()
    shutil.rmtree(path / runs.FIGURES)
    shutil.rmtree(path / runs.CHECKPOINTS)
    done = script("analyze", "moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    after = files_of(path)
    assert after == {name: before[name] for name in after}
    assert {name for name in before if not name.startswith(runs.CHECKPOINTS)} == set(after)


def test_a_run_in_the_way_is_kept_unless_asked(
    script: Script, trained: Trained, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(trained[0], tmp_path / "runs" / "sheet-seed7")
    before = files_of(path)
    refused = script("train", "--seed", 7, *SMALL_OPTIONS, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert files_of(path) == before
    done = script("train", "--seed", 7, "--overwrite", *SMALL_OPTIONS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = files_of(path)
    # A run is a function of config and seed: the same bytes, but for the wall clock.
    assert after[runs.PREDICTIONS] == before[runs.PREDICTIONS]
    assert after[runs.CONFIG] == before[runs.CONFIG]


def test_help_names_every_option_with_its_default(script: Script, tmp_path: pathlib.Path) -> None:
    done = script("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    text = " ".join(done.stdout.replace("│", " ").split())
    for option, default in (
        ("--preset", "sheet"),
        ("--seed", "0"),
        ("--size", "10000"),
        ("--length", "30"),
        ("--low", "0"),
        ("--high", "9"),
        ("--threshold", "100"),
        ("--test-fraction", "0.2"),
        ("--validation-fraction", "0.1"),
        ("--cells", "200"),
        ("--initializer", "keras"),
        ("--recurrence", "fused"),
        ("--epochs", "60"),
        ("--batch-size", "50"),
        ("--batch-shards", "2"),
        ("--learning-rate", "0.001"),
        ("--beta1", "0.9"),
        ("--beta2", "0.999"),
        ("--epsilon", "1e-08"),
        ("--data-seed", "None"),
        ("--init-seed", "None"),
        ("--shuffle-seed", "None"),
        ("--out", "None"),
        ("--overwrite", "False"),
        ("--resume", "False"),
        ("--checkpoint-every", "None"),
    ):
        after = text.partition(f"{option} ")[2]
        assert after, option
        help_text = after.partition("(default: ")
        assert " --" not in help_text[0], option
        assert help_text[2].partition(")")[0] == default, option
    notebook = script("train", "--preset", "notebook", "--help", cwd=tmp_path).stdout
    assert notebook.count("(default: 8)") == 1


BAD = {
    "negative size": (("--size", "-5"), "size = -5: must be at least 1"),
    "low above high": (("--low", "10"), "high = 9: must be between 10 and 255"),
    "unreachable threshold": (("--threshold", "271"), "threshold = 271: must be between 0 and 270"),
    "large batch": (("--batch-size", "7201"), "batch_size = 7201: must be between 1 and 7200"),
    "no shard": (("--batch-shards", "0"), "batch_shards = 0: must be between 1 and 1024"),
    "fraction": (("--test-fraction", "1"), "test_fraction = 1.0: must be between 0 and 1"),
    "preset": (("--preset", "book"), "preset = 'book': must be 'sheet' or 'notebook'"),
    "seed": (("--seed", "-1"), "seed = -1: must be between 0 and 4294967295"),
    "word for a number": (("--epochs", "many"), "--epochs: invalid literal for int()"),
    "word for a seed": (("--data-seed", "x"), "--data-seed: "),
    "choice": (("--initializer", "torch"), "'torch' for argument '--initializer'"),
    "not a number": (("--learning-rate", "nan"), "learning_rate = nan: must be a finite number"),
    "unknown option": (("--colour", "red"), "--colour"),
    "missing value": (("--seed",), "'--seed'"),
    "no checkpoints": (("--checkpoint-every", "0"), "checkpoint_every = 0: must be at least 1"),
    "both": (("--resume", "--overwrite"), "overwrite = True: must be left out with --resume"),
    "no name": (("--out", ""), "out = '': must be the name of a folder"),
    "file in the way": (("--out", "file"), "out = 'file': must be new, empty or a run folder"),
    "name of two lines": (("--out", "file/a\nb"), "out = 'file/a\\nb': must be a folder"),
    "name in no encoding": (("--out", "\udcff"), "out = '\\udcff': must be the name of a folder"),
    "long name": (("--out", "new/" + "x" * 300), "must be the name of a folder"),
    "more than memory": (
        ("--size", "2000000000", "--length=1", "--threshold=5", "--batch-size", "1000000000"),
        "batch_size = 1000000000: must be small enough for memory: the run needs about 9,",
    ),
    "file as a parent": (("--out", "file/run"), "out = 'file/run': must be a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_at_once_in_one_line(name: str, script: Script, tmp_path: pathlib.Path) -> None:
    options, message = BAD[name]
    (tmp_path / "file").write_text("mine")
    done = script("train", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.py: error: ")
    assert message in line
    assert files_of(tmp_path) == {"file": b"mine"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["absent", "file", "empty", "half"])
def test_analyze_refuses_what_is_no_finished_run(
    name: str, script: Script, trained: Trained, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    shutil.copytree(trained[0], tmp_path / "half")
    (tmp_path / "half" / runs.PREDICTIONS).unlink()
    before = files_of(tmp_path)
    done = script("analyze", name, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"analyze.py: error: {name}")
    assert files_of(tmp_path) == before


def test_divergence_is_told_with_its_own_status(script: Script, tmp_path: pathlib.Path) -> None:
    done = script("train", *SMALL_OPTIONS, "--learning-rate", "1e38", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "must be finite" in line
    refused = script("analyze", "runs/sheet-seed0", cwd=tmp_path)
    assert refused.returncode == 2
    assert "predictions.npz: missing, because the run diverged" in refused.stderr
    again = script("train", "--resume", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (3, done.stderr)


TRAIN = ROOT / "scripts" / "train.py"


def start_endless(folder: pathlib.Path, *options: str) -> "subprocess.Popen[str]":
    """A run that goes on; its first epoch is over."""
    process = subprocess.Popen(
        [sys.executable, TRAIN, *SMALL_OPTIONS, *options, "--epochs", "100000"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch ")
    return process


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_after_the_epoch_and_says_how_to_go_on(
    number: signal.Signals, status: int, word: str, tmp_path: pathlib.Path
) -> None:
    process = start_endless(tmp_path)
    process.send_signal(number)
    shown, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == status
    last = int(shown.splitlines()[-1].removeprefix("epoch ").partition("/")[0])
    notice, line = errors.splitlines()
    assert notice == "train.py: ends after this epoch; once more ends it now"
    assert line.startswith(f"train.py: error: {word} after epoch {last} of 100000; python ")
    assert line.endswith(" --resume --out runs/sheet-seed0 continues")
    folder = tmp_path / "runs" / "sheet-seed0"
    assert max(checkpoint.epochs(folder)) == last
    assert len((folder / runs.HISTORY).read_text().splitlines()) == 1 + last


def test_a_second_interrupt_ends_at_once_and_keeps_the_last_epoch(tmp_path: pathlib.Path) -> None:
    """In the midst of an epoch of seconds, after one that was not yet due to be kept."""
    process = start_endless(tmp_path, "--size", "20000", "--length", "100", "--cells", "100")
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "train.py: ends after this epoch; once more ends it now\n"
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, shown, errors) == (130, "", "train.py: error: interrupted\n")
    folder = tmp_path / "runs" / "sheet-seed0"
    assert checkpoint.newest(folder, runs.read_config(folder)["config"]) == (1, [])


def test_a_run_goes_on_without_its_options_to_the_same_results(
    script: Script, tmp_path: pathlib.Path
) -> None:
    options = ("--seed", 7, *SMALL_OPTIONS, "--epochs", 7, "--preset", "notebook")
    every = ("--checkpoint-every", 5)
    whole = script("train", *options, *every, "--high", 3, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in (files.SUMS, runs.PREDICTIONS, runs.REPORT_JSON, f"{runs.CHECKPOINTS}/7"):
        files.remove(tmp_path / "cut" / name)
    again = script("train", "--resume", "--out", "cut", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    epochs = [line.split()[1] for line in again.stdout.splitlines() if line.startswith("epoch")]
    assert epochs == ["6/7", "7/7"]
    assert results_of(tmp_path / "cut") == results_of(tmp_path / "whole")
    before = files_of(tmp_path / "cut")
    # With its options, and the end of a run is no reason to train again.
    done = script("train", *options, "--high", 3, "--resume", "--out", "cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stdout
    assert files_of(tmp_path / "cut") == before
    other = script("train", "--resume", "--out", "cut", "--preset", "sheet", cwd=tmp_path)
    assert other.returncode == 2
    assert "is of another run; its size is 200, not 10000" in other.stderr
    assert files_of(tmp_path / "cut") == before


def test_a_closed_pipe_ends_in_one_line(tmp_path: pathlib.Path) -> None:
    process = start_endless(tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=SECONDS) == 1
    assert "nobody reads the output" in process.stderr.read()


UNNOTICED = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "5",
}


def test_the_environment_changes_no_number(
    script: Script, trained: Trained, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in UNNOTICED.items():
        monkeypatch.setenv(name, value)
    done = script("train", "--seed", 7, *SMALL_OPTIONS, "--out", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert results_of(tmp_path / "run") == results_of(trained[0])


def test_an_unknown_platform_is_misuse(
    script: Script, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    done = script("train", *SMALL_OPTIONS, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.py: error: JAX_PLATFORMS = 'abacus': must be platforms that")
    assert files_of(tmp_path) == {}


def test_closed_streams_do_not_disturb(trained: Trained, tmp_path: pathlib.Path) -> None:
    options = map(str, ("--seed", 7, *SMALL_OPTIONS, "--out", tmp_path / "run"))
    train = (sys.executable, str(ROOT / "scripts" / "train.py"), *options)
    closed = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *train)
    assert subprocess.run(closed, timeout=SECONDS, check=False).returncode == 0
    assert results_of(tmp_path / "run") == results_of(trained[0])


WAITING = """
import time
from sumrnn import command

def main(argv):
    print("ready", flush=True)
    time.sleep(600)

command.run(main)
"""


@pytest.mark.parametrize(("number", "said"), [(2, "interrupted"), (15, "terminated")])
def test_a_signal_outside_of_training_ends_in_one_line(number: int, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (128 + number, f"-c: error: {said}\n")


def test_a_terminal_gets_a_live_bar(tmp_path: pathlib.Path) -> None:
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "train.py", *SMALL_OPTIONS],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "140"},
    )
    os.close(writer)
    shown = b""
    while True:
        try:
            piece = os.read(reader, 4096)
        except OSError:  # Linux's way to say that the other end is closed.
            break
        if not piece:
            break
        shown += piece
    os.close(reader)
    assert process.wait(timeout=SECONDS) == 0
    text = shown.decode()
    assert "2/2" in text
    assert "val_accuracy" in text
    assert "left" in text
    assert "epoch  1/2 " not in text
    assert "test accuracy" in text
