import errno
import json
import os
import pathlib
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sumrnn.config import TaskConfig
from sumrnn.errors import UserError
from sumrnn.runs import files
from tests.conftest import SECONDS, flip

IN_A_FOLDER = hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
TASK = TaskConfig(test_fraction=0.25)
ARRAYS = {
    "run": np.array("ä, 7"),
    "digits": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "state/bias": np.float32([[0.1], [-0.0]]),
    "epoch": np.array(3, np.int32),
}

SIZES = {name: array.size for name, array in ARRAYS.items()}


def mine(name: str) -> str:
    """How a file is called while this process writes it."""
    return f".{name}.{os.getpid()}{files.TEMPORARY}"


def read(path: pathlib.Path, reader: Callable[[], Any]) -> Any:
    """What is read of a file; None if it is refused in a line that names it."""
    try:
        return reader()
    except UserError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return None


def test_atomic_write_replaces_or_leaves_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"):
        files.write_atomic(path, "newer")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_comes_back_and_any_other_content_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, TASK, 1)
    assert files.read_json(path, TaskConfig, 1) == TASK
    with pytest.raises(UserError, match=r"a\.json: has format 1, .* this one reads format 2$"):
        files.read_json(path, TaskConfig, 2)
    path.write_text(path.read_text().replace("30", "31", 1))
    with pytest.raises(UserError, match="its sha256 is not that of its content"):
        files.read_json(path, TaskConfig, 1)
    for text in ("", "[]", "7", "{}", '{"format": true}', '{"format": "1"}', '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"a\.json: damaged"):
            files.read_json(path, TaskConfig, 1)


@hypothesis.given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@IN_A_FOLDER
def test_no_flipped_bit_changes_what_json_says(
    position: int, bit: int, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, TASK, 1)
    flip(path, position, bit)
    found = read(path, lambda: files.read_json(path, TaskConfig, 1))
    assert found in (None, TASK)


def test_nesting_of_any_depth_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    for depth in (*range(700, 1100, 50), 100_000):
        for name in ("size", files.SEAL):
            path.write_text(f'{{"format": 1, "{name}": ' + "[" * depth + "]" * depth + "}")
            with pytest.raises(UserError, match=r"a\.json: damaged"):
                files.read_json(path, TaskConfig, 1)


@pytest.mark.parametrize("sizes", [None, SIZES])
def test_the_same_arrays_come_back_and_give_the_same_bytes(
    sizes: dict[str, int] | None, tmp_path: pathlib.Path
) -> None:
    paths = tmp_path / "a.npz", tmp_path / "b.npz"
    for path in paths:
        files.write_arrays(path, ARRAYS, compressed=sizes is not None)
        found = files.read_arrays(path, sizes)
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@hypothesis.given(
    kind=st.sampled_from(["flip", "cut", "grow"]), place=st.floats(0, 1), bit=st.integers(0, 7)
)
@IN_A_FOLDER
def test_no_damage_changes_what_arrays_say(
    kind: str, place: float, bit: int, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.npz"
    files.write_arrays(path, ARRAYS, compressed=False)
    data = path.read_bytes()
    position = int(place * (len(data) - 1))
    if kind == "flip":
        flip(path, position, bit)
    else:
        path.write_bytes(data[:position] + (data[position:] + data) * (kind == "grow"))
    found = read(path, lambda: files.read_arrays(path)) or ARRAYS
    for name, array in found.items():  # One whose entry in the archive was hit may be missing.
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


@pytest.mark.parametrize(
    ("name", "sizes", "lie"),
    [
        ("more", SIZES, True),
        ("digits", None, False),
        ("digits", SIZES, False),
        ("run", SIZES, True),
    ],
)
def test_what_would_become_large_is_not_read(
    name: str, sizes: dict[str, int] | None, lie: bool, tmp_path: pathlib.Path
) -> None:
    """An array of zeros, also where the file says that they are few, or it is no array."""
    path, zeros = tmp_path / "a.npz", np.zeros(20 << 20, np.uint8)
    arrays = ARRAYS | {name: zeros}
    np.savez_compressed(path, **arrays)
    if name == "run":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("run.npy", zeros.tobytes())
    if lie:
        with zipfile.ZipFile(path, "a") as archive:
            archive.getinfo(f"{name}.npy").file_size = 100
            archive.writestr("epoch2.npy", b"")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.npz: damaged"):
        files.read_arrays(path, sizes)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


def test_only_what_this_program_was_writing_is_cleared_away(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".config.json.4711.sumrnn-tmp").write_text("half")
    (tmp_path / ".figures.4711.sumrnn-tmp").mkdir()
    (tmp_path / ".figures.4711.sumrnn-tmp" / "confusion.png").write_text("half")
    assert files.is_empty(tmp_path)
    kept = {".profile", ".notes.7.tmp", "4711.sumrnn-tmp", ".draft.sumrnn-tmp", ".a.7.sumrnn-tmp~"}
    for name in kept:
        (tmp_path / name).write_text("mine")
    assert not files.is_empty(tmp_path)
    files.clear(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == kept


@pytest.mark.timeout(SECONDS)
def test_what_is_no_file_is_not_read(tmp_path: pathlib.Path) -> None:
    pipe, endless = tmp_path / "pipe", tmp_path / "endless"
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    for path in (pipe, endless):
        with pytest.raises(UserError, match=f"{path.name}: must be a file$"):
            files.read_json(path, TaskConfig, 1)
        with pytest.raises(UserError, match=f"{path.name}: must be a file$"):
            files.read_arrays(path)


def test_a_fault_of_the_program_is_not_told_as_damage(tmp_path: pathlib.Path) -> None:
    for fault in (AttributeError, TypeError, RuntimeError, KeyError):
        with pytest.raises(fault), files.reading(tmp_path):
            raise fault


def test_a_full_disk_is_no_misuse(tmp_path: pathlib.Path) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(OSError, match=os.strerror(number)), files.writing(tmp_path):
            raise OSError(number, os.strerror(number))
    with pytest.raises(UserError, match=r"written \(Permission"), files.writing(tmp_path):
        raise OSError(13, os.strerror(13))


def test_a_link_in_the_place_of_what_is_written_first_is_not_followed(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "thesis").write_text("years")
    path = tmp_path / "report.json"
    (tmp_path / mine("report.json")).symlink_to(tmp_path / "thesis")
    files.write_atomic(path, "new")
    assert (tmp_path / "thesis").read_text() == "years"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_pictures_that_are_not_drawn_any_more_are_removed(tmp_path: pathlib.Path) -> None:
    known = ("a", "b")
    files.write_report(tmp_path, {"r.md": "1"}, [(name, b"drawn") for name in known], known)
    (tmp_path / files.FIGURES / "mine.png").write_text("mine")
    files.write_report(tmp_path, {"r.md": "2"}, [("b", b"drawn")], known)
    assert {path.name for path in (tmp_path / files.FIGURES).iterdir()} == {"b.png", "mine.png"}
    assert (tmp_path / "r.md").read_text() == "2"


def test_json_has_no_numbers_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.to_json({"loss": float("nan")})
    assert json.loads(files.to_json({"loss": 0.5})) == {"loss": 0.5}
