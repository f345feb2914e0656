"""A folder from a stranger: reading it runs nothing in it, and changes nothing beside it.

Also where the stranger made every proof right.
"""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest

from sumrnn import fields
from sumrnn.errors import UserError
from sumrnn.report import run as report
from sumrnn.runs import files
from sumrnn.runs.folder import CONFIG, PREDICTIONS, RunFolder
from sumrnn.study import folder as study_folder
from sumrnn.study import table
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL,
    THREE,
    Done,
    files_of,
    flip,
    reseal,
    small_experiment,
    train,
)

SOURCES = [path for place in ("sumrnn", "scripts") for path in (ROOT / place).rglob("*.py")]
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
CODE_LOADERS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_makes_code_of_data(path: pathlib.Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Attribute):
            assert not (node.attr == "load" and ast.unparse(node.value) in CODE_LOADERS)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & CODE_LOADERS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run.  Do not change it."""
    return train(tmp_path_factory.mktemp("made") / "run").path


@pytest.fixture
def path(made: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A run that may be forged."""
    return pathlib.Path(shutil.copytree(made, tmp_path / "run"))


WATCHED = """
import os, pathlib, runpy, sys
folder, script = os.path.realpath(sys.argv[1]), sys.argv[2]

def inside(path):
    return isinstance(path, (str, bytes, os.PathLike)) and os.path.realpath(
        os.fsdecode(path)).startswith(folder)

def note(event, arguments):
    if event in ("pickle.find_class", "os.system", "os.exec", "socket.connect"):
        print("FOUND", event, arguments, flush=True)
    # Not "<string>", as the standard library names what it makes itself.
    if event == "exec" and arguments[0].co_filename[:1] != "<" and inside(arguments[0].co_filename):
        print("FOUND", event, arguments, flush=True)
    if event == "import" and arguments[1] and inside(arguments[1]):
        print("FOUND", event, arguments, flush=True)
    if event == "open":
        path, mode, flags = arguments
        outside = isinstance(path, (str, bytes, os.PathLike)) and not inside(path)
        if outside and isinstance(mode, str) and set(mode) & set("wax+"):
            print("FOUND", event, arguments, flush=True)

import matplotlib.font_manager, threading  # Their caches are not of the folder.
sys.addaudithook(note)
sys.argv = sys.argv[2:]
sys.path.insert(0, str(pathlib.Path(script).parent))
runpy.run_path(script, run_name="__main__")
"""
"""Runs a script and tells of code made of data, code in a folder, and writing beside it."""


def watched(folder: pathlib.Path, script: object, *arguments: object) -> Done:
    return subprocess.run(
        [sys.executable, "-P", "-B", "-c", WATCHED, folder, script, *map(str, arguments)],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_run_is_analyzed_without_running_anything_in_it(path: pathlib.Path) -> None:
    """With modules that would be imported if the folder were searched for any."""
    for name in ("numpy", "jax", "sitecustomize", "conftest", "sumrnn"):
        (path / f"{name}.py").write_text("raise SystemExit('ran')")
    done = watched(path, ROOT / "scripts" / "analyze.py", path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "FOUND" not in done.stdout


def test_the_watch_sees_what_it_must(tmp_path: pathlib.Path) -> None:
    (tmp_path / "inside").mkdir()
    script = tmp_path / "inside" / "evil.py"
    script.write_text(
        "import pickle, pathlib, fractions\n"
        "pickle.loads(pickle.dumps(fractions.Fraction(1)))\n"
        "pathlib.Path('../beside').write_text('x')\n"
    )
    done = watched(tmp_path / "inside", script)
    assert done.returncode == 0, done.stderr
    for event in ("pickle.find_class", "exec", "open"):
        assert f"FOUND {event}" in done.stdout


def assert_refused(path: pathlib.Path, name: str) -> None:
    """That a run whose proofs are right is refused for one file, in a line."""
    reseal(path)
    before = files_of(path)
    with pytest.raises(UserError) as caught:
        report.write(RunFolder(path))
    assert str(caught.value).startswith(f"{path / name}: damaged (")
    assert "\n" not in str(caught.value)
    assert files_of(path) == before


class Attack:
    """Unpickled, it would make a folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def save_pickle(file: pathlib.Path, attack: np.ndarray) -> None:
    with np.load(file) as arrays:
        np.savez(file, **dict(arrays) | {"logits": attack})


def rewrite_member(file: pathlib.Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in (members | {name: content}).items():
            archive.writestr(member, data)


@pytest.mark.parametrize("form", ["in an array", "for an array", "for the file"])
def test_pickled_objects_in_the_predictions_are_not_executed(
    form: str, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file, trace = path / PREDICTIONS, tmp_path / "trace"
    attack = np.array([Attack(trace)] * 40, object)
    save_pickle(file, attack)
    if form == "for an array":
        rewrite_member(file, "logits.npy", attack.dumps())
    elif form == "for the file":
        file.write_bytes(attack.dumps())
    assert_refused(path, PREDICTIONS)
    assert not trace.exists()


@pytest.mark.parametrize("form", ["in an array", "for an array", "for the file"])
def test_pickled_objects_in_a_checkpoint_are_not_executed(
    form: str, tmp_path: pathlib.Path
) -> None:
    folder, trace = train(tmp_path / "run", THREE, until=2), tmp_path / "trace"
    file, attack = folder.checkpoints.file(2), np.array([Attack(trace)], object)
    save_pickle(file, attack)
    if form == "for an array":
        rewrite_member(file, "epoch.npy", attack.dumps())
    elif form == "for the file":
        file.write_bytes(attack.dumps())
    status, epoch, (wrong,) = folder.survey(THREE, 7)
    assert (status, epoch) == ("unfinished", 1)
    assert wrong.startswith(f"{file}: damaged (")
    assert "\n" not in wrong
    assert not trace.exists()


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64


def shaped(shape: str, descr: str = "<f4") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


HEADERS = {
    "an array larger than any memory": shaped(f"(1{'0' * 15},)"),
    "an array larger than any number": shaped(f"(1{'0' * 30},)"),
    "a negative shape": shaped("(-5,)"),
    "an unknown dtype": shaped("(40,)", "<q9"),
    "an array of objects": shaped("(40,)", "|O"),
    "no dictionary": npy("[[[["),
    "a call": npy("__import__('os').mkdir('trace')"),
    "no array": b"\x80\x04.",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_forged_headers_are_refused(
    kind: str, path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = RunFolder(path).checkpoints.file(2)
    for file in (path / PREDICTIONS, checkpoint):
        rewrite_member(file, "logits.npy", HEADERS[kind])
    with pytest.raises(UserError, match=r"2\.npz: damaged \(") as caught:
        files.read_arrays(checkpoint)
    assert "\n" not in str(caught.value)
    assert_refused(path, PREDICTIONS)
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("part", range(4))
def test_predictions_with_a_flipped_bit_and_a_right_proof_are_read_or_refused(
    part: int, path: pathlib.Path
) -> None:
    file = path / PREDICTIONS
    good = file.read_bytes()
    # Names and sizes of a zip are at its end, where a flipped bit has the most to confuse.
    positions = {*range(part, len(good), 4 * 41), *range(len(good) - 900 + part, len(good), 4 * 6)}
    for position in sorted(positions):
        file.write_bytes(good)
        flip(file, position, (position // 4) % 8)
        reseal(path)
        told = f"{file}: "
        try:
            RunFolder(path).load()
        except UserError as error:
            told = str(error)
        assert told.startswith(f"{file}: ")
        assert "\n" not in told


NAMES = ["../../outside", "/tmp/outside", "a/b", "..", "a\0b", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_cannot_name_a_place_outside(name: str, tmp_path: pathlib.Path) -> None:
    experiment = small_experiment(2)
    made = study_folder.Declaration(experiment, (0,))
    experiment.conditions[name] = experiment.conditions.pop("a")
    files.write_json(tmp_path / study_folder.EXPERIMENT, made, study_folder.FORMAT)
    told = r"experiment\.json: damaged \(conditions = .*: must be up to 100 lower-case letters"
    for action in (
        ExperimentFolder(tmp_path).read,
        lambda: table.collect(ExperimentFolder(tmp_path)),
        lambda: ExperimentFolder(tmp_path).open(small_experiment(2), (0,)),
    ):
        with pytest.raises(UserError, match=told):
            action()
    assert {entry.name for entry in tmp_path.iterdir()} <= {study_folder.EXPERIMENT, files.LOCK}


@pytest.mark.parametrize("part", ["versions", "device"])
def test_a_record_holds_lines_of_text(part: str, path: pathlib.Path) -> None:
    file = path / CONFIG
    for text in ("\ud800", "1\n# Heading"):
        content = json.loads(file.read_text())
        content[part]["more"] = text
        file.write_text(json.dumps(content))
        reseal(path)
        with pytest.raises(UserError, match=rf"config\.json: damaged \({part} = ") as caught:
            RunFolder(path).read()
        assert "\n" not in str(caught.value)


def test_a_config_has_no_place_to_name_a_file() -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for inner in value.values() for text in texts(inner)]
        return [value] if isinstance(value, str) else []

    assert set(texts(fields.to_dict(SMALL))) == {"keras", "fused", "none", "repeated"}
    model = fields.to_dict(SMALL.model) | {"initializer": "../x"}
    with pytest.raises(UserError, match=r"initializer = '\.\./x': must be 'keras' or 'flax'"):
        fields.from_dict(type(SMALL.model), model)
