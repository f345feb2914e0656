"""A folder from a stranger: reading it runs nothing in it, and changes nothing beside it.

Also where the stranger made every proof right.
"""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.errors import UserError
from sumrnn.report import run as report
from sumrnn.runs import files
from sumrnn.runs.folder import PREDICTIONS, RunFolder
from sumrnn.study import folder as study_folder
from sumrnn.study import table
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL,
    Done,
    files_of,
    flip,
    reseal,
    small_experiment,
    train,
)

SOURCES = [path for place in ("sumrnn", "scripts") for path in (ROOT / place).rglob("*.py")]
FIXTURE = [hypothesis.HealthCheck.function_scoped_fixture]
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
"""
"""Tells of code made of data, code in a folder, and writing beside it."""
ONE_PICTURE = """
from sumrnn.report import run
for name in [*run.FIGURES][1:]:
    del run.FIGURES[name]
"""
"""Which is drawn as the others are."""


def watched(folder: pathlib.Path, before: str, script: object, *arguments: object) -> Done:
    """Runs a script that is watched, and some code before it."""
    code = f"{WATCHED}{before}runpy.run_path(script, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-P", "-B", "-c", code, folder, script, *map(str, arguments)],
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
    done = watched(path, ONE_PICTURE, ROOT / "scripts" / "analyze.py", path)
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
    done = watched(tmp_path / "inside", "", script)
    assert done.returncode == 0, done.stderr
    for event in ("pickle.find_class", "exec", "open"):
        assert f"FOUND {event}" in done.stdout


class Attack:
    """Unpickled, it would make a folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64


def shaped(shape: str, descr: str = "<f4") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


MEMBERS = {
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
PICKLES = ("pickled objects in an array", "a pickle for an array", "a pickle for the file")


def forge(file: pathlib.Path, name: str, kind: str) -> None:
    """Puts something else in the place of an array, or of the file."""
    attack = np.array([Attack(pathlib.Path("trace"))] * 40, object)
    if kind == "a pickle for the file":
        file.write_bytes(attack.dumps())
    elif kind == "pickled objects in an array":
        with np.load(file) as arrays:
            np.savez(file, **dict(arrays) | {name: attack})
    else:
        with zipfile.ZipFile(file) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        members[f"{name}.npy"] = MEMBERS.get(kind, attack.dumps())
        with zipfile.ZipFile(file, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)


@pytest.mark.parametrize("kind", [*MEMBERS, *PICKLES])
def test_forged_arrays_are_refused_and_pickles_not_executed(
    kind: str, path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = RunFolder(path).checkpoints.file(2)
    forge(path / PREDICTIONS, "logits", kind)
    forge(checkpoint, "epoch", kind)
    reseal(path)
    before = files_of(path)
    with pytest.raises(UserError, match=r"predictions\.npz: damaged \(") as caught:
        report.write(RunFolder(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"2\.npz: damaged \(") as caught:
        RunFolder(path).checkpoints.newest(SMALL, 7)
    assert "\n" not in str(caught.value)
    assert files_of(path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


@hypothesis.settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=FIXTURE
)
@hypothesis.given(position=st.integers(-900, 0) | st.integers(-10_000, 0), bit=st.integers(0, 7))
def test_predictions_with_a_flipped_bit_and_a_right_proof_are_read_or_refused(
    position: int, bit: int, made: pathlib.Path, path: pathlib.Path
) -> None:
    """Names and sizes of a zip are at its end, where a flipped bit has the most to confuse."""
    file = path / PREDICTIONS
    file.write_bytes((made / PREDICTIONS).read_bytes())
    flip(file, position, bit)
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


def test_a_config_has_no_place_to_name_a_file() -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for inner in value.values() for text in texts(inner)]
        return [value] if isinstance(value, str) else []

    assert set(texts(fields.to_dict(SMALL))) == {"keras", "lstm", "fused", "none", "repeated"}
