"""Equal work for every program, and what rows are computed from."""

import dataclasses
import importlib.util
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import growth, process, product, speed, turns
from benchmarks.machine import Idle
from benchmarks.turns import Program
from benchmarks.work import Given, Work
from sumrnn.config import TrainConfig
from sumrnn.devices import compiler
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.train import run as algorithm
from tests.conftest import SECONDS

SMALL = Work(size=220, length=6, cells=8, batch_size=50, seed=3)
WEIGHTS = np.array([50, 50, 50, 50, 20]) / 220
"""Share of each of its batches in an epoch."""
OTHERS = {
    "pytorch": ("torch", {}),
    "keras-tensorflow": ("tensorflow", {"backend": "tensorflow"}),
    "keras-jax": ("keras", {"backend": "jax"}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Given, list[float]]:
    """The shared file, what it holds, and the first losses."""
    file = str(tmp_path_factory.mktemp("work") / "work.npz")
    losses = product.make(SMALL, file)["losses"]
    with np.load(file) as arrays:
        return file, dict(arrays), losses


def test_flops_of_the_exercise() -> None:
    assert Work().flops == 207_360_000_000
    assert dataclasses.replace(Work(), cells=400).flops == 4 * Work().flops


@pytest.mark.parametrize("size", [1, 7, 7_200, 115_200])
def test_the_work_is_nearly_all_training(size: int) -> None:
    task = Work(size=size, batch_size=1).config(1).task
    assert (task.train_size, task.validation_size, task.test_size) == (size, 1, 1)


def test_the_file_holds_what_a_run_starts_from(made: tuple[str, Given, list[float]]) -> None:
    _, given, losses = made
    config = SMALL.config()
    begun = compiler.compiled(config).begin(algorithm.purpose_seeds(config, SMALL.seed))
    assert len(losses) == len(WEIGHTS)
    for name, drawn in begun.data.train._asdict().items():  # There in the order of an epoch.
        np.testing.assert_array_equal(np.sort(given[name], axis=0), np.sort(drawn, axis=0))
    params: Any = network.to_flax(begun.state.params)
    lstm, output = params["lstm"], params["output"]
    np.testing.assert_array_equal(given["recurrent"][:, 8:16], lstm["hf"]["kernel"])
    np.testing.assert_array_equal(given["bias"][24:], lstm["ho"]["bias"])
    np.testing.assert_array_equal(given["output"], output["kernel"])


def test_only_equal_work_is_compared() -> None:
    reference = [0.7, 0.4, 20.0]
    for same in (reference, [0.70005, 0.4, 20.001]):
        speed.check_losses("it", reference, same)
    for other in ([0.7, 0.4003, 20.0], [0.7, 0.4, 20.01], [0.7, 0.4], [0.7, float("nan"), 20.0]):
        with pytest.raises(UserError, match=r"^it: does other work; .*0\.700000 .*sumrnn") as error:
            speed.check_losses("it", reference, other)
        assert error.value.status == 1


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(x, marks=pytest.mark.slow)
        for x in ({}, {"batch_shards": 1, "recurrence": "scan"})
    ],
)
def test_epochs_do_the_work_and_compile_once(
    settings: dict[str, Any], made: tuple[str, Given, list[float]]
) -> None:
    _, given, losses = made
    peer, compiled = product.sumrnn(SMALL, given, [3, 4, 5], **settings), list[str]()
    first = peer.epoch()
    assert first == pytest.approx(np.dot(losses, WEIGHTS), rel=1e-4)

    def count(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        second = peer.epoch()
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert not [event for event in compiled if "compile" in event]
    assert second != first
    speed.check_losses("sumrnn", losses, peer.losses())


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_libraries_do_equal_work(name: str, made: tuple[str, Given, list[float]]) -> None:
    file, _, losses = made
    package, settings = OTHERS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with process.worker(name, SECONDS) as ask:
        ask("start", name=name, work=SMALL, file=file, settings=settings)
        first = ask("epoch")
        assert first["loss"] == pytest.approx(np.dot(losses, WEIGHTS), rel=1e-3)
        speed.check_losses(name, losses, ask("losses")["first_losses"])
        assert ask("epoch")["loss"] != first["loss"]


def test_rows_compare_round_by_round(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = Program("one", "one run"), Program("two", "two at once", runs=2)
    missing = Program("missing", "another", needs=("no_such_package",))
    seconds = {one: iter([5.0, 1.0, 3.0, 2.0]), two: iter([9.0, 4.0, 2.0, 3.0])}
    asked = {
        p: lambda times=times: {"seconds": next(times), "loss": 0.5} for p, times in seconds.items()
    }
    idle = Idle()
    answers = turns.take(asked, 3, idle, warm=True)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["first epochs  one 5.00  two 9.00 s", "round 1/3  one 1.00  two 4.00 s"]
    work = Work()
    measured = {p: speed.numbers(p, work, answers[p], work.flops, ready=1.5) for p in (one, two)}
    first, second, third = turns.rows([one, two, missing], measured, one)
    assert second["seconds"] == [2, 1, 1.5]
    assert (second["min"], second["median"], second["max"]) == (1, 1.5, 2)
    assert second["start_seconds"] == 9 + 1.5
    assert idle.waited >= 8 * turns.PAUSE
    assert second["share_of_matrix_speed"] == pytest.approx(1 / 1.5)
    assert (first["times_as_long"], second["times_as_long"]) == (1, 0.75)
    assert (third["installed"], "median" in third) == (False, False)


def test_growth_starts_from_the_exercise() -> None:
    found = growth.series(Work())
    assert {name: list(points) for name, points in found.items()} == {
        "digits per series": [30, 100, 300, 1_000],
        "LSTM cells": [50, 100, 200, 400, 800],
        "training series": [1_800, 7_200, 28_800, 115_200],
        "seeds": [1, 2, 4, 8, 16],
    }
    factors = [
        points[second].arithmetic / points[first].arithmetic
        for points in growth.series(Work(), quick=True).values()
        for first, second in [points]
    ]
    assert factors == pytest.approx([10 / 3, 4, 4, 2])


def test_lists_are_checked() -> None:
    assert speed.parse_peers(None) == speed.NAMES
    assert speed.parse_peers("pytorch, sumrnn") == ("pytorch", "sumrnn")
    assert speed.parse_shards("1,5", Work()) == (1, 5)
    for text in ("", "1,1", "one", "0"):
        with pytest.raises(UserError, match="must be"):
            speed.parse_shards(text, Work())
    default = TrainConfig().batch_shards
    found = speed.programs(Work(), ("sumrnn", "shards"), (default, default + 1), 2)
    assert [row.settings.get("batch_shards") for row in found] == [None, default + 1]
    with pytest.raises(UserError, match="4294967296: must be between"):
        speed.programs(Work(seed=2**32 - 1), speed.NAMES, (1,), 2)
