import dataclasses
import json
import pathlib
import shutil
from typing import Any

import chex
import jax
import numpy as np
import pytest

from sumrnn.devices.wave import fit_many
from sumrnn.errors import UserError
from sumrnn.runs import files, origin, work
from sumrnn.runs.folder import CONFIG, HISTORY, PREDICTIONS, RunFolder
from sumrnn.runs.progress import Progress
from sumrnn.study.folder import EXPERIMENT, RUNS, ExperimentFolder
from tests.conftest import files_of, results_of, train_experiment
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
        found, expected = folder.load(), fit_many(config, (1,))
        record = found.record
        assert (record.config, record.seed, record.name) == (config, 1, name)
        np.testing.assert_array_equal(found.parts["test"].logits, expected.logits[-1][0])
        chex.assert_trees_all_equal(
            folder.network()[1], jax.tree.map(lambda x: x[0], expected.state.params)
        )


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
    found = ExperimentFolder(path).read()
    assert (found.experiment, found.seeds) == (TWO, (0, 1, 2, 7))
    specs = ExperimentFolder(path).specs(TWO, (7, 1))
    missing = [(spec.name, spec.seed) for spec in work.missing(specs)]
    assert missing == [("a", 7), ("b", 7)]


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "is of the experiment 'other', not 'two'"),
        (
            {"conditions": {"a": OTHER, "b": OTHER}},
            r"was made with other configs \(a\); choose another folder",
        ),
    ],
)
def test_the_folder_of_another_experiment_is_refused_untouched(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    ExperimentFolder(tmp_path).open(dataclasses.replace(TWO, **changes), (0, 1))
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        ExperimentFolder(tmp_path).open(TWO, (0, 1))
    assert "\n" not in str(refused.value)
    assert files_of(tmp_path) == before


def reseal(path: pathlib.Path, **changes: object) -> None:
    """Changes fields of the declaration, with the right seal."""
    content = json.loads((path / EXPERIMENT).read_text()) | changes
    content.pop(files.SEAL)
    content[files.SEAL] = files.seal(content)
    (path / EXPERIMENT).write_text(json.dumps(content))


def test_a_declaration_of_the_format_before_is_read(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copy(whole / EXPERIMENT, tmp_path)
    reseal(tmp_path, format=4, made=[{"versions": {"jax": "0.10.2"}}])
    assert ExperimentFolder(tmp_path).read() == ExperimentFolder(whole).read()
    reseal(tmp_path, format=5)
    with pytest.raises(UserError, match=r"made = .* must be left out"):
        ExperimentFolder(tmp_path).read()


def test_jobs_may_be_on_another_device_but_go_on_with_no_run_of_this_one(
    whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "elsewhere"))
    unfinish(folder_of(path, "a", 1), 1)
    shutil.rmtree(folder_of(path, "a", 2))
    here = origin.device()
    monkeypatch.setattr(origin, "device", lambda: here | {"kind": "another"})
    with pytest.raises(UserError, match=r"config\.json: was made with kind .*--anyway"):
        run(path, (0, 1, 2))
    ExperimentFolder(path).open(TWO, (0, 1, 2), anywhere=True)
    alone = dataclasses.replace(TWO, conditions={"a": TWO.conditions["a"]})
    done = work.work(ExperimentFolder(path).specs(alone, (1, 2)), work.Options())
    assert (done.done, [*done.failures]) == (1, [("a", 1)])
    assert "was made with kind" in done.failures["a", 1]
