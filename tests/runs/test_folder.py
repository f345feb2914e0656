import json
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from sumrnn.devices.wave import fit_many
from sumrnn.errors import UserError
from sumrnn.report import run as report
from sumrnn.runs import files, origin
from sumrnn.runs.folder import (
    CONFIG,
    FIGURES,
    HISTORY,
    PREDICTIONS,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
    RunFolder,
)
from sumrnn.runs.record import FORMAT
from sumrnn.runs.writer import RunWriter
from tests.conftest import SMALL, THREE, files_of, finish, reseal, train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run.  Do not change it."""
    return train(tmp_path_factory.mktemp("made") / "run").path


@pytest.fixture
def copy(made: pathlib.Path, tmp_path: pathlib.Path) -> RunFolder:
    """A finished run that may be damaged."""
    return RunFolder(pathlib.Path(shutil.copytree(made, tmp_path / "run")))


def test_a_run_comes_back_as_it_was(made: pathlib.Path) -> None:
    run, fitted = RunFolder(made).load(), fit_many(SMALL, [7])
    record = run.record
    assert (record.config, record.seed, record.name) == (SMALL, 7, "sheet")
    assert (record.status, record.continued) == ("finished", ())
    assert set(record.files) == {HISTORY, PREDICTIONS}
    assert record.versions["jax"] == jax.__version__
    assert record.device["platform"] == jax.default_backend()
    for name, values in fitted.history._asdict().items():
        np.testing.assert_array_equal(run.history[name].astype(np.float32), values[0])
    parts = zip(run.parts.values(), fitted.data, fitted.logits, strict=True)
    for part, split, answer in parts:
        for found, expected in zip(vars(part).values(), (*split, answer), strict=True):
            np.testing.assert_array_equal(found, expected[0])


def record(path: pathlib.Path, **changes: Any) -> None:
    """Changes fields of config.json."""
    content = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps(content | changes))


TEXTS = {
    "an impossible config": (CONFIG, '"length": 5', '"length": -5', "length = -5: must be between"),
    "no version of jax": (CONFIG, '"jax"', '"jac"', "versions = .* must be lines of text with jax"),
    "half a letter": (
        CONFIG,
        '"kind": "',
        r'"kind": "\\ud800',
        "device = .* lines of text with kind",
    ),
    "two lines": (CONFIG, '"jax": "', r'"jax": "1\\n# A', "versions = .* must be lines of text"),
    "continued by nothing": (CONFIG, r"\[\]", '[{"epoch": 1}]', "given in continued"),
    "a formula for a name": (CONFIG, '"name": "', '"name": "$', "name = .* must be up to 100"),
    "another end": (CONFIG, '"finished"', '"done"', "status = 'done': must be 'finished' or"),
    "half a history": (HISTORY, r"\n2,.*", "", "1 of 2 epochs; the run did not finish"),
    "other columns": (HISTORY, "loss", "lose", "the first line must be epoch,loss,"),
    "words": (HISTORY, "\n1,", "\none,", "could not convert"),
    "an infinity": (HISTORY, r"\n1,[^,]*", "\n1,1e999", "every value must be a finite number"),
    "another order": (HISTORY, r"\n2,", "\n3,", "the epochs must be 1 to 2 in this order"),
    "a value more": (HISTORY, r"\n2,", "\n2,0.5,", "damaged"),
    "bytes": (HISTORY, r"\n2,", "\n2\udcff\0,", "damaged"),
    "a long quote": (HISTORY, r"\n2,", '\n2,"' + "0" * 200_000, "damaged"),
}
"""A file, what is replaced in it by what, and how it is refused."""
ARRAYS: dict[str, tuple[str, Callable[[np.ndarray], Any], str]] = {
    "an array missing": ("train_labels", lambda a: None, "train_labels must be uint8"),
    "a wrong shape": ("logits", lambda a: a[:-1], r"logits must be float32 \[40\]"),
    "a wrong type": ("digits", lambda a: a.astype(float), "digits must be uint8"),
    "wrong digits": ("digits", lambda a: a + np.uint8(4), "between 0 and 3"),
    "wrong labels": ("labels", lambda a: 1 - a, "labels must be 1 where"),
    "not a number": ("logits", lambda a: a * np.float32("nan"), "must be finite"),
}
"""An array of the predictions, what becomes of it, and how it is refused."""


@pytest.mark.parametrize("kind", [*TEXTS, *ARRAYS])
def test_a_damaged_run_is_refused_in_one_line(kind: str, copy: RunFolder) -> None:
    """By its proof, and by its content where somebody made all proofs right."""
    if kind in TEXTS:
        name, pattern, replacement, message = TEXTS[kind]
        text = re.sub(pattern, replacement, (copy.path / name).read_text(), count=1)
        (copy.path / name).write_bytes(text.encode(errors="surrogateescape"))
    else:
        array, change, message = ARRAYS[kind]
        name, arrays = PREDICTIONS, dict(np.load(copy.path / PREDICTIONS))
        arrays[array] = change(arrays[array])
        kept = {key: value for key, value in arrays.items() if value is not None}
        files.write_arrays(copy.path / name, kept, compressed=True)
    with pytest.raises(UserError, match="damaged"):
        copy.load()
    reseal(copy.path)
    before = files_of(copy.path)
    with pytest.raises(UserError, match=message) as caught:
        report.write(copy)
    assert str(caught.value).startswith(f"{copy.path / name}: damaged (")
    assert "\n" not in str(caught.value)
    assert files_of(copy.path) == before


def test_a_run_is_read_whatever_line_ends_its_texts_got(copy: RunFolder) -> None:
    expected = copy.load()
    for name in (CONFIG, HISTORY):
        text = (copy.path / name).read_bytes()
        (copy.path / name).write_bytes(text.replace(b"\n", b"\r\n"))
    found = copy.load()
    assert found.record == expected.record
    np.testing.assert_equal(found.history, expected.history)
    assert copy.survey(SMALL, 7).status == "finished"
    (copy.path / PREDICTIONS).write_bytes(b"\r\n" + (copy.path / PREDICTIONS).read_bytes())
    with pytest.raises(UserError, match=f"{PREDICTIONS}: damaged"):
        copy.load()


def test_what_is_no_finished_run_is_not_read_as_one(tmp_path: pathlib.Path) -> None:
    none = RunFolder(tmp_path / "none")
    for read in (none.load, none.network):
        with pytest.raises(UserError, match="none: must be a run folder"):
            read()
    assert none.survey(THREE, 7) == ("unfinished", 0, [])
    assert not none.path.exists()
    folder = train(tmp_path / "run", THREE, until=2)
    assert folder.status() == "unfinished"
    for read in (folder.load, folder.network):
        with pytest.raises(UserError, match="run: is no finished run; --resume continues it"):
            read()
    proof = {HISTORY: files.digest(folder.path / HISTORY)}
    record(folder.path, status="diverged", files=proof)
    reseal(folder.path)
    with pytest.raises(UserError, match=r"predictions\.npz: missing, because the run diverged"):
        folder.load()
    with pytest.raises(UserError, match="run: is no finished run; it diverged"):
        folder.network()


OLD = {"format": 4, "seed": 7, "config": None, "versions": {}}
"""What config.json of an earlier format had."""


def test_a_folder_of_the_earlier_format_is_refused_and_may_be_replaced(
    tmp_path: pathlib.Path,
) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(OLD))
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  config.json\n")
    before = files_of(tmp_path)
    told = rf"config\.json: has format 4, of another version .*; this one reads format {FORMAT}$"
    for action in (
        folder.read,
        folder.load,
        folder.status,
        lambda: folder.survey(SMALL, 7),
    ):
        with pytest.raises(UserError, match=told) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == before
    folder.check_free(overwrite=True)
    RunWriter(folder).begin(SMALL, 7, "sheet")
    assert finish(tmp_path).status() == "finished"


@pytest.mark.parametrize("content", [None, "", "[[1]]", '{"model_type": "bert"}'])
def test_only_runs_are_overwritten_and_only_when_asked(
    content: str | None, tmp_path: pathlib.Path
) -> None:
    new, empty, foreign, run, file = (tmp_path / name for name in ("new", "empty", "f", "run", "x"))
    for path in (empty, foreign, run):
        path.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    if content is not None:
        (foreign / CONFIG).write_text(content)
    (run / CONFIG).write_text(json.dumps(OLD))
    file.write_text("a file")
    for free in (new, empty):
        RunFolder(free).check_free(overwrite=False)
    RunFolder(run).check_free(overwrite=True)
    with pytest.raises(UserError, match="--overwrite"):
        RunFolder(run).check_free(overwrite=False)
    for overwrite in (False, True):
        for taken in (foreign, file):
            with pytest.raises(UserError, match=r"left alone|must be a folder"):
                RunFolder(taken).check_free(overwrite)
    assert not new.exists()
    assert (foreign / "thesis.tex").read_text() == "years of work"


def test_overwriting_removes_the_old_run_and_nothing_else(copy: RunFolder) -> None:
    for name in (REPORT_JSON, REPORT_MD, REPORT_HTML, "notes.txt", ".notes.7.tmp"):
        (copy.path / name).write_text("mine")
    (copy.path / FIGURES).mkdir()
    RunWriter(copy).begin(SMALL, 3, "sheet")
    names = {entry.name for entry in copy.path.iterdir()}
    assert names == {files.LOCK, CONFIG, "notes.txt", ".notes.7.tmp"}
    assert (copy.read().seed, copy.status()) == (3, "unfinished")


FOREIGN = [f"/etc/{HISTORY}", f"../run/{HISTORY}", "a\0b", "x" * 5_000, REPORT_MD]
FILES = [(), (HISTORY,), (PREDICTIONS,), *((HISTORY, PREDICTIONS, name) for name in FOREIGN)]


@pytest.mark.parametrize(
    ("status", "names"), [("diverged", (HISTORY, PREDICTIONS)), *(("finished", x) for x in FILES)]
)
def test_the_end_of_a_run_proves_its_files_and_no_others(
    status: str, names: tuple[str, ...], copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What proves a finished run does not prove another end; nothing outside is read."""
    record(copy.path, status=status, files=dict.fromkeys(names, "0" * 64))
    with pytest.raises(UserError, match=r"config\.json: damaged \(its sha256"):
        copy.status()
    reseal(copy.path)
    monkeypatch.delattr(files, "digest")
    told = r"config\.json: damaged \(files must be those of"
    with pytest.raises(UserError, match=told):
        copy.load()
    if status == "finished":  # It is computed again from the last checkpoint.
        found = copy.survey(SMALL, 7)
        assert (found.status, found.epoch) == ("unfinished", SMALL.train.epochs)
        assert re.search(told, *found.wrong)


def test_a_run_of_another_exact_evaluation_is_read_without_it(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert copy.load().exam is not None
    told: list[str] = []
    with monkeypatch.context() as later:  # Its strata are no longer today's.
        later.setattr("sumrnn.scores.strata.EDGES", (0, 20))
        later.setattr(origin, "evaluation_digest", lambda: "of another version")
        assert copy.load().exam is None
        assert report.write(copy, told.append)["exact"] is None
        assert copy.survey(SMALL, 7).status == "finished"
    assert [line for line in told if "another version" in line] == [
        f"{copy.path}: has no scores by the exact law, because its series near the threshold were "
        "drawn by another version of this program"
    ]
    versions = {k: v for k, v in copy.read().versions.items() if k != "exact"}
    record(copy.path, versions=versions)
    reseal(copy.path)
    assert copy.load().exam is not None  # Made before it was recorded.


def test_a_run_continued_elsewhere_and_back_says_both(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tmp_path / "run", THREE, until=2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XLA_FLAGS", "--xla_x=1")
        RunWriter(folder).restore(THREE, 7, 2)
    for _ in range(2):  # From now on that is where it belongs.
        RunWriter(folder).restore(THREE, 7, 2)
        assert folder.survey(THREE, 7) == ("unfinished", 2, [])
    settings = [made["settings"] for made in folder.read().continued]
    assert settings == [{"XLA_FLAGS": "--xla_x=1"}, {}]
    assert finish(folder.path, THREE).status() == "finished"


def test_a_history_says_how_a_run_diverged_unless_it_is_damaged(copy: RunFolder) -> None:
    (copy.path / HISTORY).write_text("epoch,loss,val_loss\n3,nan,nan\n")
    assert copy.divergence().startswith("loss = nan, val_loss = nan in epoch 3: ")
    for text in ("", "\n", "epoch,loss\n1,2\n", "epoch,loss,val_loss\n1,2\n"):
        (copy.path / HISTORY).write_text(text)
        with pytest.raises(UserError, match=r"history\.csv: damaged"):
            copy.divergence()
