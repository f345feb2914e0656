import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from sumrnn.devices import mesh
from sumrnn.errors import UserError
from sumrnn.runs import recorder, work
from sumrnn.runs.folder import CONFIG, HISTORY, PREDICTIONS, RunFolder
from sumrnn.runs.progress import Progress
from sumrnn.runs.recorder import Row, Spec
from sumrnn.runs.work import Options
from sumrnn.runs.writer import RunWriter
from tests import conftest
from tests.conftest import SMALL, break_second_moment, results_of

EPOCHS = 7
LONG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=EPOCHS))


def record(
    folders: dict[int, RunFolder], stop_after: int | None = None, every: int | None = 2
) -> tuple[Progress, list[tuple[tuple[int, ...], int]]]:
    """Records what is missing, up to a signal in an epoch; how far it came, and what was seen."""
    seen: list[tuple[tuple[int, ...], int]] = []
    specs = [Spec(folder, "small", LONG, seed) for seed, folder in folders.items()]
    options = Options(checkpoint_every=every)

    def view(progress: Progress) -> None:
        if progress.epoch:
            seen.append((progress.seeds, progress.epoch))

    def stop() -> bool:
        return stop_after is not None and bool(seen) and seen[-1][1] + 1 >= stop_after

    return work.work(specs, options, stop, view=view), seen


def train(folder: RunFolder, seed: int = 1, epoch: int = 0, **options: Any) -> recorder.Ended:
    """Trains a run from where it is to its end."""
    compiled = mesh.prepare(LONG, 1)
    with folder.lock():
        return recorder.train([Spec(folder, "small", LONG, seed)], epoch, compiled, **options)


def lines(folder: RunFolder) -> int:
    """Epochs in history.csv."""
    return len((folder.path / HISTORY).read_text().splitlines()) - 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunFolder]:
    """Three runs that nothing interrupted, the last one alone in its wave.  Do not change them."""
    path = tmp_path_factory.mktemp("whole")
    folders = {seed: RunFolder(path / f"seed{seed}") for seed in (3, 4, 5)}
    progress, seen = record(folders)
    assert progress.done == progress.total == 3
    epochs = range(1, EPOCHS + 1)
    assert seen == [((3, 4), n) for n in epochs] + [((5,), n) for n in epochs]
    return folders


def copy_of(folder: RunFolder, path: pathlib.Path) -> RunFolder:
    return RunFolder(pathlib.Path(shutil.copytree(folder.path, path)))


@pytest.mark.parametrize("stop_after", range(2, EPOCHS))
def test_a_run_stopped_in_any_epoch_goes_on_to_the_same_results(
    stop_after: int, whole: dict[int, RunFolder], tmp_path: pathlib.Path
) -> None:
    folders = {seed: RunFolder(tmp_path / str(seed)) for seed in (3, 4)}
    progress, seen = record(folders, stop_after=stop_after)
    assert (progress.done, seen[-1]) == (0, ((3, 4), stop_after))
    for folder in folders.values():
        assert folder.checkpoints.epochs()[0] == stop_after
        assert lines(folder) == stop_after
        assert folder.status() == "unfinished"
    # One of them alone, on all devices, and stopped once more where it can be.
    _, seen = record({3: folders[3]}, stop_after=stop_after + 2)
    assert seen[0] == ((3,), stop_after + 1)
    for seed, folder in folders.items():
        if folder.status() == "unfinished":
            record({seed: folder}, every=5)
        assert results_of(folder.path) == results_of(whole[seed].path)


def test_a_run_can_get_more_epochs_but_not_fewer(
    whole: dict[int, RunFolder], tmp_path: pathlib.Path
) -> None:
    """Finished or not, it ends as if it had had them from the beginning."""
    fewer = dataclasses.replace(LONG, train=dataclasses.replace(LONG.train, epochs=4))
    for until in (0, 3):
        folder = conftest.train(tmp_path / str(until), fewer, 3, until=until)
        done = until or 4
        less = dataclasses.replace(LONG, train=dataclasses.replace(LONG.train, epochs=done - 1))
        with pytest.raises(UserError, match=rf"^epochs = {done - 1}: must be at least {done}, wh"):
            folder.survey(less, 3)
        assert folder.survey(LONG, 3) == ("unfinished", done, [])
        if not until:
            copy = copy_of(folder, tmp_path / "copy")
            copy.checkpoints.forget(0)
            with pytest.raises(UserError, match="has no checkpoint after epoch 4 to go on from"):
                copy.survey(LONG, 3)
        conftest.train(folder.path, LONG, 3)
        expected = results_of(whole[3].path)
        expected["config.json"]["name"] = "sheet"
        assert results_of(folder.path) == expected


@pytest.mark.parametrize(("share", "kept"), [(1e-9, [5]), (1e9, [5, 4])])
def test_checkpoints_take_their_share_of_the_time(
    share: float, kept: list[int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SHARE", share)
    folder = RunFolder(tmp_path / "run")
    record({3: folder}, stop_after=5, every=None)
    assert folder.checkpoints.epochs() == kept


def test_runs_that_are_furthest_go_first_and_equal_ones_together(
    whole: dict[int, RunFolder], tmp_path: pathlib.Path
) -> None:
    folders = {seed: RunFolder(tmp_path / str(seed)) for seed in (3, 4, 5)}
    record({5: folders[5]}, stop_after=4)
    _, seen = record(folders, every=100)
    assert seen[:4] == [((5,), 5), ((5,), 6), ((5,), 7), ((3, 4), 1)]
    for seed, folder in folders.items():
        assert results_of(folder.path)["predictions.npz"] == (
            (whole[seed].path / PREDICTIONS).read_bytes()
        )


def test_a_signal_before_a_wave_begins_nothing(tmp_path: pathlib.Path) -> None:
    spec = Spec(RunFolder(tmp_path / "1"), "small", LONG, 1)
    assert work.work([spec], Options(), lambda: True).done == 0
    assert not spec.folder.path.exists()


def test_a_run_that_diverges_ends_in_that_epoch_and_leaves_the_others_alone(
    whole: dict[int, RunFolder], tmp_path: pathlib.Path
) -> None:
    folders = {seed: RunFolder(tmp_path / str(seed)) for seed in (3, 4)}
    record(folders, stop_after=4)
    break_second_moment(folders[3], LONG, 3, 4)
    progress, seen = record(folders, every=1)
    assert (progress.done, progress.diverged) == (2, 1)
    assert [folders[seed].status() for seed in (3, 4)] == ["diverged", "finished"]
    assert [epoch for _, epoch in seen] == [5, 6, 7]
    assert folders[3].checkpoints.epochs() == [4, 2]  # The last ones before that epoch.
    assert not (folders[3].path / PREDICTIONS).exists()
    assert lines(folders[3]) == 5
    assert "in epoch 5: these, the parameters and Adam's moments must be finite" in (
        folders[3].divergence()
    )
    assert folders[3].survey(LONG, 3)[0] == "diverged"
    assert record(folders)[1] == []  # It is not tried again.
    assert results_of(folders[4].path) == results_of(whole[4].path)


def test_a_wave_of_which_all_diverge_ends_at_once(tmp_path: pathlib.Path) -> None:
    folder = RunFolder(tmp_path / "run")
    record({3: folder}, stop_after=4)
    break_second_moment(folder, LONG, 3, 4)
    _, seen = record({3: folder})
    assert [epoch for _, epoch in seen] == [5]
    assert folder.status() == "diverged"


@pytest.mark.parametrize(("again", "every"), [(False, 100), (True, 1)])
def test_a_folder_that_became_another_run_s_is_not_written_to(
    again: bool, every: int, tmp_path: pathlib.Path
) -> None:
    """As when somebody removes it, and perhaps starts another one there."""
    folder = RunFolder(tmp_path / "run")

    def watch(seeds: Sequence[int], epoch: int, row: Row) -> None:
        if epoch == 3:
            shutil.rmtree(folder.path)
            if again:
                RunWriter(RunFolder(folder.path)).begin(LONG, 2, "small")

    (lost,) = train(folder, every=every, watch=watch).lost.values()
    told = "is no longer that of the run with seed 1" if again else "missing"
    assert str(lost) == f"{folder.path / CONFIG}: {told}"
    left = [entry.name for entry in folder.path.iterdir()] if folder.path.exists() else []
    assert left == [CONFIG] * again


def test_the_history_is_that_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    """Also where the newest one was damaged, and a kill comes before the next one."""
    folder = RunFolder(tmp_path / "run")
    record({1: folder}, stop_after=5, every=1)
    folder.checkpoints.file(5).write_bytes(b"")
    status, epoch, wrong = folder.survey(LONG, 1)
    assert (status, epoch, len(wrong)) == ("unfinished", 4, 1)
    seen = []

    def watch(seeds: Sequence[int], epoch: int, row: Row) -> None:
        seen.append(lines(folder))

    train(folder, 1, 4, watch=watch, every=100)
    assert seen[:2] == [4, 4]
