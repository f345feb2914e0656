import pathlib

import pytest


@pytest.fixture
def among_mine(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a file and folders of somebody."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    return tmp_path
