"""scripts/benchmark.py, its workers, and what it leaves."""

import importlib.util
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import pytest

from benchmarks import (
    endurance,
    figures,
    growth,
    machine,
    machines,
    process,
    quality,
    speed,
    table,
    whole,
)
from benchmarks.turns import Program
from sumrnn.config import TrainConfig
from sumrnn.errors import UserError
from tests.conftest import ROOT, SECONDS, run_script

MODULES = {
    "speed": speed,
    "whole": whole,
    "growth": growth,
    "endurance": endurance,
    "quality": quality,
}
SMALL = ("--size", 220, "--length", 6, "--cells", 8, "--batch-size", 50, "--seed", 3)


RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*/*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_committed_belongs_together(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = json.loads(path.read_text())
    assert MODULES[path.stem].markdown(found) == path.with_suffix(".md").read_text()
    getattr(figures, path.stem)(found).savefig(tmp_path / "it.png")
    assert (tmp_path / "it.png").stat().st_size > 10_000


def test_the_page_shows_every_machine() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert machines.markdown() in page


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_work_of_others_is_told() -> None:
    idle = machine.Idle()
    assert idle.cores is None
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        idle.wait(0.5)
    finally:
        other.kill()
        other.wait()
    assert idle.cores is not None
    assert idle.cores > table.BUSY
    found = json.loads(RESULTS[0].read_text())
    told = MODULES[RESULTS[0].stem].markdown(found | {"busy_cores": 1.23})
    assert "Others kept 1.2 cores busy meanwhile" in told
    assert "Others kept" not in MODULES[RESULTS[0].stem].markdown(found | {"busy_cores": 0.1})


@pytest.mark.slow
def test_speed_leaves_consistent_numbers(tmp_path: pathlib.Path) -> None:
    peers, path = ("--peers", "sumrnn,pytorch", "--repetitions", 1), tmp_path / "here" / "results"
    done = run_script("benchmark", *peers, *SMALL, "--out", "here/results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in path.iterdir()} == {"speed.json", "speed.md", "speed.png"}
    assert (path / "speed.png").read_bytes().startswith(b"\x89PNG")
    found, text = json.loads((path / "speed.json").read_text()), (path / "speed.md").read_text()
    assert [row["name"] for row in found["rows"]] == ["sumrnn", "pytorch"]
    assert found["fastest"] == found["rows"][0]["label"]
    assert found["flops_per_epoch"] == 6 * 220 * 6 * 4 * 8 * 8
    matrix = 2 * 3000**3 / statistics.median(found["matrix"]["seconds"])
    for row in found["rows"]:
        (line,) = (line for line in text.splitlines() if row["label"] in line)
        assert ("not installed" in line) != row["installed"]
        assert line.count("|") == 9
        if row["installed"]:
            share = found["flops_per_epoch"] / row["median"] / matrix
            assert row["share_of_matrix_speed"] == pytest.approx(share)
            assert row["memory_mib"] > 10
            speed.check_losses(row["label"], found["first_losses"], row["first_losses"])
    has_torch = importlib.util.find_spec("torch") is not None
    assert found["rows"][1]["installed"] == ("torch" in found["versions"]) == has_torch
    assert {"code", "python", "jax"} < set(found["versions"])
    assert found["device"]["platform"] == "cpu"
    assert "`python scripts/benchmark.py speed --repetitions 1 --size 220" in text
    assert str(path.parent) not in text + json.dumps(found)
    assert (text in done.stdout, done.stderr) == (True, "")


def test_whole_processes_are_compared_in_pairs() -> None:
    words = {"sumrnn": "x = bytearray(90 << 20)", "other": "sum(range(10**6))", "missing": ""}
    programs = {
        Program(name, name, needs=("no_such_package",) * (not code)): [sys.executable, "-c", code]
        for name, code in words.items()
    }
    first, second, missing = whole.compare(programs, 2, SECONDS)["rows"]
    assert first["times_as_long"] == 1
    ratios = [own / other for own, other in zip(second["seconds"], first["seconds"], strict=True)]
    assert second["times_as_long"] == pytest.approx(statistics.median(ratios))
    assert first["memory_mib"] > 90 > second["memory_mib"]
    assert second["cpu_seconds"] > 0
    assert not missing["installed"]


def test_a_process_that_fails_or_stalls_is_told_in_one_line() -> None:
    fails = [sys.executable, "-c", "raise ValueError('on purpose')"]
    with pytest.raises(UserError, match=r"^it: .*status 1 \(ValueError: on purpose\)$") as error:
        process.once("it", SECONDS, "run", command=fails)
    assert error.value.status == 1
    stalls = [sys.executable, "-c", "import time; time.sleep(60)"]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^it: no answer within 2 s \(--limit\)$"):
        process.once("it", 2, "run", command=stalls)
    assert time.monotonic() - began < 30
    with pytest.raises(UserError, match=r"^it: its process ended$"):
        process.once("it", SECONDS, "run", command=["sh", "-c", "kill -9 $PPID"])


def is_at_work(process: str) -> bool:
    """Whether there is such a process, which may have ended and wait for somebody to ask."""
    try:
        status = pathlib.Path("/proc", process, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_the_others_end_with_an_interrupt(tmp_path: pathlib.Path) -> None:
    options = ("--repetitions", 100_000, *SMALL, "--peers", "sumrnn")
    running = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "benchmark.py", *map(str, options)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_process = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while not (children := of_process.read_text().split()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    assert errors == "benchmark.py: error: interrupted\n"
    deadline = time.monotonic() + SECONDS
    while any(map(is_at_work, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (own,) = (tmp_path / "benchmarks" / "results").iterdir()
    assert own.name == machine.folder()
    assert list(own.iterdir()) == []


BAD = {
    "unknown peer": (("--peers", "sumrnn,theano"), "peers = 'sumrnn,theano': must be some of"),
    "no repetition": (("--repetitions", 0), "repetitions = 0: must be between 1 and"),
    "no cells": (("--cells", 0), "cells = 0: must be between 1 and"),
    "unknown kind": (("fast",), "'fast'"),
    "option of another kind": (("whole", "--cells", 3), "cells = 3: must be left out"),
    "no folder": (("--out", ""), "out = '': must be the name of a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_at_once_in_one_line(name: str, tmp_path: pathlib.Path) -> None:
    options, message = BAD[name]
    done = run_script("benchmark", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark.py: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_growth_leaves_factors_beside_the_arithmetic(tmp_path: pathlib.Path) -> None:
    done = run_script("benchmark", "growth", "--quick", *SMALL, "--out", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "growth.json").read_text())["series"]
    values = [[point["value"] for point in points] for points in found.values()]
    assert values == [[6, 20], [2, 4], [55, 220], [1, 2]]
    for first, second in found.values():
        assert first["factor"] == 1
        assert second["factor"] == pytest.approx(second["seconds"] / first["seconds"])


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [400, 2_000])
def test_the_memory_of_a_long_run_stays_what_it_is_after_two_checkpoints(
    epochs: int, tmp_path: pathlib.Path
) -> None:
    options = ("--epochs", epochs, "--repetitions", 2, "--out", ".")
    done = run_script("benchmark", "endurance", *SMALL, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "endurance.json").read_text())
    assert len(found["seconds"]) == found["memory"][-1][0] == epochs
    warm = [mebibytes for epoch, mebibytes in found["memory"] if epoch > 100]
    assert warm[-1] < warm[0] + 30
    assert 0 < found["cost"]["mebibytes"] < 1


def test_a_level_is_reached_where_it_is_never_left_again() -> None:
    run = [(10, 1.0, 0.5), (20, 2.0, 0.005), (30, 3.0, 0.02), (40, 4.0, 0.005), (50, 5.0, 0.0)]
    assert quality.reached(run, 0.99) == (40, 4.0)
    assert quality.reached(run, 0.4) == (10, 1.0)
    assert quality.reached(run[:3], 0.99) is None
    later = [(series, 2 * seconds, error) for series, seconds, error in run]
    found = quality.summary([run, later, run[:3]], 0.99)
    assert found == {"runs": 2, "of": 3, "series": 40, "seconds": 6.0}
    assert quality.summary([run[:3]], 0.99)["seconds"] is None


def test_the_clock_of_a_training_stops_for_exams() -> None:
    def slow() -> float:
        time.sleep(0.3)
        return 0.25

    began = time.time() - 1
    course = quality.Course(began)
    course.stop(7, slow)
    course.stop(9, slow)
    told = course.told()
    assert [point[::2] for point in told["points"]] == [(7, 0.25), (9, 0.25)]
    assert 1 <= told["points"][0][1] <= told["seconds"] < time.time() - began - 0.5


@pytest.mark.slow
def test_time_to_quality(tmp_path: pathlib.Path) -> None:
    done = run_script("benchmark", "quality", "--quick", "--epochs", 2, "--out", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "quality.json").read_text())
    *ours, notebook = found["rows"]
    for row in ours:
        (points,) = row["points"]
        assert [series for series, _, _ in points] == [14_400]
        assert 0 < points[0][2] < 0.2
    assert notebook["installed"] == (importlib.util.find_spec("tensorflow") is not None)
    assert "| sumrnn, solved |" in (tmp_path / "quality.md").read_text()


@pytest.mark.slow
def test_the_whole_exercise(tmp_path: pathlib.Path) -> None:
    options = ("--quick", "--epochs", 1, "--shards", TrainConfig().batch_shards, "--out", ".")
    done = run_script("benchmark", "whole", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, notebook = json.loads((tmp_path / "whole.json").read_text())["rows"]
    assert ours["median"] > 0
    assert notebook["installed"] == (importlib.util.find_spec("tensorflow") is not None)
