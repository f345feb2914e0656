import dataclasses
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest
from flax import traverse_util

from sumrnn.models import network
from sumrnn.runs import checkpoint, files
from sumrnn.runs.checkpoint import Checkpoints, Snapshot
from sumrnn.train.run import State
from tests.conftest import SMALL

CONFIG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=9))
OTHER = dataclasses.replace(CONFIG, data_seed=1)


def snapshot(epoch: int, seed: int = 7) -> Snapshot:
    """As after some epochs, with numbers that tell epochs and seeds apart."""
    leaves, structure = jax.tree.flatten(checkpoint.like(CONFIG, epoch))
    numbers = [
        (np.arange(leaf.size).reshape(leaf.shape) + epoch + i / 7 + seed / 10).astype(leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    made: Snapshot = jax.tree.unflatten(structure, numbers)
    return made._replace(epoch=np.array(epoch, np.int32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Checkpoints after 3, 4 and 5 epochs, of which two are kept."""
    path = tmp_path_factory.mktemp("run") / "checkpoints"
    for epoch in (3, 4, 5):
        Checkpoints(path).save(snapshot(epoch), CONFIG, 7)
    return path


@pytest.fixture
def copy(saved: pathlib.Path, tmp_path: pathlib.Path) -> Checkpoints:
    return Checkpoints(pathlib.Path(shutil.copytree(saved, tmp_path / "run" / "checkpoints")))


def newest(found: Checkpoints) -> tuple[int, list[str]]:
    return found.newest(CONFIG, 7)


def test_the_last_two_are_kept_and_come_back_as_they_were(saved: pathlib.Path) -> None:
    found = Checkpoints(saved)
    assert found.epochs() == [5, 4]
    assert sorted(entry.name for entry in saved.iterdir()) == ["4.npz", "5.npz"]
    assert newest(found) == (5, [])
    for epoch in (4, 5):
        loaded, expected = found.load(CONFIG, 7, epoch), snapshot(epoch)
        chex.assert_trees_all_equal(loaded, expected)
        chex.assert_trees_all_equal_dtypes(loaded, expected)
        assert type(loaded.state) is State


def test_numpy_alone_reads_one_and_it_has_no_pickle(saved: pathlib.Path) -> None:
    with np.load(saved / "5.npz", allow_pickle=False) as arrays:
        assert {"run", "epoch", "history/loss", "history/seconds"} <= set(arrays)
        assert arrays["epoch"] == 5
        assert any(name.startswith("state/params/") for name in arrays)
        assert any(name.startswith("state/opt_state/") for name in arrays)


def test_a_run_without_checkpoints_begins(tmp_path: pathlib.Path) -> None:
    assert newest(Checkpoints(tmp_path / "none")) == (0, [])
    (tmp_path / "file").write_text("7")
    assert newest(Checkpoints(tmp_path / "file")) == (0, [])


def test_a_name_that_is_no_epoch_of_the_run_is_passed_over(copy: Checkpoints) -> None:
    for name in ("10000000000000.npz", "05.npz", "-1.npz", "٣.npz", "five", "5"):
        shutil.copy(copy.file(5), copy.path / name)
    assert newest(copy) == (5, [])
    assert copy.epochs() == [5, 4]


def forge(file: pathlib.Path, **changes: np.ndarray | None) -> None:
    """Changes arrays of a checkpoint; None: leaves one out."""
    arrays = files.read_arrays(file) | changes
    kept = {name: array for name, array in arrays.items() if array is not None}
    files.write_arrays(file, kept, compressed=False)


def test_one_of_an_epoch_that_the_run_does_not_have_is_named(copy: Checkpoints) -> None:
    for epoch in (10, 999_999_999):
        copy.file(5).rename(copy.file(epoch))
        forge(copy.file(epoch), epoch=np.array(epoch, np.int32))
        assert newest(copy) == (4, [f"{copy.file(epoch)}: damaged (it is of epoch {epoch})"])
        copy.file(epoch).rename(copy.file(5))


OUTPUT = "state/params/output"
FORGED: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "no run": ({"run": None}, "it is of another run"),
    "another seed": ({"run": np.array(checkpoint.identity(CONFIG, 8))}, "it is of another run"),
    "another config": ({"run": np.array(checkpoint.identity(OTHER, 7))}, "it is of another run"),
    "no epoch": ({"epoch": None}, "it is of epoch None"),
    "another epoch": ({"epoch": np.array(4, np.int32)}, "it is of epoch 4"),
    "an array missing": ({OUTPUT: None}, f"{OUTPUT} must be float32 [9]"),
    "a wrong type": ({OUTPUT: np.zeros(9)}, f"{OUTPUT} must be float32 [9]"),
    "a wrong shape": ({OUTPUT: np.zeros(1, np.float32)}, f"{OUTPUT} must be float32 [9]"),
    "half of the weights by the names of Flax": (
        {OUTPUT: None, f"{OUTPUT}/bias": np.zeros(1, np.float32)},
        "state/params must have all arrays of its weights",
    ),
    "a wide epoch": ({"epoch": np.array(5, np.int64)}, "epoch must be int32 []"),
    "a short history": (
        {"history/loss": np.zeros(4, np.float32)},
        "history/loss must be float32 [5]",
    ),
}


def test_one_of_an_earlier_version_is_read(copy: Checkpoints) -> None:
    """There the weights had the names of Flax, in the optimizer's state too."""
    arrays = files.read_arrays(copy.file(5))
    for name in [name for name in arrays if name.endswith("/lstm")]:
        place = name.removesuffix("/lstm")
        packed = network.Packed(arrays.pop(name), arrays.pop(f"{place}/output"))
        named = traverse_util.flatten_dict(network.to_flax(packed), sep="/")
        arrays |= {f"{place}/{part}": array for part, array in named.items()}
    files.write_arrays(copy.file(5), arrays, compressed=False)
    chex.assert_trees_all_equal(copy.load(CONFIG, 7, 5), snapshot(5))


@pytest.mark.parametrize("kind", FORGED)
def test_forged_ones_are_refused(kind: str, copy: Checkpoints) -> None:
    changes, told = FORGED[kind]
    forge(copy.file(5), **changes)
    assert newest(copy) == (4, [f"{copy.file(5)}: damaged ({told})"])


def test_what_was_being_written_when_a_process_ended_is_cleared_away(copy: Checkpoints) -> None:
    (copy.path / ".6.npz.4711.sumrnn-tmp").write_text("half")
    (copy.path / ".notes.7.tmp").write_text("mine")
    copy.file(6).mkdir()  # Something else in the place of the next one.
    epoch, (wrong,) = newest(copy)
    assert epoch == 5
    assert str(copy.file(6)) in wrong
    copy.save(snapshot(6), CONFIG, 7)
    names = {entry.name for entry in copy.path.iterdir()}
    assert names == {".notes.7.tmp", "5.npz", "6.npz"}
