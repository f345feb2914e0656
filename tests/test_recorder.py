import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from sumrnn import checkpoint, files, recorder, report, runs
from sumrnn.config import Config, ConfigError
from sumrnn.files import RunError
from sumrnn.signals import Stop
from tests.conftest import SMALL, files_of, results_of

EPOCHS = 7
CONFIG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=EPOCHS))


def record(
    folders: dict[int, pathlib.Path],
    config: Config = CONFIG,
    stop_after: int | None = None,
    every: int | None = 2,
) -> tuple[list[recorder.Ended], list[tuple[tuple[int, ...], int]]]:
    """Records what is missing, up to a signal in an epoch; how waves ended, and what was seen."""
    seen = []
    stop = Stop()

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        seen.append((tuple(seeds), epoch))
        if stop_after is not None and epoch + 1 >= stop_after:
            stop.number = 15

    epochs = {}
    for seed, folder in folders.items():
        status, epochs[seed], wrong = runs.survey(folder, config, seed)
        assert (status, wrong) == ("unfinished", [])
    return list(recorder.record(folders, epochs, config, "small", stop, watch, every)), seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, pathlib.Path]:
    """Three runs that nothing interrupted, the last one alone in its wave.  Do not change them."""
    folders = {seed: tmp_path_factory.mktemp("whole") / f"seed{seed}" for seed in (3, 4, 5)}
    ended, seen = record(folders)
    assert [wave.status for wave in ended] == [{3: "finished", 4: "finished"}, {5: "finished"}]
    waves = [((3, 4), n) for n in range(1, EPOCHS + 1)] + [((5,), n) for n in range(1, EPOCHS + 1)]
    assert seen == waves
    for folder in folders.values():
        report.write(folder)
    return folders


def test_checkpoints_are_kept_of_the_epochs_asked_for_and_of_the_last(
    whole: dict[int, pathlib.Path],
) -> None:
    for folder in whole.values():
        assert checkpoint.epochs(folder) == [7, 6]
        found = checkpoint.load(folder, CONFIG, 7)
        history = runs.load(folder).history
        for name in checkpoint.COLUMNS:
            np.testing.assert_allclose(found.history[name], history[name], rtol=1e-8, atol=5e-4)


@pytest.mark.parametrize("stop_after", range(2, EPOCHS))
def test_a_run_stopped_in_any_epoch_goes_on_to_the_same_results(
    stop_after: int, whole: dict[int, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folders = {seed: tmp_path / str(seed) for seed in (3, 4)}
    (wave,), _ = record(folders, stop_after=stop_after)
    assert wave == recorder.Ended(stop_after, dict.fromkeys(folders, "unfinished"))
    for folder in folders.values():
        assert checkpoint.epochs(folder)[0] == stop_after
        assert len((folder / runs.HISTORY).read_text().splitlines()) == 1 + stop_after
        assert runs.status(folder) == "unfinished"
    # One of them alone, on all devices, and stopped once more where it can be.
    _, seen = record({3: folders[3]}, stop_after=stop_after + 2)
    assert seen[0] == ((3,), stop_after + 1)
    for seed, folder in folders.items():
        if runs.status(folder) == "unfinished":
            record({seed: folder}, every=5)
        report.write(folder)
        assert results_of(folder) == results_of(whole[seed])


@pytest.mark.parametrize(("share", "kept"), [(1e-9, [7]), (1e9, [7, 6])])
def test_checkpoints_take_their_share_of_the_time(
    share: float, kept: list[int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SHARE", share)
    record({3: tmp_path / "run"}, every=None)
    assert checkpoint.epochs(tmp_path / "run") == kept


def test_a_run_that_moved_on_before_it_was_locked_is_left_alone(
    whole: dict[int, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder = pathlib.Path(shutil.copytree(whole[5], tmp_path / "run"))
    before = files_of(folder)
    for epoch in (0, 6):
        with pytest.raises(files.RunError, match="another process was at work there"):
            list(recorder.record({5: folder}, {5: epoch}, CONFIG, "small", Stop()))
    assert files_of(folder) == before


def test_a_signal_before_a_wave_begins_nothing(tmp_path: pathlib.Path) -> None:
    folders = {1: tmp_path / "1"}
    assert list(recorder.record(folders, {1: 0}, CONFIG, "small", Stop(2))) == []
    assert not folders[1].exists()


def test_a_rescue_keeps_the_last_epoch_from_another_thread(tmp_path: pathlib.Path) -> None:
    kept = []
    stop = Stop()

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        if epoch in (1, 3):
            stop.rescue()
            kept.append(checkpoint.newest(tmp_path / "run", CONFIG))

    list(recorder.record({1: tmp_path / "run"}, {1: 0}, CONFIG, "small", stop, watch, every=100))
    assert kept == [(1, []), (3, [])]
    stop.rescue()  # Nothing is at work any more.


WILD = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, learning_rate=1e38))


def test_a_run_that_diverges_ends_in_that_epoch_and_keeps_its_history(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "wild"
    (wave,), seen = record({1: folder}, WILD)
    assert wave.status == {1: "diverged"}
    assert wave.epoch == len(seen) < EPOCHS
    assert runs.status(folder) == "diverged"
    rows = (folder / runs.HISTORY).read_text().splitlines()
    assert len(rows) == 1 + wave.epoch
    assert f"in epoch {wave.epoch}: " in runs.divergence(folder, WILD)
    assert runs.survey(folder, WILD, 1)[0] == "diverged"


def break_second_moment(folder: pathlib.Path, epoch: int) -> None:
    """As after a gradient too large to be squared: every loss is still a number."""
    found = checkpoint.load(folder, CONFIG, epoch)
    broken = jax.tree.map(lambda x: np.full_like(x, np.inf), found.state.opt_state[0].nu)
    adam = found.state.opt_state[0]._replace(nu=broken)
    state = found.state._replace(opt_state=(adam, *found.state.opt_state[1:]))
    checkpoint.save(folder, found._replace(state=state))


def test_one_that_diverges_leaves_the_others_alone(
    whole: dict[int, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folders = {seed: tmp_path / str(seed) for seed in (3, 4)}
    record(folders, stop_after=4)
    break_second_moment(folders[3], 4)
    (wave,), seen = record(folders, every=1)
    assert wave == recorder.Ended(EPOCHS, {3: "diverged", 4: "finished"})
    assert [epoch for _, epoch in seen] == [5, 6, 7]
    assert checkpoint.epochs(folders[3]) == [4, 2]  # The last ones before that epoch.
    assert not (folders[3] / runs.PREDICTIONS).exists()
    assert "in epoch 5: these, the parameters and Adam's moments must be finite" in (
        runs.divergence(folders[3], CONFIG)
    )
    assert runs.survey(folders[3], CONFIG, 3)[0] == "diverged"
    report.write(folders[4])
    assert results_of(folders[4]) == results_of(whole[4])


def test_the_end_is_taken_back_where_it_was_damaged(
    whole: dict[int, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Nothing but the predictions is computed again from the last checkpoint."""
    folder = pathlib.Path(shutil.copytree(whole[5], tmp_path / "run"))
    (folder / runs.PREDICTIONS).write_bytes(b"damaged")
    (folder / checkpoint.CHECKPOINTS / ".6.4711.tmp").mkdir()
    status, epoch, wrong = runs.survey(folder, CONFIG, 5)
    assert (status, epoch, len(wrong)) == ("unfinished", EPOCHS, 1)
    list(recorder.record({5: folder}, {5: epoch}, CONFIG, "small", Stop()))
    assert files.read_sums(folder) == files.read_sums(whole[5])
    assert {entry.name for entry in (folder / checkpoint.CHECKPOINTS).iterdir()} == {"6", "7"}
    assert results_of(folder) == results_of(whole[5])


@pytest.mark.parametrize("every", [1, 100])
def test_a_folder_that_became_another_run_s_is_not_written_to(
    every: int, tmp_path: pathlib.Path
) -> None:
    """As when somebody removes it and starts another one there."""
    folder = tmp_path / "run"

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        if epoch == 3:
            shutil.rmtree(folder)
            runs.create(folder, CONFIG, 2, "small")

    begun = recorder.record({1: folder}, {1: 0}, CONFIG, "small", Stop(), watch, every)
    with pytest.raises(RunError, match=r"config\.json: is no longer that of the run with seed 1"):
        list(begun)
    assert [entry.name for entry in folder.iterdir()] == [runs.CONFIG]


def test_the_history_is_that_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    """Also where the newest one was damaged, and a kill comes before the next one."""
    folder = tmp_path / "run"
    record({1: folder}, stop_after=5, every=1)
    shutil.rmtree(checkpoint.folder(folder, 5) / checkpoint.STATE)
    status, epoch, wrong = runs.survey(folder, CONFIG, 1)
    assert (status, epoch, len(wrong)) == ("unfinished", 4, 1)
    seen = []

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        seen.append(len((folder / runs.HISTORY).read_text().splitlines()))

    list(recorder.record({1: folder}, {1: 4}, CONFIG, "small", Stop(), watch, every=100))
    assert seen[:2] == [1 + 4, 1 + 4]


def test_the_time_between_checkpoints_must_be_possible() -> None:
    recorder.check_every(1)
    recorder.check_every(None)
    with pytest.raises(ConfigError, match=r"checkpoint_every = 0: must be at least 1"):
        recorder.check_every(0)
