import pathlib
from collections.abc import Callable
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


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Saves reports in this process the seconds that figures take."""

    def drawn(figures: dict[str, Any], warn: Callable[[str], None]) -> dict[str, tuple[bytes, str]]:
        return dict.fromkeys(figures, (b"drawn", "<svg/>"))

    for module in (experiment, run):
        patch.setattr(module, "pictures", drawn)


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
