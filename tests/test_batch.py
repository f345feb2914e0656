import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from sumrnn import batch, checkpoint, files, placement, runs
from sumrnn.config import Config, ConfigError, to_dict
from sumrnn.signals import Stop
from tests.conftest import SMALL, arrays_of, files_of, results_of

OTHER = dataclasses.replace(SMALL, task=dataclasses.replace(SMALL.task, threshold=7))
TWO = batch.Experiment("two", "Which?", {"a": SMALL, "b": OTHER})


def contents(path: pathlib.Path) -> dict[str, bytes]:
    """Everything but the wall clock, with its sums, and Orbax's names and times."""
    changing = {runs.HISTORY, files.SUMS, files.LOCK, runs.CHECKPOINTS}
    return {
        name: data
        for name, data in files_of(path).items()
        if changing.isdisjoint(pathlib.PurePath(name).parts)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("batch") / "whole"
    batch.open_folder(path, TWO, (0, 1, 2))
    batch.run(path, TWO, (0, 1, 2), Stop(), every=1)
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
    (batch.run_folder(path, "b", 1) / files.SUMS).unlink()  # Killed just before its end.
    cut = batch.run_folder(path, "b", 0)
    (cut / files.SUMS).unlink()
    shutil.rmtree(checkpoint.folder(cut, SMALL.train.epochs))
    seen: list[tuple[int, int]] = []
    batch.open_folder(path, TWO, (0, 1, 2))

    def view(progress: batch.Progress) -> None:
        seen.append((progress.done, progress.worked))

    progress = batch.run(path, TWO, (0, 1, 2), Stop(), view, every=1)
    # One run from its beginning, one from its last epoch, and one from its first.
    assert (progress.total, progress.done, progress.todo) == (6, 6, 3)
    assert seen[0] == (3, 0)
    assert seen[-1] == (6, progress.todo)
    assert contents(path) == before
    assert kept.stat().st_mtime_ns == stamp
    for name, seed in (("a", 2), ("b", 1), ("b", 0)):
        again, first = (batch.run_folder(folder, name, seed) for folder in (path, whole))
        assert results_of(again) == results_of(first)


def test_more_seeds_can_be_added(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = shutil.copytree(whole, tmp_path / "more")
    batch.open_folder(path, TWO, (7, 1))
    assert batch.read(path)["seeds"] == [0, 1, 2, 7]
    assert batch.run(path, TWO, (7, 1), Stop()).done == 4


def test_what_a_killed_process_left_is_cleared_away(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path, folder = tmp_path / "killed", batch.run_folder(tmp_path / "killed", "a", 1)
    folder.mkdir(parents=True)
    for left in (path / ".experiment.json.4711.tmp", folder / ".config.json.4711.tmp"):
        left.write_text("half")
    shutil.move(path / batch.RUNS, tmp_path / "aside")
    batch.open_folder(path, TWO, (0, 1, 2))
    shutil.move(tmp_path / "aside", path / batch.RUNS)
    batch.run(path, TWO, (2, 0, 1), Stop())
    assert contents(path) == contents(whole)


def test_a_run_folder_in_the_way_is_told_before_training(tmp_path: pathlib.Path) -> None:
    batch.open_folder(tmp_path, TWO, (0, 1))
    foreign = batch.run_folder(tmp_path, "b", 1)
    foreign.mkdir(parents=True)
    (foreign / "thesis").write_text("years")
    with pytest.raises(files.RunError, match="left alone"):
        batch.run(tmp_path, TWO, (0, 1), Stop())
    assert [entry.name for entry in (tmp_path / batch.RUNS).iterdir()] == ["b-seed1"]


def test_a_run_alone_is_the_run_in_the_batch(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    alone = batch.Experiment("alone", "?", {"a": SMALL})
    batch.open_folder(tmp_path / "alone", alone, (1,))
    batch.run(tmp_path / "alone", alone, (1,), Stop())
    pair = [batch.run_folder(path, "a", 1) for path in (tmp_path / "alone", whole)]
    assert contents(pair[0]) == contents(pair[1])


def test_a_diverged_run_is_kept_as_such_and_not_repeated(tmp_path: pathlib.Path) -> None:
    wild = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, learning_rate=1e38))
    experiment = batch.Experiment("wild", "?", {"wild": wild, "tame": SMALL})
    batch.open_folder(tmp_path, experiment, (0, 1))
    assert batch.run(tmp_path, experiment, (0, 1), Stop()).diverged == 2
    status = {entry.name: runs.status(entry) for entry in (tmp_path / batch.RUNS).iterdir()}
    assert status == {
        "wild-seed0": "diverged",
        "wild-seed1": "diverged",
        "tame-seed0": "finished",
        "tame-seed1": "finished",
    }
    assert batch.run(tmp_path, experiment, (0, 1), Stop()).todo == 0


def damage(path: pathlib.Path, **changes: object) -> None:
    file = path / batch.EXPERIMENT
    fields = json.loads(file.read_text()) | changes
    fields.pop(files.SEAL)
    files.write_sealed(file, fields)


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
    with pytest.raises(files.RunError, match=message) as refused:
        batch.open_folder(tmp_path, TWO, (0, 1))
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_folder_with_other_content_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(files.RunError, match="left alone"):
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
        {"name": "a$\\foo$"},
        {"name": "two\nlines"},
        {"references": {"c": {"accuracy": 0.5}}},
        {"references": {"a": {"accuracy": "high"}}},
        {"references": {"a": {"accuracy": float("nan")}}},
    ],
)
def test_impossible_declarations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(TWO, **changes)


def test_the_parameters_in_the_checkpoint_are_those_of_the_batch(whole: pathlib.Path) -> None:
    alone = placement.one(placement.fit(SMALL, [2]), 0)[0]
    found = arrays_of(batch.run_folder(whole, "a", 2))["state"]["params"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_runs_that_are_unequally_far_end_alike(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As after a kill in the midst of a wave's checkpoints."""
    path = tmp_path / "torn"
    shutil.copytree(whole, path)
    for seed, last in ((0, 2), (1, 1)):
        folder = batch.run_folder(path, "a", seed)
        (folder / files.SUMS).unlink()
        for epoch in range(last + 1, SMALL.train.epochs + 1):
            shutil.rmtree(checkpoint.folder(folder, epoch))
    assert batch.run(path, TWO, (0, 1, 2), Stop()).todo == 1
    for seed in (0, 1):
        pair = [batch.run_folder(folder, "a", seed) for folder in (path, whole)]
        assert results_of(pair[0]) == results_of(pair[1])


def test_what_is_damaged_is_told_and_made_again(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = shutil.copytree(whole, tmp_path / "damaged")
    folder = batch.run_folder(path, "b", 2)
    (folder / runs.PREDICTIONS).write_bytes(b"half")
    (checkpoint.folder(folder, 2) / files.SUMS).write_text("")
    told: list[str] = []
    assert batch.run(path, TWO, (0, 1, 2), Stop(), warn=told.append).todo == 1
    assert [line.partition(": ")[0] for line in told] == [
        str(folder / runs.PREDICTIONS),
        str(checkpoint.folder(folder, 2) / files.SUMS),
    ]
    assert all(line.endswith("; continuing after epoch 1") for line in told)
    assert results_of(folder) == results_of(batch.run_folder(whole, "b", 2))
