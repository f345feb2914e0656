"""What several test modules share: small configs, and scripts run as real processes."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from sumrnn import placement
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 120
"""Time limit of a process."""

placement.use_cores(2)  # Two devices for all tests in this process.

SMALL_TASK = TaskConfig(size=200, length=5, high=3, threshold=8)
SMALL = Config(SMALL_TASK, ModelConfig(cells=8), TrainConfig(epochs=2, batch_size=50))
SMALL_OPTIONS = (
    *("--size", "200", "--length", "5", "--high", "3", "--threshold", "8"),
    *("--cells", "8", "--epochs", "2", "--batch-size", "50"),
)
"""The command line of `SMALL`."""

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def script() -> Script:
    """Runs scripts/NAME.py in a folder, as a person would."""

    def run(name: str, *arguments: object, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def trained(
    script: Script, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, subprocess.CompletedProcess[str]]:
    """A finished small run, made by the command line, and what it printed.  Do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    done = script("train", "--seed", 7, *SMALL_OPTIONS, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "sheet-seed7", done
