"""The layout: packages import downwards only, and files stay short."""

import ast
import graphlib
import pathlib
import shutil
import subprocess
import tomllib
import warnings

import pytest

from tests.conftest import ROOT

PACKAGES = (
    *("version", "errors", "fields", "seeds", "config", "presets", "task", "models", "scores"),
    *("train", "devices", "probes", "runs", "exchange", "study", "report", "cli", "__main__"),
)
"""From the bottom to the top."""
LONGEST = 300
"""Lines of a module."""
PACKAGE = ROOT / "sumrnn"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path) for path in MODULES}


def imported(path: pathlib.Path) -> set[str]:
    """The package's modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & NAMES) or {str(node.module)}
    return {name for name in found if name.split(".")[0] == "sumrnn"}


def level(name: str) -> int:
    return PACKAGES.index(name.split(".")[1])


def test_every_package_is_known() -> None:
    assert {name.split(".")[1] for name in NAMES} == set(PACKAGES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_from_those_below_it(path: pathlib.Path) -> None:
    for name in imported(path):
        assert name in NAMES, f"{path}: imports {name}"
        assert level(name) <= level(name_of(path)), f"{path}: imports {name}"


def test_the_wheel_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in PACKAGE.rglob("*.py")} | {PACKAGE / "report" / "templates"}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == packages | {"sumrnn.experiments"}


def test_within_packages_nothing_imports_in_circles() -> None:
    graph = {name_of(path): imported(path) for path in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("folder", ["scripts", "benchmarks", "experiments", "sumrnn"])
def test_no_module_is_long(folder: str) -> None:
    lengths = {p: len(p.read_text("utf-8").splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert [path for path, length in lengths.items() if length > LONGEST] == []


def test_only_scripts_and_benchmarks_use_the_command_line() -> None:
    for path in MODULES:
        if not name_of(path).startswith(("sumrnn.cli", "sumrnn.__main__")):
            assert not any(name.startswith("sumrnn.cli") for name in imported(path))


def test_the_package_is_imported_without_jax() -> None:
    """So that --help and mistakes are answered at once."""
    early = {"sumrnn.config", "sumrnn.errors", "sumrnn.presets", "sumrnn.version"}
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    now = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in now} == early | {"__future__", "typing"}
    assert (
        imported(PACKAGE / "__init__.py") - early
    )  # The rest is there, and comes when it is asked for.


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning])
def test_what_other_packages_warn_of_is_no_error(kind: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.warn_explicit("will go", kind, "plugin.py", 1, module="pytest_plugin")
        with pytest.raises(kind):
            warnings.warn_explicit("will go", kind, "task.py", 1, module="sumrnn.task")
    assert len(heard) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_leaves_the_files_of_runs_as_they_are(tmp_path: pathlib.Path) -> None:
    """Whatever it is told to do with line ends elsewhere."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "core.autocrlf=true", *words], cwd=tmp_path, check=True)

    shutil.copy(ROOT / ".gitattributes", tmp_path)
    contents = {"history.csv": b"epoch\n1\n", "of-windows.csv": b"epoch\r\n1\r\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    git("init", "-q")
    git("add", ".")
    for name, content in contents.items():
        (tmp_path / name).unlink()
        git("checkout", "-q", "--", name)
        assert (tmp_path / name).read_bytes() == content
