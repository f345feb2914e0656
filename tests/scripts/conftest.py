import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sumrnn.report import experiment, run


@pytest.fixture
def among_mine(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a file and folders of somebody."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    return tmp_path


@pytest.fixture(scope="module")
def quick_figures() -> Iterator[None]:
    """Nothing is drawn in this process, which would take seconds."""

    def drawn(figures: dict[str, Any], warn: Callable[[str], None]) -> dict[str, tuple[bytes, str]]:
        return dict.fromkeys(figures, (b"drawn", "<svg/>"))

    with pytest.MonkeyPatch.context() as patch:
        for module in (experiment, run):
            patch.setattr(module, "pictures", drawn)
        yield
