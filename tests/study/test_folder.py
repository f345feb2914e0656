import dataclasses
import json
import pathlib
import shutil
from typing import Any

import chex
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.devices.compiler import fit
from sumrnn.errors import UserError
from sumrnn.runs import files, origin, trained, work
from sumrnn.runs.folder import CONFIG, HISTORY, PREDICTIONS, RunFolder
from sumrnn.runs.work import Progress
from sumrnn.study import table
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import EXPERIMENT, RUNS, ExperimentFolder
from tests.conftest import SMALL, files_of, results_of, train_experiment
from tests.study.test_experiment import OTHER, TWO


def contents(path: pathlib.Path) -> dict[str, object]:
    """Every run's results, and the declaration."""
    folders = (path / RUNS).iterdir() if (path / RUNS).exists() else ()
    kept: dict[str, object] = {folder.name: results_of(folder) for folder in folders}
    return kept | {EXPERIMENT: (path / EXPERIMENT).read_bytes()}


def folder_of(path: pathlib.Path, condition: str, seed: int) -> pathlib.Path:
    return ExperimentFolder(path).run(condition, seed).path


def unfinish(folder: pathlib.Path, epoch: int) -> None:
    """As a process leaves it that is killed after the checkpoint of an epoch."""
    content = json.loads((folder / CONFIG).read_text())
    RunFolder(folder).checkpoints.forget(epoch)
    record = dataclasses.replace(RunFolder(folder).read(), status="unfinished", files={})
    files.write_json(folder / CONFIG, record, content["format"])


def run(path: pathlib.Path, seeds: tuple[int, ...], **options: Any) -> Progress:
    return train_experiment(path, TWO, seeds, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished batch of two conditions and three seeds.  Do not change it."""
    path = tmp_path_factory.mktemp("batch") / "whole"
    run(path, (0, 1, 2), every=1, keep=2)
    return path


def test_every_condition_and_seed_is_the_run_that_it_is_alone(whole: pathlib.Path) -> None:
    names = {entry.name for entry in (whole / RUNS).iterdir()}
    assert names == {f"{name}-seed{seed}" for name in "ab" for seed in range(3)}
    for name, config in TWO.conditions.items():
        folder = ExperimentFolder(whole).run(name, 1)
        found, expected = folder.load(), fit(config, 1)
        record = found.record
        assert (record.config, record.seed, record.name) == (config, 1, name)
        np.testing.assert_array_equal(found.parts["test"].logits, expected.logits[-1])
        chex.assert_trees_all_equal(trained.load(folder).params, expected.state.params)


def test_what_is_missing_is_run_and_the_rest_is_left_alone(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Also runs that are unequally far, as after a kill in the midst of a wave's checkpoints."""
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "half"))
    kept = folder_of(path, "a", 0) / HISTORY
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(folder_of(path, "a", 2))
    unfinish(folder_of(path, "b", 1), 2)  # Just before its end.
    unfinish(folder_of(path, "b", 0), 1)
    seen: list[tuple[int, int]] = []
    progress = run(path, (0, 1, 2), view=lambda p: seen.append((p.done, p.worked)), every=1)
    # One run from its beginning, one from its last epoch, and one from its first.
    assert (progress.total, progress.done, progress.todo) == (6, 6, 3)
    assert seen[0] == (3, 0)
    assert seen[-1] == (6, progress.todo)
    assert contents(path) == contents(whole)
    assert kept.stat().st_mtime_ns == stamp
    assert run(path, (0, 1, 2)).todo == 0


def test_more_seeds_can_be_added(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "more"))
    ExperimentFolder(path).open(TWO, (7, 1))
    assert ExperimentFolder(path).read().seeds == (0, 1, 2, 7)
    assert run(path, (7, 1)).done == 4


def test_a_run_folder_in_the_way_is_told_before_training(tmp_path: pathlib.Path) -> None:
    ExperimentFolder(tmp_path).open(TWO, (0, 1))
    foreign = folder_of(tmp_path, "b", 1)
    foreign.mkdir(parents=True)
    (foreign / "thesis").write_text("years")
    with pytest.raises(UserError, match="left alone"):
        run(tmp_path, (0, 1))
    assert [entry.name for entry in (tmp_path / RUNS).iterdir()] == ["b-seed1"]


def test_a_diverged_run_is_kept_as_such_and_not_repeated(tmp_path: pathlib.Path) -> None:
    wild = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, learning_rate=1e38))
    experiment, folder = (
        Experiment("wild", "?", {"wild": wild, "tame": SMALL}),
        ExperimentFolder(tmp_path),
    )
    assert train_experiment(tmp_path, experiment, (0, 1)).diverged == 2
    for seed in (0, 1):
        assert folder.run("wild", seed).status() == "diverged"
        assert folder.run("tame", seed).status() == "finished"
    assert train_experiment(tmp_path, experiment, (0, 1)).todo == 0


def test_what_is_damaged_is_told_and_made_again(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "damaged"))
    folder = folder_of(path, "b", 2)
    damaged = [folder / PREDICTIONS, RunFolder(folder).checkpoints.file(2)]
    for file in damaged:
        file.write_bytes(b"half")
    told: list[str] = []
    assert run(path, (0, 1, 2), warn=told.append).todo == 1
    assert [line.partition(": ")[0] for line in told] == list(map(str, damaged))
    assert all(line.endswith("; continuing after epoch 1") for line in told)
    assert results_of(folder) == results_of(folder_of(whole, "b", 2))


def reseal(path: pathlib.Path, **changes: object) -> None:
    """Changes fields of the declaration, with the right seal."""
    content = json.loads((path / EXPERIMENT).read_text()) | changes
    content.pop(files.SEAL)
    content[files.SEAL] = files.seal(content)
    (path / EXPERIMENT).write_text(json.dumps(content))


def declared(**changes: object) -> dict[str, object]:
    return fields.to_dict(dataclasses.replace(TWO, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": declared(name="other")}, "is of the experiment 'other', not 'two'"),
        (
            {"experiment": declared(conditions={"a": OTHER, "b": OTHER})},
            r"was made with other configs \(a\); choose another folder",
        ),
        ({"experiment": declared() | {"conditions": {}}}, r"damaged \(conditions = "),
        ({"experiment": declared() | {"conditions": []}}, r"damaged \(conditions = "),
        ({"experiment": declared() | {"conditions": {"../a": {}}}}, "damaged"),
        ({"experiment": declared() | {"references": ["a"]}}, r"damaged \(references = "),
        ({"experiment": 5}, r"damaged \(experiment = 5"),
        ({"more": 1}, r"damaged \(more = 1: must be left out"),
        ({"seeds": [1, 1]}, r"damaged \(seeds = "),
        ({"seeds": "all"}, r"damaged \(seeds = "),
        ({"format": 3}, "has format 3, of another version of this program"),
        ({"format": "3"}, r"damaged \(must be an object with a format"),
    ],
)
def test_a_folder_of_something_else_is_refused_untouched(
    changes: dict[str, object], message: str, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copy(whole / EXPERIMENT, tmp_path)
    reseal(tmp_path, **changes)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        ExperimentFolder(tmp_path).open(TWO, (0, 1))
    assert "\n" not in str(refused.value)
    assert files_of(tmp_path) == before


def test_other_content_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="left alone"):
        ExperimentFolder(tmp_path).open(TWO, (0, 1))
    assert files_of(tmp_path) == {"mine": b"mine"}


def test_the_declaration_survives_its_file(whole: pathlib.Path) -> None:
    found = ExperimentFolder(whole).read()
    assert (found.experiment, found.seeds) == (TWO, (0, 1, 2))


def test_a_declaration_of_the_format_before_is_read(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copy(whole / EXPERIMENT, tmp_path)
    reseal(tmp_path, format=4, made=[{"versions": {"jax": "0.10.2"}}])
    assert ExperimentFolder(tmp_path).read() == ExperimentFolder(whole).read()
    reseal(tmp_path, format=5)
    with pytest.raises(UserError, match=r"made = .* must be left out"):
        ExperimentFolder(tmp_path).read()


@pytest.mark.parametrize("part", ["device", "versions", "settings"])
def test_another_machine_is_refused_unless_asked_and_then_recorded(
    part: str, whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "elsewhere"))
    unfinish(folder_of(path, "a", 1), 1)
    here = getattr(origin, part)()
    monkeypatch.setattr(origin, part, lambda: here | {"kind": "another"})
    with pytest.raises(UserError, match=r"config\.json: was made with kind .*--anyway"):
        run(path, (0, 1, 2))
    # Jobs may be on another kind of device, but go on with no run of this one.
    elsewhere = {"anywhere": True} if part == "device" else {"anyway": True}
    ExperimentFolder(path).open(TWO, (0, 1, 2), **elsewhere)
    (spec,) = ExperimentFolder(path).specs(TWO.only("a"), (1,))
    assert "was made with kind" in work.work([spec], work.Options()).failures["a", 1]
    assert run(path, (0, 1, 2), anyway=True).todo == 1
    (entry,) = ExperimentFolder(path).run("a", 1).read().continued
    assert (entry["epoch"], entry[part]["kind"]) == (1, "another")  # type: ignore[literal-required]
    assert table.collect(ExperimentFolder(path)).continued
