"""What several test modules share: small configs, folders compared, scripts run as people do."""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

# One compilation cache for all tests, their workers and the processes that they start.
if "SUMRNN_TEST_CACHE" not in os.environ:
    cache = tempfile.mkdtemp(prefix="sumrnn-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["SUMRNN_TEST_CACHE"] = cache
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import mesh
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.recorder import Row, Stop, record

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 120
"""Time limit of a process."""

mesh.use_cores(2)  # Two devices for all tests in this process.


def pytest_configure(config: pytest.Config) -> None:
    """Lets processes that tests start hear SIGINT, which pytest-xdist has its workers ignore."""
    if not hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


SMALL_TASK = TaskConfig(size=200, length=5, high=3, threshold=8)
SMALL = Config(SMALL_TASK, ModelConfig(cells=8), TrainConfig(epochs=2, batch_size=50))
SMALL_OPTIONS = (
    *("--size", "200", "--length", "5", "--high", "3", "--threshold", "8"),
    *("--cells", "8", "--epochs", "2", "--batch-size", "50"),
)
"""The command line of `SMALL`."""


def train(
    path: pathlib.Path, config: Config = SMALL, seed: int = 7, until: int = 0, every: int = 1
) -> RunFolder:
    """Records a run in a folder, from where it is there; stops early after epoch `until`."""
    stop, folder = Stop(), RunFolder(path)

    def watch(seeds: Any, epoch: int, row: Row) -> None:
        if epoch == until - 1:  # The next epoch is still trained.
            stop.number = signal.SIGINT

    epoch = folder.survey(config, seed).epoch
    for _ in record({seed: folder}, {seed: epoch}, config, "sheet", stop, watch, every):
        pass
    return folder


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file in the folder and below, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def history_of(folder: pathlib.Path) -> list[str]:
    """The lines of history.csv but the wall clock, their last column."""
    lines = (folder / "history.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def results_of(folder: pathlib.Path) -> dict[str, Any]:
    """All that must not depend on where, when and with how many interruptions a run was made."""
    record = json.loads((folder / "config.json").read_text())
    record.pop("sha256")
    record["files"].pop("history.csv", None)  # It has the wall clock, as report.json has.
    kept: dict[str, Any] = {
        "history.csv": history_of(folder),
        "predictions.npz": (folder / "predictions.npz").read_bytes(),
        "config.json": record,
    }
    if (folder / "report.json").exists():
        kept["report.json"] = json.loads((folder / "report.json").read_text())
        kept["report.json"]["run"].pop("seconds")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    with np.load(newest) as arrays:
        names = set(arrays) - {"sha256", "history/seconds"}
        return kept | {name: arrays[name].tobytes() for name in sorted(names)}


Done = subprocess.CompletedProcess[str]
Script = Callable[..., Done]


def run_script(name: str, *arguments: object, cwd: pathlib.Path, **environment: str) -> Done:
    """Runs scripts/NAME.py in a folder, as a person would."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Done]:
    """A finished small run, made by the command line, and what it printed.  Do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_script("train", "--seed", 7, *SMALL_OPTIONS, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "sheet-seed7", done
