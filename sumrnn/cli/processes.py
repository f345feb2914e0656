"""Programs of the system: their output, and processes that go on without this one."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from sumrnn.errors import UserError

SAFE = "PYTHONSAFEPATH"
"""Keeps the working folder, whose modules may have any name, off Python's path."""


class Unanswered(UserError):
    """The scheduler did not answer, or takes no jobs for now."""


@contextlib.contextmanager
def apart(log: pathlib.Path | None) -> Iterator[None]:
    """Starts processes that go on when the terminal interrupts this one, or is closed.

    Other signals are heard when they are started.  They have the file `log` for our streams, if it
    is given, and import nothing from the folder that they are started in.
    """
    heard: list[int] = []
    handlers: dict[str, Any] = {
        **dict.fromkeys(("SIGINT", "SIGQUIT", "SIGHUP"), signal.SIG_IGN),
        **dict.fromkeys(("SIGTERM", "SIGUSR1", "SIGUSR2"), lambda number, _: heard.append(number)),
    }
    before = {
        getattr(signal, name): signal.signal(getattr(signal, name), handler)
        for name, handler in handlers.items()
        if hasattr(signal, name)
    }
    streams = {stream: os.dup(stream) for stream in (1, 2)} if log else {}
    path = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit says there what Slurm said.
            with (log or pathlib.Path(os.devnull)).open("a") as file:
                for stream in streams:
                    os.dup2(file.fileno(), stream)
            yield
    finally:
        os.environ.pop(SAFE)
        os.environ |= {} if path is None else {SAFE: path}
        for stream, copy in streams.items():
            os.dup2(copy, stream)
            os.close(copy)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in heard:
            signal.raise_signal(number)


def output(command: list[str], seconds: float, needed: bool = False) -> str:
    """The output of a command; empty if it fails, or `Unanswered` is raised where it is needed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=needed
        ).stdout
    except subprocess.CalledProcessError as error:
        raise Unanswered(f"{command[0]}: {last_line(error.stderr)}", status=1) from None
    except subprocess.TimeoutExpired:
        if needed:
            raise Unanswered(f"{command[0]}: no answer in {seconds} seconds", status=1) from None
        return ""
    except OSError as error:
        if needed:
            raise Unanswered(f"{command[0]}: {error.strerror}", status=1) from None
        return ""


def last_line(what: object) -> str:
    """The last line of a text that says something."""
    lines = [line for line in str(what).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
