"""scripts/benchmark.py: turns, equal work, and what is left of them."""

import contextlib
import importlib
import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import sumrnn
from benchmarks import harness, peers, quality, speed
from benchmarks.harness import Program
from benchmarks.peers import Work
from sumrnn.errors import UserError
from tests.conftest import ROOT, SECONDS, call, refused

SMALL = Work(size=220, length=6, cells=8, batch_size=50, seed=3)
SIZES = ("--size", 220, "--length", 6, "--cells", 8, "--batch-size", 50, "--seed", 3)
PACKAGES = {"sumrnn": "jax", "keras-jax": "keras"}
PACKAGES |= {"keras-tensorflow": "tensorflow", "pytorch": "torch"}
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*/*.json"))


def python(label: str, code: str, *needs: str) -> Program:
    return Program(label, (sys.executable, "-c", code), needs)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_committed_belongs_together(path: pathlib.Path) -> None:
    page = importlib.import_module(f"benchmarks.{path.stem}").page
    assert page(json.loads(path.read_text())) == path.with_suffix(".md").read_text()


def test_programs_take_turns_each_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    # The second reads what the first of its round left; its figure replaces that from outside.
    first = python("first", "import os; open('it', 'w').write(os.environ['BENCHMARK_SEED'])")
    second = python("second", "print('{\"seconds\": 1' + int(open('it').read()) * '0' + '}')")
    third = python("third", "print('words\\n{\"seconds\": 20}\\n')")
    missing = python("fourth", "", "no_such_package")
    found = harness.measure({"a": [first, missing], "b": [second, third]}, 3, SECONDS)
    turns = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()]
    labels = ["first", "second", "third"]
    assert turns == [[f"round {n}/3", label] for n in (1, 2, 3) for label in labels]
    assert found["missing"] == ["fourth"]
    (one,), (two, three) = found["tables"].values()
    assert min(one["seconds"], one["cpu_seconds"], one["memory_mib"]) > 0
    assert [turn["seconds"] for turn in two["turns"]] == [1, 10, 100]
    assert (two["seconds"], three["seconds"]) == (10, 20)
    assert (two["times_as_long"], three["times_as_long"]) == (1, 2)  # Of 20, 2 and 0.2.
    column = harness.Column("s", "seconds", ".0f", spread=True)
    assert harness.table([column], [two, {}]) == "| s |\n| --- |\n| 10 (1 to 100) |\n| – |\n"


def test_a_page_names_processor_versions_and_load() -> None:
    found: dict[str, Any] = {"command": "it", "cores": 2, "processor": "x86", "repetitions": 3}
    found |= {"versions": {"python": "3", "torch": "2"}, "load": 1.23, "missing": ["Keras"]}
    page = harness.page(found, "Title", "some\n  words", "| a |\n")
    assert "`it` on x86 (cores: 2), with python 3, torch 2. Medians over rounds (3;" in page
    assert "the load of the machine was 1.2 before the start." in page
    assert page.endswith("\n\nsome words\n\n| a |\n\nNot installed: Keras.\n")


def test_a_program_that_fails_or_stalls_is_told_in_one_line(tmp_path: pathlib.Path) -> None:
    fails = python("it", "raise ValueError('on purpose')")
    with pytest.raises(UserError, match=r"^it: status 1 \(ValueError: on purpose\)$") as error:
        harness.turn(fails, str(tmp_path), SECONDS)
    assert error.value.status == 1
    with pytest.raises(UserError, match=r"^it: not done within 2 s \(--limit\)$"):
        harness.turn(python("it", "import time; time.sleep(600)"), str(tmp_path), 2)


def test_an_interrupt_ends_the_turn_too(tmp_path: pathlib.Path) -> None:
    """What runs ends with the process, and nothing is written."""
    command = [sys.executable, ROOT / "scripts" / "benchmark.py", *map(str, SIZES)]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    of_process = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while not (children := of_process.read_text().split()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=SECONDS)
    assert (running.returncode, errors) == (130, "benchmark.py: error: interrupted\n")
    assert not any(pathlib.Path("/proc", child).exists() for child in children)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--repetitions", 0), "repetitions = 0: must be between 1 and"),
        (("--cells", 0), "cells = 0: must be between 1 and"),
        (("--seed", 2**32 - 1), "seeds = 4294967296: must be between"),
        (("fast",), "'fast'"),
        (("quality", "--cells", 3), "cells = 3: must be left out"),
        (("--out", ""), "out = '': must be the name of a folder"),
    ],
    ids=str,
)
def test_misuse_ends_at_once_in_one_line(
    options: tuple[object, ...], message: str, tmp_path: pathlib.Path
) -> None:
    assert message in refused("benchmark", *options, cwd=tmp_path)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the start of equal work."""
    with contextlib.chdir(tmp_path_factory.mktemp("start")):
        peers.make_start(SMALL._asdict())
        return pathlib.Path.cwd()


@pytest.mark.slow
def test_all_start_as_a_run_does(start: pathlib.Path) -> None:
    assert Work().flops == 207_360_000_000
    assert SMALL.config().task.train_size == 220
    result = sumrnn.fit(SMALL.config(), SMALL.seed)
    arrays = np.load(start / peers.START)
    assert arrays["loss"] == result.history.loss[0]
    for name, drawn in result.data.train._asdict().items():  # There in the order of an epoch.
        np.testing.assert_array_equal(np.sort(arrays[name], axis=0), np.sort(drawn, axis=0))
    # Keras initializes so: orthogonal, and a forget bias of 1.
    np.testing.assert_allclose(arrays["recurrent"] @ arrays["recurrent"].T, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(arrays["bias"].reshape(4, 8)[:, 0], [0, 1, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("program", PACKAGES)
def test_all_do_equal_work(program: str, start: pathlib.Path) -> None:
    pytest.importorskip(PACKAGES[program])
    details = {"program": program, "sizes": SMALL._asdict(), "epochs": 1, "start": peers.START}
    turn = Program(program, harness.call("peers.train", **details))
    figures = harness.turn(turn, str(start), SECONDS)  # Fails if the loss is another.
    assert 0 < figures["seconds"] < figures["first_epoch"]


def test_other_work_is_refused() -> None:
    peers.check_loss(0.70005, 0.7)
    for loss in (0.703, 0.697, float("nan")):
        with pytest.raises(ValueError, match=r"^does other work; .*0\.700000$"):
            peers.check_loss(loss, 0.7)


def test_everything_grows_within_what_a_config_allows() -> None:
    tables = speed.growth(Work(), quick=False).values()
    factors = [table[-1].facts["flops"] / table[0].facts["flops"] for table in tables]
    assert factors == pytest.approx([100 / 3, 256, 64, 1, 1])


def test_a_level_is_reached_where_it_is_never_left_again() -> None:
    run = [(10, 1.0, 0.5), (20, 2.0, 0.005), (30, 3.0, 0.02), (40, 4.0, 0.005), (50, 5.0, 0.0)]
    assert quality.reached(run, 0.99) == (40, 4.0)
    assert quality.reached(run, 0.4) == (10, 1.0)
    later = [(series, 2 * seconds, error) for series, seconds, error in run]
    assert quality.describe([run, later, run[:3]], 0.99) == "6.0 s, 40 series (2 of 3 runs)"
    assert quality.describe([run[:3]], 0.99) == "never"


def test_the_clock_stops_for_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([7.0, 10.0, 11.0, 20.0])  # Before and after each evaluation.
    monkeypatch.setenv(harness.BEGAN, "5.0")
    monkeypatch.setattr(quality.time, "time", lambda: next(times))
    course = quality.Course()
    course.stop(7, lambda: 0.25)
    course.stop(9, lambda: 0.125)
    assert course.figures() == {"seconds": 3.0, "points": [(7, 2.0, 0.25), (9, 3.0, 0.125)]}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("kind", "options", "rows"),
    [
        ("speed", SIZES, "sumrnn, one run|digits per series: 6|train.py, 1 epoch"),
        ("quality", ("--epochs", 2), "sumrnn, solved|sumrnn, solved in a tenth"),
        ("profile", (), "one run"),
        ("scale", ("--runs", 3), "analyze.py: table, summary, page"),
    ],
)
def test_every_kind_leaves_a_page_and_its_numbers(
    kind: str, options: tuple[object, ...], rows: str, tmp_path: pathlib.Path
) -> None:
    done = call("benchmark", kind, "--quick", *options, "--out", "here", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    text = (tmp_path / "here" / f"{kind}.md").read_text()
    assert text in done.out
    assert all(f"\n| {label} | " in text for label in rows.split("|"))
    found = json.loads((tmp_path / "here" / f"{kind}.json").read_text())
    assert {"code", "python", "jax"} < set(found["versions"])
    assert importlib.import_module(f"benchmarks.{kind}").page(found) == text
    assert (tmp_path / "here" / f"{kind}.png").exists() == (kind in ("speed", "quality"))


@pytest.mark.slow
def test_a_long_run_needs_no_more_memory_than_a_short_one() -> None:
    tables = {"tiny": speed.long_runs(3, (100, 2_000))}
    short, long = harness.measure(tables, 1, SECONDS)["tables"]["tiny"]
    assert long["memory_mib"] < short["memory_mib"] + 30
