import dataclasses
import json
import logging
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from sumrnn.config import ModelConfig
from sumrnn.devices.wave import fit_many
from sumrnn.errors import UserError
from sumrnn.report import run as report
from sumrnn.runs import files, origin
from sumrnn.runs.folder import (
    CHECKPOINTS,
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
from tests.conftest import SMALL, THREE, files_of, finish, flip, reseal, results_of, train


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


NOWHERE = '"versions": {"jax": "1"}, "settings": {}, "device": {"kind": "\\\\ud800"}'
TEXTS = {
    "nothing for a config": (CONFIG, "(?s).+", "", "damaged"),
    "a list for a config": (CONFIG, "(?s).+", "[]", "must be an object with a format"),
    "a deep config": (CONFIG, "(?s).+", "[" * 100_000, "nested too deeply"),
    "an impossible config": (CONFIG, '"length": 5', '"length": -5', "length = -5: must be between"),
    "an infinite rate": (CONFIG, r"0\.001", "1e999", "damaged"),
    "a field more": (CONFIG, '"seed": 7', '"seed": 7, "more": 1', "more = 1: must be left out"),
    "no seed": (CONFIG, '"seed"', '"sed"', "sed = 7: must be left out"),
    "a list of versions": (
        CONFIG,
        r'(?s)"versions": \{.*?\}',
        '"versions": []',
        r"versions = \[\]",
    ),
    "no version of jax": (CONFIG, '"jax"', '"jac"', "versions = .* must be lines of text with jax"),
    "half a letter": (
        CONFIG,
        '"kind": "',
        r'"kind": "\\ud800',
        "device = .* lines of text with kind",
    ),
    "two lines": (CONFIG, '"jax": "', r'"jax": "1\\n# A', "versions = .* must be lines of text"),
    "continued by nothing": (CONFIG, r"\[\]", '[{"epoch": 1}]', "given in continued"),
    "continued nowhere": (CONFIG, r"\[\]", f'[{{"epoch": 1, {NOWHERE}}}]', "device = "),
    "a formula for a name": (CONFIG, '"name": "', '"name": "$', "name = .* must be up to 100"),
    "another end": (CONFIG, '"finished"', '"done"', "status = 'done': must be 'finished' or"),
    "half a history": (HISTORY, r"\n2,.*", "", "1 of 2 epochs; the run did not finish"),
    "nothing for a history": (HISTORY, "(?s).+", "", "the first line must be epoch,loss,"),
    "other columns": (HISTORY, "loss", "lose", "the first line must be epoch,loss,"),
    "words": (HISTORY, "\n1,", "\none,", "could not convert"),
    "no number": (HISTORY, r"\n1,[^,]*", "\n1,nan", "every value must be a finite number"),
    "an infinity": (HISTORY, r"\n1,[^,]*", "\n1,1e999", "every value must be a finite number"),
    "another order": (HISTORY, r"\n2,", "\n3,", "the epochs must be 1 to 2 in this order"),
    "a value more": (HISTORY, r"\n2,", "\n2,0.5,", "damaged"),
    "bytes": (HISTORY, r"\n2,", "\n2,\udcff", "damaged"),
    "a zero byte": (HISTORY, r"\n2,", "\n2\0,", "damaged"),
    "an open quote": (HISTORY, r"\n2,", '\n"2,', "damaged"),
    "a long line": (HISTORY, r"\n2,", '\n2,"' + "0" * 200_000, "damaged"),
    "a number of many digits": (HISTORY, r"\n2,", "\n2" + "0" * 5_000 + ",", "damaged"),
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


@pytest.mark.parametrize("name", [CONFIG, HISTORY, PREDICTIONS])
def test_a_run_that_lacks_a_file_is_refused(name: str, copy: RunFolder) -> None:
    (copy.path / name).unlink()
    with pytest.raises(UserError, match=re.escape(f"{copy.path / name}: missing")):
        copy.load()


def test_what_is_no_finished_run_is_not_read_as_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="none: must be a run folder"):
        RunFolder(tmp_path / "none").load()
    folder = train(tmp_path / "run", THREE, until=2)
    assert folder.status() == "unfinished"
    with pytest.raises(UserError, match="run: is no finished run; --resume continues it"):
        folder.load()


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


def test_only_runs_are_overwritten_and_only_when_asked(tmp_path: pathlib.Path) -> None:
    new, empty, foreign, run, file = (tmp_path / name for name in ("new", "empty", "f", "run", "x"))
    for path in (empty, foreign, run):
        path.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
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


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "7", "[[1]]", '{"model_type": "bert"}'])
def test_a_config_of_something_else_makes_no_run(content: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / CONFIG).write_text(content)
    (tmp_path / CHECKPOINTS).write_text("weights")
    with pytest.raises(UserError, match=r"it has other content and no config\.json of a run"):
        RunFolder(tmp_path).check_free(overwrite=True)


def test_overwriting_removes_the_old_run_and_nothing_else(copy: RunFolder) -> None:
    for name in (REPORT_JSON, REPORT_MD, REPORT_HTML, "notes.txt", ".notes.7.tmp"):
        (copy.path / name).write_text("mine")
    (copy.path / FIGURES).mkdir()
    RunWriter(copy).begin(SMALL, 3, "sheet")
    names = {entry.name for entry in copy.path.iterdir()}
    assert names == {files.LOCK, CONFIG, "notes.txt", ".notes.7.tmp"}
    assert (copy.read().seed, copy.status()) == (3, "unfinished")


def test_a_person_s_hidden_files_stay(tmp_path: pathlib.Path, made: pathlib.Path) -> None:
    """Also those that look like an editor's temporary ones."""
    path = tmp_path / "run"
    train(path, THREE, until=2)
    for place in (path, path / CHECKPOINTS):
        (place / ".notes.7.tmp").write_text("mine")
    finish(path, THREE).write_report({REPORT_MD: "report"}, ())
    for place in (path, path / CHECKPOINTS):
        assert (place / ".notes.7.tmp").read_text() == "mine"


def test_a_run_is_surveyed_without_being_touched(copy: RunFolder, tmp_path: pathlib.Path) -> None:
    assert RunFolder(tmp_path / "new").survey(SMALL, 7) == ("unfinished", 0, [])
    assert not (tmp_path / "new").exists()
    assert copy.survey(SMALL, 7) == ("finished", SMALL.train.epochs, [])
    (copy.path / PREDICTIONS).write_bytes(b"")
    before = files_of(copy.path)
    status, epoch, wrong = copy.survey(SMALL, 7)
    assert (status, epoch) == ("unfinished", SMALL.train.epochs)
    assert wrong == [f"{copy.path / PREDICTIONS}: damaged (it does not match config.json)"]
    assert files_of(copy.path) == before


def test_another_run_is_not_continued(copy: RunFolder) -> None:
    with pytest.raises(UserError, match=r"config\.json: is of another run; its seed is 7, not 8"):
        copy.survey(SMALL, 8)
    other = dataclasses.replace(SMALL, model=ModelConfig(cells=9))
    for anyway in (False, True):
        with pytest.raises(UserError, match=r"is of another run; its cells is 8, not 9"):
            copy.survey(other, 7, anyway)


def test_the_end_of_a_run_is_in_its_record(copy: RunFolder) -> None:
    assert copy.status() == "finished"
    record(copy.path, status="diverged")
    with pytest.raises(UserError, match=r"config\.json: damaged \(its sha256"):
        copy.status()
    reseal(copy.path)  # Forged: what proves a finished run does not prove another end.
    with pytest.raises(UserError, match=r"config\.json: damaged \(files must be those of"):
        copy.load()


KEPT = [(), (HISTORY,), (PREDICTIONS,), (HISTORY, PREDICTIONS, REPORT_MD)]


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_a_finished_run_must_prove_all_its_files(
    kept: tuple[str, ...], copy: RunFolder, made: pathlib.Path
) -> None:
    record(copy.path, files=dict.fromkeys(kept, "0" * 64))
    reseal(copy.path)
    with pytest.raises(UserError, match=r"config\.json: damaged \(files must be those of"):
        copy.load()
    assert len(copy.survey(SMALL, 7).wrong) == 1
    assert results_of(finish(copy.path).path) == results_of(made)


NAMES = ["/etc/passwd", "../../../../etc/passwd", "../run/history.csv", "a\0b", "x" * 5_000, ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_record_cannot_name_files_outside(
    name: str, copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(copy.path, files=copy.read().files | {name: "0" * 64})
    reseal(copy.path)

    def read(file: pathlib.Path) -> str:
        raise AssertionError(file)

    monkeypatch.setattr(files, "digest", read)
    status, epoch, (wrong,) = copy.survey(SMALL, 7)
    assert (status, epoch) == ("unfinished", SMALL.train.epochs)
    assert wrong.startswith(f"{copy.path / CONFIG}: damaged (files must be those of")


ELSEWHERE: dict[str, tuple[str, dict[str, str], str]] = {
    "another version": (
        "versions",
        {"jax": "9"},
        rf"was made with jax {re.escape(jax.__version__)}, this is 9",
    ),
    "another package": ("versions", {"new": "1"}, "was made with new unset, this is 1"),
    "another program": ("program_digest", {}, "was made with code [0-9a-f]{12}, this is other"),
    "another processor": ("device", {"vectors": "SSE"}, "was made with vectors .*, this is SSE"),
    "another model": ("device", {"model": "x"}, "was made with model .*, this is x"),
    "another platform": ("device", {"platform": "x"}, "was made with platform cpu, this is x"),
    "another setting": (
        "settings",
        {"XLA_FLAGS": "--xla_x=1"},
        "was made with XLA_FLAGS unset, this is --xla_x=1",
    ),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_run_is_continued_elsewhere_only_if_it_is_asked_for(
    kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, changes, told = ELSEWHERE[kind]
    folder = train(tmp_path / "run", THREE, until=2)
    first = folder.read()
    if part == "program_digest":
        monkeypatch.setattr(origin, part, lambda config: "other")
    else:
        here = getattr(origin, part)() | changes
        monkeypatch.setattr(origin, part, lambda: here)
    before = files_of(folder.path)
    refused = rf"config\.json: {told}, which may give other bits; .*--anyway continues"
    with pytest.raises(UserError, match=refused) as caught:
        folder.survey(THREE, 7)
    assert "\n" not in str(caught.value)
    status, epoch, wrong = folder.survey(THREE, 7, anyway=True)
    assert (status, epoch, wrong) == ("unfinished", 2, [])
    assert files_of(folder.path) == before
    RunWriter(folder).restore(THREE, 7, 2)
    (continued,) = folder.read().continued
    assert continued["epoch"] == 2
    now = origin.current(THREE)
    assert {part: continued[part] for part in ("versions", "device", "settings")} == now
    assert (folder.read().versions, folder.read().device) == (first.versions, first.device)
    # From now on that is where it belongs.
    assert folder.survey(THREE, 7) == ("unfinished", 2, [])
    finish(folder.path, THREE)
    assert folder.load().record.continued == (continued,)
    monkeypatch.undo()
    assert folder.survey(THREE, 7).status == "finished"  # Nothing is left to be continued.


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
    RunWriter(folder).restore(THREE, 7, 2)
    RunWriter(folder).restore(THREE, 7, 2)
    settings = [made["settings"] for made in folder.read().continued]
    assert settings == [{"XLA_FLAGS": "--xla_x=1"}, {}]
    assert finish(folder.path, THREE).status() == "finished"


def test_a_failed_restore_alters_nothing_else(tmp_path: pathlib.Path) -> None:
    names = (None, "absl", "asyncio", "jax", "root")

    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in names]
        hooks = [sys.unraisablehook, sys.excepthook]
        return [
            [(x.level, x.disabled, list(x.filters)) for x in loggers],
            logging.root.manager.disable,
            *hooks,
        ]

    folder, before = train(tmp_path / "run", THREE, until=2), state()
    content = files_of(folder.path)
    flip(folder.checkpoints.file(2), 5_300)
    damaged = folder.checkpoints.file(2).read_bytes()
    with pytest.raises(UserError, match=r"2\.npz: damaged"):
        RunWriter(folder).restore(THREE, 7, 2)
    assert state() == before
    assert files_of(folder.path) == content | {f"{CHECKPOINTS}/2.npz": damaged}


def test_a_diverged_run_says_so_where_it_is_read(tmp_path: pathlib.Path, copy: RunFolder) -> None:
    folder = train(tmp_path / "other", THREE, until=2)
    writer = RunWriter(folder)
    writer.restore(THREE, 7, 2)
    writer.append(
        dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), np.nan) | {"seconds": 1}
    )
    writer.give_up()
    assert folder.status() == "diverged"
    assert folder.survey(THREE, 7)[0] == "diverged"
    with pytest.raises(UserError, match=r"predictions\.npz: missing, because the run diverged"):
        folder.load()
    assert folder.divergence().startswith("loss = nan, val_loss = nan in epoch 3: ")
    for text in ("", "\n", "epoch,loss\n1,2\n", "epoch,loss,val_loss\n1,2\n", "epoch\n"):
        (folder.path / HISTORY).write_text(text)
        with pytest.raises(UserError, match=r"history\.csv: damaged"):
            folder.divergence()
