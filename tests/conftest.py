"""What several test modules share: small configs, and scripts run as real processes."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sumrnn import placement
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 120
"""Time limit of a process."""

placement.use_cores(2)  # Two devices for all tests in this process.

_compiled = tempfile.TemporaryDirectory(prefix="sumrnn-tests-")


def pytest_configure(config: pytest.Config) -> None:
    """Lets the processes that tests start find what an earlier one compiled."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # This process has read its own settings already, and does without.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # pytest-xdist ignores it in its processes, and those that they start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


SMALL_TASK = TaskConfig(size=200, length=5, high=3, threshold=8)
SMALL = Config(SMALL_TASK, ModelConfig(cells=8), TrainConfig(epochs=2, batch_size=50))
SMALL_OPTIONS = (
    *("--size", "200", "--length", "5", "--high", "3", "--threshold", "8"),
    *("--cells", "8", "--epochs", "2", "--batch-size", "50"),
)
"""The command line of `SMALL`."""


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file in the folder and below, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def arrays_of(folder: pathlib.Path) -> Any:
    """What is in the newest checkpoint of a run but the wall clock, as Orbax reads it."""
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore((newest / "state").absolute())
    found["history"].pop("seconds")
    return found


def history_of(folder: pathlib.Path) -> list[str]:
    """The lines of history.csv but the wall clock, their last column."""
    lines = (folder / "history.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def results_of(folder: pathlib.Path) -> dict[str, Any]:
    """All that must not depend on where, when and with how many interruptions a run was made."""
    kept: dict[str, Any] = {
        "history.csv": history_of(folder),
        "predictions.npz": (folder / "predictions.npz").read_bytes(),
        "config.json": (folder / "config.json").read_bytes(),
    }
    if (folder / "report.json").exists():
        report = json.loads((folder / "report.json").read_text())
        report["run"].pop("seconds")
        kept["report.json"] = report
    flat = jax.tree_util.tree_leaves_with_path(arrays_of(folder))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in flat}
    return kept | arrays


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
