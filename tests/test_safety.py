"""A folder from a stranger: reading it runs nothing in it, and changes nothing beside it."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from sumrnn import batch, files, runs
from sumrnn.config import ConfigError, from_dict, to_dict
from tests.conftest import ROOT, SECONDS, SMALL

Trained = tuple[pathlib.Path, "subprocess.CompletedProcess[str]"]

SOURCES = [path for place in ("sumrnn", "scripts") for path in (ROOT / place).rglob("*.py")]
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
CODE_LOADERS = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
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


def watched(
    folder: pathlib.Path, script: str, *arguments: object
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-B", "-c", WATCHED, folder, ROOT / "scripts" / script]
        + [str(argument) for argument in arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_run_is_analyzed_without_running_anything_in_it(
    trained: Trained, tmp_path: pathlib.Path
) -> None:
    """With modules that would be imported if the folder were searched for any."""
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
    for name in ("numpy", "jax", "sitecustomize", "conftest", "sumrnn"):
        (path / f"{name}.py").write_text("raise SystemExit('ran')")
    done = watched(path, "analyze.py", path)
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


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/b", "..", "a\0b", ""])
def test_a_condition_cannot_name_a_place_outside(name: str, tmp_path: pathlib.Path) -> None:
    """Also where the stranger made the seal right."""
    experiment = batch.Experiment("two", "Which?", {"a": SMALL})
    described = batch.to_dict(experiment, (0,), runs.versions())
    described["conditions"] = {name: to_dict(SMALL)}
    files.write_sealed(tmp_path / batch.EXPERIMENT, described)
    with pytest.raises(files.RunError, match=r"experiment\.json: damaged \(conditions = "):
        batch.read(tmp_path)


def test_a_config_has_no_place_to_name_a_file() -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for inner in value.values() for text in texts(inner)]
        return [value] if isinstance(value, str) else []

    assert set(texts(to_dict(SMALL))) == {"keras", "fused"}
    with pytest.raises(ConfigError, match=r"initializer = '\.\./x': must be 'keras' or 'flax'"):
        from_dict(type(SMALL.model), to_dict(SMALL.model) | {"initializer": "../x"})
