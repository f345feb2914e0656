import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from sumrnn import batch, runs
from sumrnn.config import Config, ConfigError, to_dict
from tests.conftest import SMALL

OTHER = dataclasses.replace(SMALL, task=dataclasses.replace(SMALL.task, threshold=7))
TWO = batch.Experiment("two", "Which?", {"a": SMALL, "b": OTHER})


def contents(path: pathlib.Path) -> dict[str, bytes]:
    """Everything but the wall clock and Orbax's names and times."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name != runs.HISTORY and runs.CHECKPOINT not in file.parts
    }


def without_seconds(path: pathlib.Path) -> list[str]:
    return [line.rpartition(",")[0] for line in (path / runs.HISTORY).read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("batch") / "whole"
    batch.open_folder(path, TWO, (0, 1, 2))
    batch.run(path, TWO, (0, 1, 2))
    return path


def test_every_condition_and_seed_is_a_run_folder(whole: pathlib.Path) -> None:
    names = {entry.name for entry in (whole / batch.RUNS).iterdir()}
    assert names == {f"{name}-seed{seed}" for name in "ab" for seed in range(3)}
    for name, config in TWO.conditions.items():
        run = runs.load(batch.run_folder(whole, name, 1))
        assert (run.config, run.seed, run.name) == (config, 1, name)


def test_what_is_missing_is_run_and_the_rest_is_left_alone(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(whole, tmp_path / "half")
    before = contents(path)
    kept = batch.run_folder(path, "a", 0) / runs.HISTORY
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(batch.run_folder(path, "a", 2))
    (batch.run_folder(path, "b", 1) / runs.PREDICTIONS).unlink()  # Killed before its end.
    shutil.rmtree(batch.run_folder(path, "b", 0) / runs.CHECKPOINT)
    seen: list[tuple[int, int]] = []
    batch.open_folder(path, TWO, (0, 1, 2))
    progress = batch.run(path, TWO, (0, 1, 2), view=lambda p: seen.append((p.done, p.worked)))
    assert (progress.total, progress.done, progress.todo) == (6, 6, 3 * SMALL.train.epochs)
    assert seen[0] == (3, 0)
    assert seen[-1] == (6, progress.todo)
    assert contents(path) == before
    assert kept.stat().st_mtime_ns == stamp
    for name, seed in (("a", 2), ("b", 1), ("b", 0)):
        pair = (batch.run_folder(folder, name, seed) for folder in (path, whole))
        assert without_seconds(next(pair)) == without_seconds(next(pair))


def test_more_seeds_can_be_added(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(whole, tmp_path / "more")
    batch.open_folder(path, TWO, (7, 1))
    assert batch.read(path)["seeds"] == [0, 1, 2, 7]
    assert batch.run(path, TWO, (7, 1)).done == 4


def test_what_a_killed_process_left_is_cleared_away(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path, folder = tmp_path / "killed", batch.run_folder(tmp_path / "killed", "a", 1)
    folder.mkdir(parents=True)
    for left in (path / ".experiment.json.tmp", folder / ".config.json.tmp"):
        left.write_text("half")
    shutil.move(path / batch.RUNS, tmp_path / "aside")
    batch.open_folder(path, TWO, (0, 1, 2))
    shutil.move(tmp_path / "aside", path / batch.RUNS)
    batch.run(path, TWO, (2, 0, 1))
    assert contents(path) == contents(whole)


def test_a_run_folder_in_the_way_is_told_before_training(tmp_path: pathlib.Path) -> None:
    batch.open_folder(tmp_path, TWO, (0, 1))
    foreign = batch.run_folder(tmp_path, "b", 1)
    foreign.mkdir(parents=True)
    (foreign / "thesis").write_text("years")
    with pytest.raises(runs.RunError, match="left alone"):
        batch.run(tmp_path, TWO, (0, 1))
    assert [entry.name for entry in (tmp_path / batch.RUNS).iterdir()] == ["b-seed1"]


def test_a_run_alone_is_the_run_in_the_batch(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    alone = batch.Experiment("alone", "?", {"a": SMALL})
    batch.open_folder(tmp_path / "alone", alone, (1,))
    batch.run(tmp_path / "alone", alone, (1,))
    pair = [batch.run_folder(path, "a", 1) for path in (tmp_path / "alone", whole)]
    assert contents(pair[0]) == contents(pair[1])


def test_a_diverged_run_is_kept_as_such_and_not_repeated(tmp_path: pathlib.Path) -> None:
    wild = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, learning_rate=1e38))
    experiment = batch.Experiment("wild", "?", {"wild": wild, "tame": SMALL})
    batch.open_folder(tmp_path, experiment, (0, 1))
    assert batch.run(tmp_path, experiment, (0, 1)).diverged == 2
    status = {entry.name: runs.status(entry) for entry in (tmp_path / batch.RUNS).iterdir()}
    assert status == {
        "wild-seed0": "diverged",
        "wild-seed1": "diverged",
        "tame-seed0": "finished",
        "tame-seed1": "finished",
    }
    assert batch.run(tmp_path, experiment, (0, 1)).todo == 0


def damage(path: pathlib.Path, **changes: object) -> None:
    file = path / batch.EXPERIMENT
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "is of the experiment 'other', not 'two'"),
        ({"versions": {"code": "0", "jax": "1"}}, "was made with code 0, this is"),
        (
            {"conditions": {name: to_dict(OTHER) for name in "ab"}},
            r"was made with other configs \(a\); choose another folder",
        ),
        ({"conditions": {}}, "damaged"),
        ({"conditions": []}, "damaged"),
        ({"references": ["a"]}, "damaged"),
        ({"versions": {}}, "damaged"),
        ({"device": {"platform": "gpu"}}, "was made with device"),
        ({"format": 0}, "damaged"),
        ({"seeds": [1, 1]}, "damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused_untouched(
    changes: dict[str, object], message: str, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copy(whole / batch.EXPERIMENT, tmp_path)
    damage(tmp_path, **changes)
    before = contents(tmp_path)
    with pytest.raises(runs.RunError, match=message) as refused:
        batch.open_folder(tmp_path, TWO, (0, 1))
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_folder_with_other_content_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(runs.RunError, match="left alone"):
        batch.open_folder(tmp_path, TWO, (0, 1))
    assert contents(tmp_path) == {"mine": b"mine"}


def test_the_declaration_survives_its_file(whole: pathlib.Path) -> None:
    found = batch.declared(batch.read(whole))
    assert dataclasses.replace(found, seeds=TWO.seeds) == TWO
    assert batch.read(whole)["versions"] == runs.versions()


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": {"../a": Config()}},
        {"conditions": {"": Config()}},
        {"conditions": {}},
        {"plots": ("pie",)},
        {"plots": ("learning", "variance")},
        {"scores": ("speed",)},
        {"scores": ()},
        {"scores": ("accuracy", "accuracy")},
        {"question": "two\nlines"},
        {"question": "\ud800"},
        {"name": 5},
        {"references": {"c": {"accuracy": 0.5}}},
        {"references": {"a": {"accuracy": "high"}}},
        {"references": {"a": {"accuracy": float("nan")}}},
    ],
)
def test_impossible_declarations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(TWO, **changes)


def test_the_parameters_in_the_checkpoint_are_those_of_the_batch(whole: pathlib.Path) -> None:
    import jax
    import orbax.checkpoint as ocp

    from sumrnn import placement

    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore((batch.run_folder(whole, "a", 2) / runs.CHECKPOINT).absolute())
    alone = placement.one(placement.fit(SMALL, [2]), 0)[0]
    for a, b in zip(jax.tree.leaves(found["params"]), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(a, b)
