import dataclasses
import logging
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest

from sumrnn import checkpoint, files, runs, train
from sumrnn.checkpoint import Snapshot
from sumrnn.files import RunError
from tests.conftest import SMALL

CONFIG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=9))


def snapshot(epoch: int, seed: int = 7) -> Snapshot:
    """As after some epochs, with numbers that tell epochs and seeds apart."""
    keys = train.keys(CONFIG, seed)
    state = jax.device_get(train.init(CONFIG, keys.init))
    state = jax.tree.map(lambda x: np.asarray(x + epoch, x.dtype), state)
    columns = {
        name: np.arange(epoch).astype(dtype) + dtype(0.1)
        for name, dtype in checkpoint.COLUMNS.items()
    }
    key = np.asarray(jax.random.key_data(keys.shuffle))
    return Snapshot(state, key, np.array(epoch, np.int32), columns)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with checkpoints after 3, 4 and 5 epochs, of which two are kept."""
    path = tmp_path_factory.mktemp("checkpoint") / "run"
    runs.create(path, CONFIG, 7, "sheet")
    for epoch in (3, 4, 5):
        checkpoint.save(path, snapshot(epoch))
    return path


@pytest.fixture
def copy(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def test_the_last_two_are_kept_and_come_back_as_they_were(saved: pathlib.Path) -> None:
    assert checkpoint.epochs(saved) == [5, 4]
    assert sorted(entry.name for entry in (saved / checkpoint.CHECKPOINTS).iterdir()) == ["4", "5"]
    assert checkpoint.newest(saved, CONFIG) == (5, [])
    for epoch in (4, 5):
        found, expected = checkpoint.load(saved, CONFIG, epoch), snapshot(epoch)
        chex.assert_trees_all_equal(found, expected)
        chex.assert_trees_all_equal_dtypes(found, expected)
        assert type(found.state) is train.State


def test_a_run_without_checkpoints_begins(tmp_path: pathlib.Path) -> None:
    assert checkpoint.newest(tmp_path, CONFIG) == (0, [])


def test_an_older_one_stands_in_for_a_damaged_one(copy: pathlib.Path) -> None:
    (file, *_) = (checkpoint.folder(copy, 5) / checkpoint.STATE / "d").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert checkpoint.newest(copy, CONFIG) == (
        4,
        [f"{file}: damaged (it does not match SHA256SUMS)"],
    )
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(copy, CONFIG, 5)
    # The damaged one is replaced when the run comes there again.
    checkpoint.save(copy, snapshot(5))
    assert checkpoint.newest(copy, CONFIG) == (5, [])
    assert checkpoint.epochs(copy) == [5, 4]


def test_no_good_one_is_told(copy: pathlib.Path) -> None:
    for epoch in (4, 5):
        (checkpoint.folder(copy, epoch) / files.SUMS).unlink()
    with pytest.raises(RunError, match=r"5/SHA256SUMS: missing; no good checkpoint is left"):
        checkpoint.newest(copy, CONFIG)


def test_one_of_another_run_is_not_taken(copy: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    runs.create(other, CONFIG, 8, "sheet")
    checkpoint.save(other, snapshot(6, seed=8))
    place = checkpoint.folder(copy, 6)
    shutil.copytree(checkpoint.folder(other, 6), place)
    owner = copy / checkpoint.CONFIG
    assert checkpoint.newest(copy, CONFIG) == (5, [f"{place}: is of another run than {owner}"])


def test_one_of_another_epoch_is_not_taken(copy: pathlib.Path) -> None:
    place = checkpoint.folder(copy, 9)
    checkpoint.folder(copy, 5).rename(place)
    epoch, (wrong,) = checkpoint.newest(copy, CONFIG)
    assert epoch == 4
    assert wrong.startswith(f"{place / checkpoint.STATE}: damaged")


@pytest.mark.parametrize("name", ["10000000000000", "05", "-1", "٣", "five"])
def test_a_name_that_is_no_epoch_of_the_run_is_passed_over(name: str, copy: pathlib.Path) -> None:
    shutil.copytree(checkpoint.folder(copy, 5), copy / checkpoint.CHECKPOINTS / name)
    assert checkpoint.newest(copy, CONFIG) == (5, [])
    assert checkpoint.epochs(copy) == [5, 4]


def test_an_epoch_that_the_run_does_not_have_is_named(copy: pathlib.Path) -> None:
    place = checkpoint.folder(copy, 999_999_999)
    shutil.copytree(checkpoint.folder(copy, 5), place)
    told = f"{place}: is of an epoch that the run does not have"
    assert checkpoint.newest(copy, CONFIG) == (5, [told])


def test_what_was_being_written_when_a_process_ended_is_cleared_away(copy: pathlib.Path) -> None:
    place = copy / checkpoint.CHECKPOINTS
    for name in (".6.4711.tmp", ".old.tmp"):
        shutil.copytree(checkpoint.folder(copy, 4), place / name)
    assert checkpoint.newest(copy, CONFIG) == (5, [])
    checkpoint.save(copy, snapshot(6))
    assert sorted(entry.name for entry in place.iterdir()) == ["5", "6"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("[os_error_code='28']\nof much"), r"6: .* \(No space left on device\)$"),
        (ValueError("no number\nof much"), r"6: cannot be written \(no number\)$"),
        (ValueError(), r"6: cannot be written \(ValueError\)$"),
        (OSError(27, "File too large"), r"File too large: '.*/6'$"),
    ],
)
def test_a_failing_disk_leaves_the_earlier_ones(
    error: Exception,
    said: str,
    copy: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        def save(self, path: pathlib.Path, item: object) -> None:
            for logger in loggers:
                logger.error("Future exception was never retrieved")
            raise error

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    with monkeypatch.context() as patched:
        for logger in loggers:  # A failure leaves them off: here only for this test.
            patched.setattr(logger, "disabled", False)
        patched.setattr(checkpoint, "_checkpointer", Full)
        with pytest.raises(OSError, match=said) as caught:
            checkpoint.save(copy, snapshot(6))
    assert "\n" not in str(caught.value)
    assert caplog.records == []
    assert checkpoint.newest(copy, CONFIG) == (5, [])
