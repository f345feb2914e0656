"""scripts/experiment.py: alone, and interrupted."""

import json
import os
import pathlib
import py_compile
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from sumrnn.cli import declaration
from sumrnn.devices import memory, mesh
from sumrnn.report import experiment as report
from sumrnn.runs import files
from sumrnn.runs.folder import CHECKPOINTS, CONFIG, FIGURES, HISTORY, PREDICTIONS, REPORT_HTML
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import EXPERIMENT, RUNS, ExperimentFolder
from sumrnn.study.table import TABLE
from tests import conftest
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL_OPTIONS,
    call,
    files_of,
    refused,
    results_of,
    run_script,
    small_experiment,
    wait_for,
)

Start = Callable[..., "subprocess.Popen[str]"]
SEEDS = ("--seeds", "0:3,7", "--devices", 2)
"""Two waves of each condition on two devices, the last one whole."""


def contents(path: pathlib.Path) -> dict[str, object]:
    """All that must not depend on how a batch was made: everything but locks and wall clocks."""
    changing = {HISTORY, CONFIG, files.LOCK, CHECKPOINTS}
    kept: dict[str, object] = {
        name: data
        for name, data in files_of(path).items()
        if changing.isdisjoint(pathlib.PurePath(name).parts)
    }
    return kept | {folder.name: results_of(folder) for folder in (path / RUNS).iterdir()}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Within this process, the name of an experiment that is a number means `small_experiment`."""
    find = declaration.find

    def found(name: str) -> Experiment:
        return small_experiment(int(name)) if name.isdigit() else find(name)

    declaration.find = found
    yield
    declaration.find = find


MINE = """
from __future__ import annotations
import dataclasses
from sumrnn.config import Config
from sumrnn.study.experiment import Experiment

@dataclasses.dataclass
class Size:
    cells: int = 3

EXPERIMENT = Experiment("mine", f"{Size().cells} cells?", {"a": Config()})
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A batch without interruptions, and what was shown.  Do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    done = call("experiment", 2, *SEEDS, cwd=folder)
    assert (done.status, done.err) == (0, "")
    return folder / "runs" / "2", done.out


def test_a_declaration_may_be_anywhere_and_have_dataclasses_of_its_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    find = declaration.find
    monkeypatch.chdir(tmp_path)
    assert find("mine.py").question == find(str(tmp_path / "mine.py")).question == "3 cells?"
    monkeypatch.delitem(sys.modules, "experiments.mine")


def test_a_declaration_is_read_from_its_source_and_from_what_lies_beside_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was compiled before: a changed one may have the same time and size."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    find, path = declaration.find, tmp_path / "mine.py"
    beside = tmp_path / "cells_of_mine.py"
    (tmp_path / "random.py").write_text("raise SystemExit('never imported')")
    text = MINE.replace("= 3", "= cells_of_mine.CELLS")
    text = text.replace("import dataclasses", "import cells_of_mine, dataclasses, random")
    for asked, cells in (("cells?", 6), ("Cells?", 3)):
        path.write_text(text.replace("cells?", asked))
        beside.write_text(f"CELLS = {cells}")
        for file in (path, beside):
            os.utime(file, (1, 1))
            if asked == "cells?":
                py_compile.compile(str(file))
        compiled = {entry.name for entry in (tmp_path / "__pycache__").iterdir()}
        assert find(str(path)).question == f"{cells} {asked}"
        assert {entry.name for entry in (tmp_path / "__pycache__").iterdir()} == compiled
        monkeypatch.delitem(sys.modules, "experiments.mine")
        monkeypatch.delitem(sys.modules, "cells_of_mine")
    assert str(tmp_path) not in {*sys.path, *sys.path_importer_cache}


OWN = {
    "nothing.py": (None, "experiment = 'nothing.py': must be a file that is there"),
    "broken.py": ("EXPERIMENT = (", "broken.py: SyntaxError: '(' was never closed"),
    "empty.py": ("", "empty.py: EXPERIMENT = None: must be an Experiment (from sumrnn.study."),
    "another.py": (MINE, "EXPERIMENT.name = 'mine': must be 'another', as its file is another.py"),
    "other.py": ("class EXPERIMENT: name = 'other'", "EXPERIMENT = <class 'experiments.other"),
    "leaves.py": (f"{MINE}\nexit()", "leaves.py: must not end the program (exit status None)"),
    "parses.py": (
        "import argparse\nargparse.ArgumentParser().parse_args()\nEXPERIMENT = 5",
        "parses.py: EXPERIMENT = 5: must be an Experiment",
    ),
    "impossible.py": (MINE.replace("3", "0").replace("{Size", "{1 / Size"), "ZeroDivisionError"),
    "refused.py": (MINE.replace("Config()", "1"), "refused.py: conditions = "),
}


@pytest.mark.parametrize("name", OWN)
def test_a_bad_declaration_is_told_in_one_line(name: str, tmp_path: pathlib.Path) -> None:
    text, message = OWN[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    assert message in refused("experiment", name, cwd=tmp_path)


# --- alone --------------------------------------------------------------------------------


def test_it_leaves_runs_table_summary_and_figures(whole: tuple[pathlib.Path, str]) -> None:
    path, shown = whole
    summary = (TABLE, report.SUMMARY_JSON, report.SUMMARY_MD, REPORT_HTML, FIGURES)
    assert {entry.name for entry in path.iterdir()} == {files.LOCK, EXPERIMENT, RUNS, *summary}
    names = {f"{name}-seed{seed}" for name in "ab" for seed in (0, 1, 2, 7)}
    assert {entry.name for entry in (path / RUNS).iterdir()} == names
    lines = shown.splitlines()
    assert lines[0] == "runs 0/8"
    last = next(line for line in lines if line.startswith("runs 8/8  "))
    assert "0:00:00 left" in last
    assert "runs/2/report.html" in lines[-1]


@pytest.mark.slow
def test_a_run_of_a_batch_is_the_run_of_train(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path
) -> None:
    """The same config and seed: the same bytes, from another script, on another mesh."""
    alone = call("train", "--seed", 7, *SMALL_OPTIONS, "--out", "alone", cwd=tmp_path)
    assert (alone.status, alone.err) == (0, "")
    found = ExperimentFolder(whole[0]).run("a", 7).path / PREDICTIONS
    assert found.read_bytes() == (tmp_path / "alone" / PREDICTIONS).read_bytes()


def test_what_is_whole_stays_whatever_is_asked_per_device(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(whole[0], tmp_path / "again"))
    for seed in (0, 1):
        shutil.rmtree(path / RUNS / f"b-seed{seed}")
    options = ("--seeds", "0:2", "--per-device", 2, "--out", "again")
    done = call("experiment", 2, *options, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("runs 2/4\n")
    assert contents(path) == contents(whole[0])


def test_a_finished_batch_compiles_nothing(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(mesh, "prepare", compiled)
    shutil.copytree(whole[0], tmp_path / "again")
    done = call("experiment", 2, *SEEDS, "--out", "again", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    shutil.rmtree(tmp_path / "again" / RUNS / "b-seed7")
    with pytest.raises(AssertionError):
        call("experiment", 2, *SEEDS, "--out", "again", cwd=tmp_path)


def test_an_interrupted_batch_continues_and_ends_with_the_same_bytes(
    whole: tuple[pathlib.Path, str], start: Start, tmp_path: pathlib.Path
) -> None:
    arguments = ("-c", conftest.EXPERIMENT, 2, *SEEDS, "--out", tmp_path / "batch")
    process = start(sys.executable, *arguments, cwd=ROOT)
    wait_for(process, "runs 2/8")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    notice, line = errors.splitlines()
    assert notice == "experiment.py: ends after this epoch; once more ends it now"
    finished = len(list(tmp_path.rglob(PREDICTIONS)))
    assert 2 <= finished < 8
    said = f"with {finished} of 8 runs done; the same command continues"
    assert line == f"experiment.py: error: interrupted {said}"
    done = call("experiment", 2, *SEEDS, "--out", "batch", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"runs {finished}/8\n")
    assert contents(tmp_path / "batch") == contents(whole[0])


@pytest.mark.slow
def test_tiny_does_what_the_others_do(tmp_path: pathlib.Path) -> None:
    done = run_script("experiment", "tiny", "--seeds", "0:3", "--devices", 2, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "runs" / "tiny" / RUNS).iterdir())) == 9
    options = ("--size", 500, "--length", 6, "--high", 4, "--threshold", 12, "--cells", 8)
    more = ("--epochs", 3, "--learning-rate", "1e-2", "--seed", 2, "--out", "alone")
    alone = call("train", *options, *more, cwd=tmp_path)
    assert (alone.status, alone.err) == (0, "")
    found = ExperimentFolder(tmp_path / "runs" / "tiny").run("cells-8", 2).path / PREDICTIONS
    assert found.read_bytes() == (tmp_path / "alone" / PREDICTIONS).read_bytes()


# --- misuse -------------------------------------------------------------------------------

BAD = {
    "nothing": (
        ("nothing",),
        "experiment = 'nothing': must be one of ablation, counter, reproduce, skew",
    ),
    "path": (("../scripts/train",), "experiment = '../scripts/train': must be one of"),
    "no experiment": ((), "Missing from experiment.py: "),
    "empty seeds": (("tiny", "--seeds", ""), "seeds = '': must be seeds and ranges"),
    "empty range": (("tiny", "--seeds", "4:4"), "seeds = '4:4': must be of ranges that hold"),
    "repeated seeds": (("tiny", "--seeds", "0:3,2"), "seeds = [2]: must be given once each"),
    "word": (("tiny", "--seeds", "all"), "seeds = 'all': must be seeds and ranges"),
    "negative": (("tiny", "--seeds=-1"), "seeds = '-1': must be seeds and ranges"),
    "huge": (("tiny", "--seeds", "0:4294967297"), "must be of seeds up to 4294967295"),
    "endless number": (("tiny", "--seeds", "9" * 5000), "must be seeds and ranges"),
    "devices": (("tiny", "--devices", "0"), "devices = 0: must be between 1 and"),
    "many devices": (("tiny", "--devices", "4097"), "devices = 4097: must be between 1 and 4096"),
    "per device": (("tiny", "--per-device", "0"), "per_device = 0: must be between 1 and"),
    "every": (("tiny", "--checkpoint-every", "0"), "checkpoint_every = 0: must be between 1 and"),
    "other folder": (("tiny", "--out", "mine"), "mine: must be new, empty or a batch"),
    "a file": (("tiny", "--out", "file"), "file: must be new, empty or a batch"),
    "file as a parent": (
        ("2", "--seeds", "0:2", "--out", "file/run"),
        "file/run: must be a folder that can be",
    ),
    "no name": (("tiny", "--out", ""), "out = '': must be the name of a folder"),
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
    assert message in refused("experiment", *options, cwd=among_mine)


def test_what_memory_does_not_hold_is_refused_before_anything_is_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = types.SimpleNamespace(rows=1, at_once=False)
    program = types.SimpleNamespace(plan=plan, bytes_needed=100 << 30)
    monkeypatch.setattr(mesh, "_program", lambda config, plan: program)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 4.0 * 2**30)
    line = refused("experiment", "tiny", cwd=tmp_path)
    assert "must be small enough for memory: the run needs 100.0 GiB, of which there are" in line


def test_another_machine_is_refused_unless_asked_and_then_recorded(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(shutil.copytree(whole[0], tmp_path / "batch"))
    for seed in (0, 1):
        shutil.rmtree(path / RUNS / f"b-seed{seed}")
    flag = "--xla_cpu_enable_fast_math=false"
    monkeypatch.setenv("XLA_FLAGS", flag)
    arguments = ("experiment", 2, "--seeds", "0:2", "--out", "batch")
    line = refused(*arguments, cwd=tmp_path)
    told = f"batch/runs/a-seed0/config.json: was made with XLA_FLAGS unset, this is {flag}"
    assert line.startswith(told)
    assert line.endswith("--anyway continues and records it")
    done = call(*arguments, "--anyway", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    # Nothing is really another.
    found, expected = (results_of(p / RUNS / "b-seed1") for p in (path, whole[0]))
    assert found[PREDICTIONS] == expected[PREDICTIONS]
    assert found["config.json"]["settings"] == {"XLA_FLAGS": flag}
    assert json.loads((path / report.SUMMARY_JSON).read_text())["continued"] is True
