import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable

import jax
import numpy as np
import pytest

from sumrnn import files, placement, runs
from sumrnn.config import ModelConfig
from sumrnn.files import RunError
from tests.conftest import SMALL

Trained = tuple[pathlib.Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copy(trained: Trained, tmp_path: pathlib.Path) -> pathlib.Path:
    """A finished run that may be damaged."""
    return pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))


def test_a_run_comes_back_as_it_was(copy: pathlib.Path) -> None:
    run = runs.load(copy)
    assert (run.config, run.seed, run.name) == (SMALL, 7, "sheet")
    batch = placement.fit(SMALL, [7])
    for name, values in batch.history._asdict().items():
        np.testing.assert_array_equal(run.history[name].astype(np.float32), values[0])
    _, data, logits = placement.one(batch, 0)
    for part, split, answer in zip(run.parts.values(), data, logits, strict=True):
        for found, made in zip(vars(part).values(), (*split, answer), strict=True):
            np.testing.assert_array_equal(found, made)


def test_the_same_arrays_give_the_same_bytes(tmp_path: pathlib.Path, trained: Trained) -> None:
    parts = runs.load(trained[0]).parts
    runs.write_predictions(tmp_path, parts)
    again, first = tmp_path / runs.PREDICTIONS, trained[0] / runs.PREDICTIONS
    assert again.read_bytes() == first.read_bytes()


def reseal(path: pathlib.Path) -> None:
    """Makes all checksums right again, as somebody would who forges a run."""
    try:
        fields = json.loads((path / runs.CONFIG).read_text())
        fields.pop(files.SEAL)
        files.write_sealed(path / runs.CONFIG, fields)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass  # Not an object, so that it cannot be sealed.
    files.write_sums(path, (runs.CONFIG, runs.HISTORY, runs.PREDICTIONS))


def rewrite(name: str, change: Callable[[str], str]) -> Callable[[pathlib.Path], None]:
    def damage(path: pathlib.Path) -> None:
        (path / name).write_text(change((path / name).read_text()))

    return damage


def change_arrays(
    **changes: Callable[[np.ndarray], np.ndarray | None],
) -> Callable[[pathlib.Path], None]:
    def damage(path: pathlib.Path) -> None:
        with np.load(path / runs.PREDICTIONS) as file:
            arrays = dict(file)
        for name, change in changes.items():
            value = change(arrays.pop(name))
            if value is not None:
                arrays[name] = value
        np.savez(path / runs.PREDICTIONS, **arrays)

    return damage


def truncate(name: str) -> Callable[[pathlib.Path], None]:
    def damage(path: pathlib.Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: len(data) // 2])

    return damage


MISSING = {
    "no config": (runs.CONFIG, r"config\.json: missing"),
    "no history": (runs.HISTORY, r"history\.csv: missing"),
    "no predictions": (runs.PREDICTIONS, r"predictions\.npz: missing"),
    "no sums": (files.SUMS, "SHA256SUMS: missing, so this is no finished run; --resume continues"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_run_that_lacks_a_file_is_refused(name: str, copy: pathlib.Path) -> None:
    file, message = MISSING[name]
    (copy / file).unlink()
    with pytest.raises(RunError, match=message):
        runs.load(copy)


DAMAGES: dict[str, tuple[Callable[[pathlib.Path], None], str]] = {
    "half a config": (truncate(runs.CONFIG), r"config\.json: damaged"),
    "half a history": (truncate(runs.HISTORY), r"history\.csv: damaged"),
    "half the predictions": (truncate(runs.PREDICTIONS), r"predictions\.npz: damaged"),
    "empty config": (rewrite(runs.CONFIG, lambda text: ""), r"config\.json: damaged"),
    "list for config": (rewrite(runs.CONFIG, lambda text: "[]"), r"config\.json: damaged"),
    "other format": (
        rewrite(runs.CONFIG, lambda text: text.replace('"format": 3', '"format": 1')),
        r"config\.json: damaged \(must be an object with format = 3\)",
    ),
    "impossible config": (
        rewrite(runs.CONFIG, lambda text: text.replace('"length": 5', '"length": -5')),
        r"config\.json: damaged \(length = -5: must be at least 1\)",
    ),
    "unfinished history": (
        rewrite(runs.HISTORY, lambda text: "\n".join(text.splitlines()[:-1])),
        r"history\.csv: damaged \(1 of 2 epochs; the run did not finish\)",
    ),
    "words in the history": (
        rewrite(runs.HISTORY, lambda text: text.replace("1,", "one,", 1)),
        r"history\.csv: damaged",
    ),
    "not a number in the history": (
        rewrite(runs.HISTORY, lambda text: re.sub(r"\n1,[^,]*", "\n1,nan", text)),
        r"history\.csv: damaged \(every value must be a finite number\)",
    ),
    "epochs out of order": (
        rewrite(runs.HISTORY, lambda text: text.replace("\n2,", "\n3,", 1)),
        r"history\.csv: damaged \(the epochs must be 1 to 2 in this order\)",
    ),
    "binary history": (
        lambda p: (p / runs.HISTORY).write_bytes(b"\xff\xfe\x00"),
        r"history\.csv: damaged",
    ),
    "list of versions": (
        rewrite(runs.CONFIG, lambda text: text.replace('"versions": {', '"versions": [], "v": {')),
        r"config\.json: damaged \(versions must be lines of text with jax\)",
    ),
    "formula for a name": (
        rewrite(runs.CONFIG, lambda text: text.replace('"name": "', '"name": "a$\\\\foo$')),
        r"config\.json: damaged \(name must be up to 100 lower-case letters",
    ),
    "half a letter for a device": (
        rewrite(runs.CONFIG, lambda text: text.replace('"kind": "', '"kind": "\\ud800')),
        r"config\.json: damaged \(device must be lines of text with kind\)",
    ),
    "deep config": (rewrite(runs.CONFIG, lambda text: "[" * 100_000), r"config\.json: damaged"),
    "no seed": (
        rewrite(runs.CONFIG, lambda text: text.replace('"seed": 7', '"sed": 7')),
        r"config\.json: damaged \(no seed\)",
    ),
    "pickle in the predictions": (
        change_arrays(logits=lambda a: np.array([object()] * len(a))),
        r"predictions\.npz: damaged",
    ),
    "array missing": (change_arrays(train_labels=lambda a: None), "train_labels"),
    "wrong shape": (change_arrays(logits=lambda a: a[:-1]), r"logits must be float32 \[40\]"),
    "wrong type": (change_arrays(digits=lambda a: a.astype(float)), "digits must be uint8"),
    "wrong digits": (change_arrays(digits=lambda a: a + np.uint8(4)), "between 0 and 3"),
    "wrong labels": (change_arrays(labels=lambda a: 1 - a), "labels must be 1 where"),
    "not a number": (change_arrays(logits=lambda a: a * np.float32("nan")), "must be finite"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_refused_in_one_line(name: str, copy: pathlib.Path) -> None:
    """By its checksum, and by its content where somebody made all checksums right."""
    damage, message = DAMAGES[name]
    damage(copy)
    with pytest.raises(RunError, match="damaged"):
        runs.load(copy)
    reseal(copy)
    with pytest.raises(RunError, match=message) as caught:
        runs.load(copy)
    assert "\n" not in str(caught.value)


def test_only_runs_are_overwritten_and_only_when_asked(tmp_path: pathlib.Path) -> None:
    new, empty, foreign, run, file = (tmp_path / name for name in ("new", "empty", "f", "run", "x"))
    empty.mkdir()
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    run.mkdir()
    old = {"format": 1, "seed": 7, "config": None, "versions": {}}
    (run / runs.CONFIG).write_text(json.dumps(old))
    file.write_text("a file")
    for free in (new, empty):
        runs.check_free(free, overwrite=False)
    runs.check_free(run, overwrite=True)
    with pytest.raises(RunError, match="--overwrite"):
        runs.check_free(run, overwrite=False)
    for overwrite in (False, True):
        for taken in (foreign, file):
            with pytest.raises(RunError, match="left alone"):
                runs.check_free(taken, overwrite)
    assert not new.exists()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "7", '{"model_type": "bert"}'])
def test_a_config_of_something_else_makes_no_run(content: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / runs.CONFIG).write_text(content)
    (tmp_path / runs.CHECKPOINTS).write_text("weights")
    with pytest.raises(RunError, match=r"it has other content and no config\.json of a run"):
        runs.check_free(tmp_path, overwrite=True)


def test_overwriting_removes_the_old_run_and_nothing_else(copy: pathlib.Path) -> None:
    (copy / "notes.txt").write_text("mine")
    runs.create(copy, SMALL, 3, "sheet")
    assert sorted(entry.name for entry in copy.iterdir()) == [files.LOCK, runs.CONFIG, "notes.txt"]
    described = json.loads((copy / runs.CONFIG).read_text())
    assert described["seed"] == 3
    assert described["versions"]["jax"] == jax.__version__
    assert described["device"]["platform"] == jax.default_backend()


def test_a_run_is_surveyed_without_being_touched(
    copy: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert runs.survey(tmp_path / "new", SMALL, 7) == ("unfinished", 0, [])
    assert runs.survey(copy, SMALL, 7) == ("finished", SMALL.train.epochs, [])
    (copy / runs.PREDICTIONS).write_bytes(b"")
    status, epoch, wrong = runs.survey(copy, SMALL, 7)
    assert (status, epoch) == ("unfinished", SMALL.train.epochs)
    assert wrong == [f"{copy / runs.PREDICTIONS}: damaged (it does not match SHA256SUMS)"]


def test_another_run_is_not_continued(copy: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(SMALL, model=ModelConfig(cells=9))
    with pytest.raises(RunError, match=r"is of another run; its seed is 7, not 8"):
        runs.survey(copy, SMALL, 8)
    with pytest.raises(RunError, match=r"is of another run; its cells is 8, not 9"):
        runs.survey(copy, other, 7)
    monkeypatch.setattr(runs, "versions", lambda: {"jax": "9"})
    with pytest.raises(RunError, match=rf"was made with jax {jax.__version__}, this is 9"):
        runs.survey(copy, SMALL, 7)


def test_the_end_of_a_run_is_in_its_sums(copy: pathlib.Path) -> None:
    assert runs.status(copy) == "finished"
    (copy / files.SUMS).unlink()
    assert runs.status(copy) == "unfinished"
    runs.give_up(copy)
    assert runs.status(copy) == "diverged"
    with pytest.raises(RunError, match=r"predictions\.npz: missing, because the run diverged"):
        runs.load(copy)
