"""The benchmarks as real processes on small work, and what they are computed from."""

import dataclasses
import importlib.util
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import growth, process, product, speed, whole
from benchmarks import work as work_lib
from benchmarks.work import Work
from sumrnn import command, train
from sumrnn.config import ConfigError, TrainConfig
from tests.conftest import ROOT, SECONDS, Script

SMALL = Work(size=220, length=6, cells=8, batch_size=50, seed=3)
SMALL_OPTIONS = ("--size", 220, "--length", 6, "--cells", 8, "--batch-size", 50, "--seed", 3)
WEIGHTS = np.array([50, 50, 50, 50, 20]) / 220
"""Share of each of its batches in an epoch."""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[work_lib.Given, list[float]]:
    path = tmp_path_factory.mktemp("work") / "work.npz"
    losses = product.make(SMALL, path)
    return work_lib.load(path), losses


def test_flops_of_the_exercise() -> None:
    assert Work().flops == 207_360_000_000
    assert dataclasses.replace(Work(), cells=400).flops == 4 * Work().flops


@pytest.mark.parametrize("size", [1, 7, 7_200, 115_200])
def test_the_work_is_nearly_all_training(size: int) -> None:
    task = Work(size=size, batch_size=1).config(1).task
    assert (task.train_size, task.validation_size, task.test_size) == (size, 1, 1)


def test_the_file_holds_what_a_run_starts_from(given: tuple[work_lib.Given, list[float]]) -> None:
    """Series in the order of the first epoch, and parameters, both by the pure functions."""
    found, losses = given
    config = SMALL.config()
    keys = train.keys(config, SMALL.seed)
    data, state = train.make_data(config, keys.data), train.init(config, keys.init)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(keys.shuffle, 0), 220))
    np.testing.assert_array_equal(found.digits, np.asarray(data.train.digits)[order])
    np.testing.assert_array_equal(found.labels, np.asarray(data.train.labels)[order])
    np.testing.assert_array_equal(
        found.params["lstm"]["hf"]["kernel"], state.params["lstm"]["hf"]["kernel"]
    )
    np.testing.assert_array_equal(
        found.params["output"]["dense"]["kernel"], state.params["output"]["kernel"]
    )
    assert len(losses) == 5
    np.testing.assert_allclose(
        np.dot(losses, WEIGHTS),
        train.epoch(config, state, keys.shuffle, data, 0)[1].loss,
        rtol=1e-5,
    )


def test_only_equal_work_is_compared() -> None:
    reference = [0.7, 0.4, 20.0]
    speed.check_losses(reference, {"near": [0.70005, 0.4, 20.001]})
    for other in ([0.7, 0.4002, 20.0], [0.7, 0.4, 20.01], [0.7, 0.4], [0.7, float("nan"), 20.0]):
        with pytest.raises(command.Failed, match=r"^other: does other work; .*0\.700000 .*sumrnn"):
            speed.check_losses(reference, {"near": reference, "other": other})


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": [3, 4, 5]},
        {"seeds": [3], "batch_shards": 1, "recurrence": "scan"},
    ],
)
def test_epochs_after_the_first_compile_nothing(
    settings: dict[str, Any], given: tuple[work_lib.Given, list[float]]
) -> None:
    found, losses = given
    peer = product.Sumrnn(SMALL, found, **settings)
    first = peer.epoch()
    compiled: list[str] = []
    count = lambda event, seconds, **_: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        second = peer.epoch()
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert not [event for event in compiled if "compile" in event]
    assert second != first
    assert work_lib.same(losses, peer.losses())


@pytest.mark.parametrize(
    ("package", "name", "settings"),
    [
        ("torch", "pytorch", {}),
        ("tensorflow", "keras", {"backend": "tensorflow"}),
        ("keras", "keras", {"backend": "jax"}),
    ],
)
def test_other_libraries_do_equal_work(
    package: str, name: str, settings: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """From the start, and again after an epoch; each in a process of its own."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    file = tmp_path / "work.npz"
    reference = product.make(SMALL, file)
    with process.Process(name, SECONDS) as worker:
        work = dataclasses.asdict(SMALL)
        worker.ask("start", peer=name, work=work, file=str(file), settings=settings)
        epoch = worker.ask("epoch")
        assert epoch["loss"] == pytest.approx(np.dot(reference, WEIGHTS), rel=1e-3)
        speed.check_losses(reference, {name: worker.ask("losses")["losses"]})
        again = worker.ask("epoch")
        assert again["loss"] == pytest.approx(epoch["loss"], rel=1e-4)


@pytest.fixture(scope="module")
def measured(
    script: Script, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, "subprocess.CompletedProcess[str]"]:
    folder = tmp_path_factory.mktemp("speed")
    done = script(
        "benchmark",
        "--repetitions",
        2,
        *SMALL_OPTIONS,
        "--out",
        "here/results",
        "--peers",
        "sumrnn,shards,keras-tensorflow,pytorch",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "here" / "results", done


def test_speed_leaves_consistent_numbers(
    measured: tuple[pathlib.Path, "subprocess.CompletedProcess[str]"],
) -> None:
    path, _ = measured
    assert {entry.name for entry in path.iterdir()} == {"speed.json", "speed.md", "speed.png"}
    assert (path / "speed.png").read_bytes().startswith(PNG)
    found = json.loads((path / "speed.json").read_text())
    assert found["flops_per_epoch"] == 6 * 220 * 6 * 4 * 8 * 8
    product_seconds = statistics.median(found["matrix"]["seconds"])
    matrix = 2 * 3000**3 / product_seconds
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["sumrnn", "shards", "keras-tensorflow", "pytorch"]
    present = [row for row in found["rows"] if row["installed"]]
    fastest = min((rows["sumrnn"], rows["shards"]), key=lambda row: row["median"])
    assert found["fastest"] == fastest["label"]
    for row in present:
        assert len(row["seconds"]) == 2
        assert row["median"] == pytest.approx(statistics.mean(row["seconds"]))
        assert 0 < row["min"] <= row["median"] <= row["max"]
        share = found["flops_per_epoch"] / row["median"] / matrix
        assert row["share_of_matrix_speed"] == pytest.approx(share)
        ratios = [
            own / other for own, other in zip(row["seconds"], fastest["seconds"], strict=True)
        ]
        assert row["times_as_long"] == pytest.approx(statistics.median(ratios))
        assert row["memory_mib"] > 10
        assert work_lib.same(found["first_losses"], row["first_losses"])


def test_seconds_are_of_one_run() -> None:
    row = speed.Row("seeds", "two at once", "sumrnn", runs=2)
    answers = [{"seconds": x, "loss": 0.5} for x in (9.0, 4.0, 2.0, 3.0)]
    found = speed._numbers(row, Work(), answers, speed=Work().flops)
    assert found["seconds"] == [2, 1, 1.5]
    assert (found["min"], found["median"], found["max"]) == (1, 1.5, 2)
    assert found["first_epoch_seconds"] == 9
    assert found["share_of_matrix_speed"] == pytest.approx(1 / 1.5)


def test_speed_shows_what_is_not_installed(
    measured: tuple[pathlib.Path, "subprocess.CompletedProcess[str]"],
) -> None:
    path, done = measured
    found = json.loads((path / "speed.json").read_text())
    text = (path / "speed.md").read_text()
    for row in found["rows"]:
        (line,) = (line for line in text.splitlines() if row["label"] in line)
        package = {"keras-tensorflow": "tensorflow", "pytorch": "torch"}.get(row["name"], "jax")
        assert row["installed"] == (importlib.util.find_spec(package) is not None)
        assert ("not installed" in line) != row["installed"]
        assert line.count("|") == 9
    assert text in done.stdout
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[:3]] == [
        "first epochs",
        "round 1/2",
        "round 2/2",
    ]
    assert done.stderr == ""
    assert "python scripts/benchmark.py speed --repetitions 2 --size 220" in text
    assert str(path.parent) not in text


@pytest.mark.slow
def test_growth_leaves_factors_beside_the_arithmetic(
    script: Script, tmp_path: pathlib.Path
) -> None:
    done = script("benchmark", "growth", "--quick", *SMALL_OPTIONS, "--out", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "growth.png").read_bytes().startswith(PNG)
    found = json.loads((tmp_path / "growth.json").read_text())["series"]
    assert {name: [point["value"] for point in points] for name, points in found.items()} == {
        "digits per series": [6, 20],
        "LSTM cells": [2, 4],
        "training series": [55, 220],
        "seeds": [1, 2],
    }
    assert [points[1]["predicted_factor"] for points in found.values()] == pytest.approx(
        [20 / 6, 4, 4, 2]
    )
    for points in found.values():
        assert points[0]["factor"] == 1
        assert points[1]["factor"] == pytest.approx(points[1]["seconds"] / points[0]["seconds"])
        assert all(point["memory_mib"] > 10 for point in points)
    table_rows = (tmp_path / "growth.md").read_text().splitlines()[-8:]
    assert all(row.startswith("| ") for row in table_rows)


@pytest.mark.parametrize("epochs", [400, pytest.param(2_000, marks=pytest.mark.slow)])
def test_the_memory_of_a_long_run_stays_what_it_is_after_two_checkpoints(
    epochs: int, script: Script, tmp_path: pathlib.Path
) -> None:
    options = ("--epochs", epochs, "--repetitions", 2, "--out", ".")
    done = script("benchmark", "endurance", *SMALL_OPTIONS, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "endurance.png").read_bytes().startswith(PNG)
    found = json.loads((tmp_path / "endurance.json").read_text())
    assert len(found["seconds"]) == epochs
    assert found["memory"][-1][0] == epochs
    warm = [mebibytes for epoch, mebibytes in found["memory"] if epoch > 100]
    assert warm[-1] < 1.05 * warm[0]
    assert [part["epochs"][1] for part in found["parts"]] == [
        epochs * k // 10 for k in range(1, 11)
    ]
    assert 0 < found["cost"]["mebibytes"] < 1


def test_growth_starts_from_the_exercise() -> None:
    found = {name: [p.value for p in points] for name, points in growth.series(Work()).items()}
    assert found == {
        "digits per series": [30, 100, 300, 1_000],
        "LSTM cells": [50, 100, 200, 400, 800],
        "training series": [1_800, 7_200, 28_800, 115_200],
        "seeds": [1, 2, 4, 8, 16],
    }


def test_whole_processes_are_compared_in_pairs() -> None:
    programs = {
        "sumrnn": [sys.executable, "-c", "x = bytearray(50 << 20)"],
        "other": [sys.executable, "-c", "sum(range(10**6))"],
        whole.NOTEBOOK: [sys.executable, "-c", ""],
    }
    lines: list[str] = []
    found = whole.measure(programs, 2, SECONDS, lines.append)
    assert len(lines) == 2
    first, second, _ = found["rows"]
    assert first["times_as_long"] == 1
    ratios = [own / other for own, other in zip(second["seconds"], first["seconds"], strict=True)]
    assert second["times_as_long"] == pytest.approx(statistics.median(ratios))
    assert first["memory_mib"] > 50
    assert second["cpu_seconds"] > 0


def test_a_process_that_fails_or_stalls_is_told_in_one_line(tmp_path: pathlib.Path) -> None:
    fails = [sys.executable, "-c", "raise ValueError('on purpose')"]
    with pytest.raises(command.Failed, match=r"^it: status 1 \(ValueError: on purpose\)$"):
        process.run("it", fails, tmp_path, SECONDS)
    stalls = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(command.Failed, match=r"^it: not done within 0.5 s \(--limit\)$"):
        process.run("it", stalls, tmp_path, 0.5)
    with (
        process.Process("it", SECONDS) as worker,
        pytest.raises(command.Failed, match=r"^it: its process ended \(AttributeError: "),
    ):
        worker.ask("dance")
    with (
        process.Process("it", 0.001) as worker,
        pytest.raises(command.Failed, match=r"^it: no answer within 0.001 s \(--limit\)$"),
    ):
        worker.ask("memory")


def test_the_others_end_with_an_interrupt(tmp_path: pathlib.Path) -> None:
    options = ("--repetitions", 100_000, *SMALL_OPTIONS, "--peers", "sumrnn")
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
    assert not any(pathlib.Path("/proc", child).exists() for child in children)
    assert list((tmp_path / "benchmarks" / "results").iterdir()) == []


BAD = {
    "unknown peer": (("--peers", "sumrnn,theano"), "peers = 'sumrnn,theano': must be some of"),
    "no repetition": (("--repetitions", 0), "repetitions = 0: must be at least 1"),
    "no cells": (("--cells", 0), "cells = 0: must be between 1 and"),
    "unknown kind": (("fast",), "'fast'"),
    "option of another kind": (("whole", "--cells", 3), "cells = 3: must be left out"),
}


@pytest.mark.parametrize("name", BAD)
def test_misuse_ends_at_once_in_one_line(name: str, script: Script, tmp_path: pathlib.Path) -> None:
    options, message = BAD[name]
    done = script("benchmark", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark.py: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_lists_are_checked() -> None:
    assert speed.parse_peers(None) == speed.NAMES
    assert speed.parse_peers("pytorch, sumrnn") == ("pytorch", "sumrnn")
    assert speed.parse_shards("1,5", Work()) == (1, 5)
    for text in ("", "1,1", "one", "0"):
        with pytest.raises(ConfigError, match="must be"):
            speed.parse_shards(text, Work())
    default = TrainConfig().batch_shards
    other = default + 1
    found = speed.rows(Work(), ("sumrnn", "shards"), (default, other), 2)
    assert [row.settings.get("batch_shards") for row in found] == [None, other]


@pytest.mark.slow
def test_the_whole_exercise(script: Script, tmp_path: pathlib.Path) -> None:
    done = script(
        "benchmark",
        "whole",
        "--quick",
        "--epochs",
        1,
        "--shards",
        TrainConfig().batch_shards,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "benchmarks" / "results"
    assert {entry.name for entry in path.iterdir()} == {"whole.json", "whole.md", "whole.png"}
    ours, notebook = json.loads((path / "whole.json").read_text())["rows"]
    assert ours["median"] > 0
    assert notebook["installed"] == (importlib.util.find_spec("tensorflow") is not None)
