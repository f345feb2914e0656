"""SIGINT and SIGTERM: the first lets the work come to a good end, a second one ends it at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PERIOD = 0.1
"""Seconds between looks at what has come."""
NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(Exception):
    """The work came to its end early, as a signal asked; the message says how to go on."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"{NAMES[signal.Signals(number)]} {message}")
        self.number = number


@dataclasses.dataclass
class Stop:
    """What signals ask of the work."""

    number: int | None = None
    """The first signal; the work ends when its state is safe."""
    rescue: Callable[[], None] = lambda: None
    """What a second signal does before the process ends: the work keeps this up to date, and it
    must be safe to call from another thread."""


def _try(action: Callable[[], None]) -> None:
    """Does it, unless the stream is closed, broken or just being written."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        action()


def _leave_terminal() -> None:
    """Shows the cursor that a live bar has hidden, and what is still to be shown."""
    out = sys.__stdout__
    if out is not None and out.isatty():
        out.write("\x1b[?25h")
    sys.stdout.flush()
    sys.stderr.flush()


def attend(work: Callable[[Stop], T], say: Callable[[str], None]) -> T:
    """Lets `work` run in a thread, so that this one, the main thread, can attend to signals.

    Raised in the midst of a computation, an exception could be swallowed on its way out.

    Args:
      work: looks at `Stop.number` from time to time.
      say: shows a line to the user.

    Returns:
      What `work` returns; its exceptions pass through.
    """
    stop = Stop()

    def note(number: int, frame: object) -> None:
        if stop.number is None:
            stop.number = number
            _try(functools.partial(say, "ends after this epoch; once more ends it now"))
            return
        for other in NAMES:  # A third one must not come into the rescue.
            signal.signal(other, signal.SIG_IGN)
        try:
            stop.rescue()
        except Exception as error:
            _try(functools.partial(say, f"the last epoch is lost ({error})"))
        finally:
            _try(functools.partial(say, f"error: {NAMES[signal.Signals(number)]}"))
            _try(_leave_terminal)
            os._exit(128 + number)

    # One that is ignored, as in the background of a script, stays so.
    heard = [n for n in NAMES if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        with concurrent.futures.ThreadPoolExecutor(1, "work") as pool:
            future = pool.submit(work, stop)
            # The system may hand a signal to another thread, which does not wake this one.
            while not concurrent.futures.wait((future,), timeout=PERIOD).done:
                pass
            return future.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
