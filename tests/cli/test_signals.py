"""Signals in real processes, in which only the work is made up."""

import contextlib
import errno
import io
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from sumrnn.cli import console, signals
from tests.conftest import SECONDS, wait_for
from tests.faults.test_strangers import in_terminal

WORK = """
import signal, sys, time
from sumrnn.cli import signals

def work(stop):
    print("at work", flush=True)
    try:
        while stop.number is None or how == "endless":
            time.sleep(0.01)
        if how == "fails":
            raise ValueError(stop.number)
        return stop.number
    finally:
        print("cleaned up", flush=True)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup it is ignored.
signals.hear()
for how in sys.argv[1:]:
    if how == "ignores":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signals.hear()
    try:
        found = signals.attend(work)
    except ValueError as error:
        found = f"raised {error}"
    print(found, flush=True)
    if how == "ignores":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signals.hear()
"""
"""Works once for each argument."""
FIRST = "-c: ends after this epoch; once more ends it now\n"
INT, TERM, HUP, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
Start = Callable[..., "subprocess.Popen[str]"]


def test_the_first_one_lets_the_work_end_and_a_second_one_ends_it_at_once(
    start: Start, tmp_path: pathlib.Path
) -> None:
    ways = {
        "returns": ([INT], "2"),
        "returns again": ([TERM], "15"),
        "of a scheduler": ([USR1], "10"),
        "of a terminal": ([HUP, HUP], "1"),
        "fails": ([INT], "raised 2"),
        "ignores": ([INT, TERM], "15"),
    }
    process = start(sys.executable, "-c", WORK, *ways, "endless", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    for numbers, told in ways.values():
        wait_for(process, "at work")
        for number in numbers:
            process.send_signal(number)
        assert process.stdout.readline() == "cleaned up\n"
        assert process.stdout.readline() == f"{told}\n"
        assert process.stderr.readline() == FIRST
    wait_for(process, "at work")
    process.send_signal(INT)
    assert process.stderr.readline() == FIRST
    process.send_signal(INT)
    shown, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, shown, errors) == (130, "", "-c: error: interrupted\n")


def test_it_does_not_matter_whether_anybody_hears_of_it(
    start: Start, tmp_path: pathlib.Path
) -> None:
    reader, writer = os.pipe()
    process = start(sys.executable, "-c", WORK, "endless", cwd=tmp_path, stderr=writer)
    os.close(reader)
    os.close(writer)
    wait_for(process, "at work")
    process.send_signal(INT)
    process.send_signal(TERM)
    shown, _ = process.communicate(timeout=SECONDS)
    assert shown == ""
    assert process.returncode in (130, 143)  # Whichever came second.


LIVE = """
import os, signal, time
from sumrnn.cli import progress, signals

def work(stop):
    show(["at work"], 1, 2)
    os.kill(os.getpid(), signal.SIGINT)
    while stop.number is None:
        time.sleep(0.01)
    time.sleep(0.3)  # It is told of meanwhile.
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.SIG_DFL)
signals.hear()
with progress.live() as show:
    signals.attend(work)
"""


def test_a_second_one_gives_the_cursor_back_to_the_terminal(tmp_path: pathlib.Path) -> None:
    shown = in_terminal(80, sys.executable, "-c", LIVE, cwd=tmp_path)
    assert "-c: error: interrupted\r\n" in shown
    assert "[0m?25h" not in shown  # An escape that was taken for text.
    assert shown.rindex("\n\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.parametrize(("number", "asked"), [(None, 13), (signal.SIGINT, signal.SIGINT)])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left")])
def test_output_that_nobody_takes_asks_for_an_end_unless_a_signal_did(
    number: int | None, asked: int, error: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, stop = list[str](), signals.Stop(number)

    def show(line: str) -> None:
        shown.append(line)
        if line == "second":
            raise error

    view = signals.until_closed(stop, show)
    with contextlib.redirect_stdout(io.StringIO()):
        for line in ("first", "second"):
            assert stop.number == number
            view(line)
    assert (shown, stop.number) == (["first", "second"], asked)
    told = "standard output cannot be written (No space left)\n" if error.errno else ""
    assert capsys.readouterr().err.endswith(told)


def test_what_stderr_does_not_take_is_told_at_the_terminal(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(console, "TERMINAL", tmp_path / "tty")
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        console.say("after epoch 3")
        console.say("of 60")
    first, second = (tmp_path / "tty").read_text().splitlines()
    assert (first.endswith(": after epoch 3"), second.endswith(": of 60")) == (True, True)
