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
from typing import Any

import pytest

from sumrnn.cli import declaration
from sumrnn.devices import machine, mesh
from sumrnn.report import experiment as report
from sumrnn.runs import files, lock
from sumrnn.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    ERROR,
    FIGURES,
    HISTORY,
    PREDICTIONS,
    REPORT_HTML,
)
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import EXPERIMENT, RUNS
from sumrnn.study.table import TABLE
from tests import conftest
from tests.conftest import (
    ROOT,
    SECONDS,
    call,
    files_of,
    refused,
    results_of,
    small_experiment,
    train,
    wait_for,
)
from tests.scripts.conftest import draw_nothing

Start = Callable[..., "subprocess.Popen[str]"]
SEEDS = ("--seeds", "0:3,7", "--devices", 2)
"""Two waves of each condition on two devices, the last one whole."""


def contents(path: pathlib.Path) -> dict[str, Any]:
    """All that must not depend on how a batch was made: everything but locks and wall clocks."""
    changing = {HISTORY, CONFIG, files.LOCK, CHECKPOINTS, report.TIMES}
    kept: dict[str, Any] = {
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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(declaration, "find", found)
        draw_nothing(patch)
        yield


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


def test_a_declaration_is_read_from_its_source_and_from_what_lies_beside_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was compiled before: a changed one may have the same time and size."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.chdir(tmp_path)
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
        assert find("mine.py" if cells == 3 else str(path)).question == f"{cells} {asked}"
        assert {entry.name for entry in (tmp_path / "__pycache__").iterdir()} == compiled
        monkeypatch.delitem(sys.modules, "experiments.mine")
        monkeypatch.delitem(sys.modules, "cells_of_mine")
    assert str(tmp_path) not in {*sys.path, *sys.path_importer_cache}


OWN = {
    "nothing.py": (None, "experiment = 'nothing.py': must be a file that is there"),
    "broken.py": ("EXPERIMENT = (", "broken.py: SyntaxError: '(' was never closed"),
    "another.py": (MINE, "EXPERIMENT.name = 'mine': must be 'another', as its file is another.py"),
    "other.py": ("class EXPERIMENT: name = 'other'", "EXPERIMENT = <class 'experiments.other"),
    "leaves.py": (f"{MINE}\nexit()", "leaves.py: must not end the program (exit status None)"),
    "parses.py": (
        "import argparse\nargparse.ArgumentParser().parse_args()\nEXPERIMENT = 5",
        "parses.py: EXPERIMENT = 5: must be an Experiment",
    ),
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
    tables = (TABLE, report.TIMES)
    summary = (*tables, report.SUMMARY_JSON, report.SUMMARY_MD, REPORT_HTML, FIGURES)
    assert {entry.name for entry in path.iterdir()} == {files.LOCK, EXPERIMENT, RUNS, *summary}
    names = {f"{name}-seed{seed}" for name in "ab" for seed in (0, 1, 2, 7)}
    assert {entry.name for entry in (path / RUNS).iterdir()} == names
    lines = shown.splitlines()
    assert lines[0] == "runs 0/8"
    last = next(line for line in lines if line.startswith("runs 8/8  "))
    assert "0:00:00 left" in last
    assert "runs/2/report.html" in lines[-1]


def test_a_run_that_raises_is_named_with_its_traceback_and_the_others_end(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(shutil.copytree(whole[0], tmp_path / "batch"))
    for seed in (1, 2):
        shutil.rmtree(path / RUNS / f"a-seed{seed}")
    config = small_experiment(2).conditions["a"]
    bad = train(path / RUNS / "a-seed1", config, 1, until=1).path
    (bad / HISTORY).unlink()
    (bad / HISTORY / "in the way").mkdir(parents=True)
    command = ("experiment", 2, *SEEDS, "--retries", 1, "--out", "batch")
    done = call(*command, cwd=tmp_path)
    assert done.status == 1
    *_, warned, told = done.err.splitlines()
    assert (
        warned == f"experiment.py: warning: a with seed 1 failed; see batch/{RUNS}/a-seed1/{ERROR}"
    )
    assert told == "experiment.py: error: 1 of 8 runs failed; the same command tries them again"
    assert str(bad.relative_to(tmp_path) / HISTORY) in (bad / ERROR).read_text()
    assert not lock.is_held(bad)
    (bad / HISTORY / "in the way").rmdir()
    (bad / HISTORY).rmdir()
    assert call(*command, cwd=tmp_path).status == 0
    found = contents(path)
    found["a-seed1"]["config.json"]["name"] = "a"
    assert found == contents(whole[0])
    monkeypatch.delattr(mesh, "prepare")  # What is finished needs no program.
    done = call(*command, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")


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


# --- misuse -------------------------------------------------------------------------------

BAD = {
    "nothing": (
        ("nothing",),
        "experiment = 'nothing': must be one of ablation, architecture, budget, counter,",
    ),
    "no experiment": ((), "Missing from experiment.py: "),
    "empty seeds": (("tiny", "--seeds", ""), "seeds = '': must be seeds and ranges"),
    "every": (("tiny", "--checkpoint-every", "0"), "checkpoint_every = 0: must be between 1 and"),
    "other folder": (("tiny", "--out", "mine"), "mine: must be new, empty or a batch"),
    "a file": (("tiny", "--out", "file"), "file: must be new, empty or a batch"),
    "file as a parent": (
        ("2", "--seeds", "0:2", "--out", "file/run"),
        "file/run: must be a folder that can be",
    ),
    "no name": (("tiny", "--out", ""), "out = '': must be the name of a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_in_one_line_and_writes_nothing(name: str, among_mine: pathlib.Path) -> None:
    options, message = BAD[name]
    assert message in refused("experiment", *options, cwd=among_mine)


def test_what_memory_does_not_hold_is_refused_before_anything_is_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = types.SimpleNamespace(rows=1, at_once=False)
    compiled = types.SimpleNamespace(plan=plan, bytes_needed=100 << 30)
    monkeypatch.setattr(mesh, "_compiled_functions", lambda config, plan: compiled)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 4.0 * 2**30)
    line = refused("experiment", "tiny", cwd=tmp_path)
    assert "must be small enough for memory: the run needs 100.0 GiB, of which there are" in line


def test_what_is_missing_is_made_with_other_options_and_elsewhere_only_if_asked(
    whole: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(shutil.copytree(whole[0], tmp_path / "batch"))
    for seed in (0, 1):
        shutil.rmtree(path / RUNS / f"b-seed{seed}")
    flag = "--xla_cpu_enable_fast_math=false"
    monkeypatch.setenv("XLA_FLAGS", flag)
    arguments = ("experiment", 2, "--seeds", "0:2", "--per-device", 2, "--out", "batch")
    line = refused(*arguments, cwd=tmp_path)
    told = f"batch/runs/a-seed0/config.json: was made with XLA_FLAGS unset, this is {flag}"
    assert line.startswith(told)
    assert line.endswith("--anyway continues and records it")
    done = call(*arguments, "--anyway", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("runs 2/4\n")
    # Nothing is really another.
    found, expected = (results_of(p / RUNS / "b-seed1") for p in (path, whole[0]))
    assert found.pop("config.json")["settings"] == {"XLA_FLAGS": flag}
    assert found == {name: expected[name] for name in found}
    assert results_of(path / RUNS / "a-seed1") == results_of(whole[0] / RUNS / "a-seed1")
    assert json.loads((path / report.SUMMARY_JSON).read_text())["continued"] is True
