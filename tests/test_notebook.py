"""The committed notebook is that of its source, and its source runs."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, SECONDS

FOLDER = ROOT / "notebooks"
nbformat = pytest.importorskip("nbformat")


def source() -> Any:
    pytest.importorskip("jupytext")
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read()


def check(found: Any) -> None:
    """Every cell of code was run, in order and without a mistake."""
    ours = [(cell.id, cell.cell_type, cell.source) for cell in source().cells]
    assert [(cell.id, cell.cell_type, cell.source) for cell in found.cells] == ours
    codes = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, 1 + len(codes)))
    kinds = {output.output_type for cell in codes for output in cell.outputs}
    assert kinds == {"stream", "display_data"}
    text = str(found)
    assert str(ROOT) not in text
    assert "\\x1b" not in text


def test_what_is_committed_is_of_the_source() -> None:
    found = nbformat.read(FOLDER / "exercise.ipynb", 4)
    check(found)
    assert "epochs=60" in str(found)


@pytest.mark.slow
def test_its_cells_run(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "short.ipynb"
    subprocess.run(
        [sys.executable, FOLDER / "build.py", out],
        env=os.environ | {"EPOCHS": "2"},
        timeout=SECONDS,
        check=True,
    )
    check(nbformat.read(out, 4))
