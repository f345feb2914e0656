"""The scripts where other people are: in terminals, encodings, settings and notebooks."""

import contextlib
import fcntl
import io
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from typing import Any

import pytest

from sumrnn.cli import console, progress
from sumrnn.runs.folder import FIGURES
from sumrnn.runs.progress import Progress
from tests.conftest import (
    ROOT,
    SECONDS,
    SMALL_OPTIONS,
    TRAIN,
    Done,
    files_of,
    results_of,
)

Trained = tuple[pathlib.Path, Done]


# --- terminals ----------------------------------------------------------------------------


def in_terminal(columns: int, *arguments: object, cwd: pathlib.Path, **environment: str) -> str:
    """All that a process writes in a terminal, which must end well, as misuse, or by Ctrl-C."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = {"COLUMNS", "LINES", "NO_COLOR"}
    usual = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [*map(str, arguments)],
        cwd=cwd,
        env=usual | {"TERM": "xterm"} | environment,
        stdin=writer,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed.
        while piece := os.read(reader, 4096):
            shown += piece
    os.close(reader)
    assert process.wait(timeout=SECONDS) in (0, 2, 130), shown
    return shown.decode()


def lines_of(shown: str) -> list[str]:
    """The lines that were to be seen, one after the other in the same place or not."""
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    return [line for line in re.split(r"[\r\n]+", plain) if line]


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["coloured", "plain"])
def test_a_mistake_is_told_in_one_clean_line(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    script = (sys.executable, ROOT / "scripts" / "train.py")
    said = in_terminal(40, *script, "--celsl", 3, cwd=tmp_path, **environment)
    assert said == "train.py: error: Unrecognized options: --celsl, 3\r\n"


class Terminal(io.StringIO):
    """Keeps what a terminal of $COLUMNS and $TERM would show."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Shows a run and an experiment on a terminal, and returns the lines."""

    def show(columns: int, term: str) -> list[str]:
        terminal = Terminal()
        for name, value in {"COLUMNS": str(columns), "LINES": "24", "TERM": term}.items():
            monkeypatch.setenv(name, value)
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, terminal)
        monkeypatch.setattr("rich._console", None)  # It has read the variables before.
        row = {"loss": 0.0625, "accuracy": 0.5, "val_loss": 0.125, "val_accuracy": 0.9912}
        with progress.of_run(60) as view:
            view(row | {"epoch": 30, "seconds": 2.0})
        with progress.of_experiment() as view:
            wave: Any = {"name": "a-condition", "seeds": tuple(range(64)), "epochs": 60}
            for epoch in (29, 30):
                view(Progress(128, 64, 5000, 1000, epoch=epoch, diverged=2, **wave))
        monkeypatch.undo()
        return lines_of(terminal.getvalue())

    return show


RUN = ["epoch 30/60", "0:01:00 left", "loss 0.0625", "val_accuracy 0.9912"]
EXPERIMENT = ["runs 64/128", "0:00:00 left", "2 diverged", "epoch 30/60", "a-condition"]
ALL = [*RUN, "accuracy 0.5000", "val_loss 0.1250", "2.00 s"]


@pytest.mark.parametrize(
    ("columns", "run", "experiment"),
    [(40, RUN[:3], EXPERIMENT[:3]), (80, RUN, EXPERIMENT), (200, ALL, EXPERIMENT)],
)
def test_a_live_line_has_what_matters_most(
    columns: int, run: list[str], experiment: list[str], lines: Callable[..., list[str]]
) -> None:
    shown = lines(columns, "xterm")
    assert max(map(len, shown)) <= columns
    for parts in (run, experiment):
        line = next(line for line in shown if line.startswith(parts[0]))
        assert line.startswith("  ".join(parts))
        assert ("━" in line) == (columns > 40)
        assert "…" not in line


def test_a_dumb_terminal_gets_a_line_per_epoch(lines: Callable[..., list[str]]) -> None:
    run, experiment = lines(80, "dumb")
    assert run == "  ".join(ALL)
    assert "epoch 29/60" in experiment  # Not one for every epoch.


# --- encodings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_a_mistake_is_told_in_any_encoding(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    done = subprocess.run(
        [*TRAIN, "--seed", "ä"],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    said = "train.py: error: Error parsing --seed: invalid literal for int() with base 10: "
    shown = ("ä", "\\xe4", "\\udcc3\\udca4")  # The last one is of a locale without this letter.
    assert done.stderr.decode("cp1252") in [f"{said}'{letter}'\n" for letter in shown]


def test_signs_that_an_encoding_lacks_become_others() -> None:
    text = "sum ≥ 100, skill −5 %, ä, 数"
    assert text.encode("latin-1", console.LACKING).decode("latin-1") == (
        "sum >= 100, skill -5 %, ä, \\u6570"
    )


# --- settings -----------------------------------------------------------------------------

UNNOTICED = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "5",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_TRANSFER_GUARD": "disallow",
    "MPLBACKEND": "module://nowhere",
}
MATPLOTLIBRC = """
text.usetex: True
font.family: No Such Font
savefig.bbox: tight
"""


@pytest.mark.slow
def test_a_stranger_s_settings_change_neither_numbers_nor_pictures(
    trained: Trained, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)  # Matplotlib reads it from here.
    arguments = ("--seed", 7, *SMALL_OPTIONS, "--out", "run")
    shown = lines_of(in_terminal(80, *TRAIN, *arguments, cwd=tmp_path, **UNNOTICED))
    assert max(map(len, shown)) <= 80
    assert shown[0].endswith("compiling")
    assert any(line.startswith("epoch  2/2  0:00:00 left  loss ") for line in shown)
    assert "No Such Font" not in " ".join(shown)
    assert results_of(tmp_path / "run") == results_of(trained[0])
    pictures = files_of(tmp_path / "run" / FIGURES)
    assert pictures == files_of(trained[0] / FIGURES)
    assert len(pictures) == 6


# --- notebooks ----------------------------------------------------------------------------

CELLS = """
import pathlib, subprocess, sys
import sumrnn
from sumrnn.report import run as report
from sumrnn.runs.folder import RunFolder

sumrnn.use_cores()
config = sumrnn.Config(sumrnn.TaskConfig(size=200, length=5, high=3, threshold=8),
                       sumrnn.ModelConfig(cells=8), sumrnn.TrainConfig(epochs=2, batch_size=48))
many = sumrnn.fit_many(config, [7])
sumrnn.use_cores()
subprocess.run([*TRAIN, *OPTIONS], check=True, capture_output=True)
run = sumrnn.load("run")
assert (run.parts["test"].logits == many.logits[2][0]).all()
report.write(RunFolder(pathlib.Path("run")))
import matplotlib.pyplot as plt
print(plt.get_backend(), plt.plot([1, 2]) and "drawn")
"""


@pytest.mark.slow
def test_a_notebook_can_use_package_and_scripts(tmp_path: pathlib.Path) -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    start: Callable[..., Any] = manager.start_new_kernel
    kernel, client = start(kernel_name="python3", cwd=str(tmp_path), startup_timeout=SECONDS)
    told: list[str] = []
    options = ["--seed", "7", *SMALL_OPTIONS, "--out", "run"]
    names = {"TRAIN": [*map(str, TRAIN)], "OPTIONS": options}
    code = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + CELLS
    try:
        reply = client.execute_interactive(
            code,
            timeout=SECONDS,
            output_hook=lambda message: told.append(str(message["content"])),
        )
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", told
    assert any("inline" in text and "drawn" in text for text in told)
