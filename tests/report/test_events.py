"""What TensorBoard reads back."""

import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

import sumrnn
from sumrnn.errors import UserError
from sumrnn.report import events
from sumrnn.runs.folder import EVENTS, FIGURES, RunFolder
from sumrnn.runs.writer import RunWriter
from tests.conftest import SMALL, Done, call, files_of, refused

record = pytest.importorskip("tensorboardX.record_writer")


def scalars(path: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """By tag: epochs and values, by the format's own description."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    content, found = path.read_bytes(), {}  # type: ignore[var-annotated]
    while content:
        size = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + size])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[12 + size + 4 :]
    return found


def test_a_run_leaves_its_history_where_asked(
    trained: tuple[pathlib.Path, Done], tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
    assert EVENTS not in files_of(path)
    assert call("analyze", "run", "--tensorboard", cwd=tmp_path).status == 0
    history, found = sumrnn.load(path).history, scalars(path / EVENTS)
    assert set(found) == set(events.TAGS.values())
    for column, tag in events.TAGS.items():
        epochs, values = zip(*found[tag], strict=True)
        np.testing.assert_array_equal(epochs, history["epoch"])
        np.testing.assert_array_equal(np.float32(values), np.float32(history[column]))
    folder = RunFolder(path)
    shutil.rmtree(path / FIGURES)
    names = {entry.name for entry in path.iterdir()}
    (path / EVENTS).unlink()
    events.write(folder)
    assert {entry.name for entry in path.iterdir()} == names
    with folder.lock():  # A run that begins anew has no history yet.
        RunWriter(folder).begin(SMALL, 7, "sheet")
    assert EVENTS not in files_of(path)


def test_a_missing_library_is_told_before_any_work(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for words in (("train",), ("experiment", "tiny"), ("analyze", ".")):
        message = refused(*words, "--tensorboard", cwd=tmp_path)
        assert "pip install 'sumrnn[tensorboard]'" in message


def test_a_library_that_does_not_load_is_told_like_a_missing_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tensorboardX does with another protobuf than its own."""
    library, here = tmp_path / "library", tmp_path / "here"
    library.mkdir()
    here.mkdir()
    (library / "tensorboardX.py").write_text("raise TypeError('Descriptors\\ncannot be created')")
    monkeypatch.delitem(sys.modules, "tensorboardX")
    monkeypatch.syspath_prepend(library)
    words = "sumrnn[tensorboard]: must load for this (TypeError: Descriptors); python -m pip"
    assert words in refused("train", "--tensorboard", cwd=here)
    with pytest.raises(UserError, match=re.escape(words)):
        events.encode({"seconds": np.zeros(1)})
