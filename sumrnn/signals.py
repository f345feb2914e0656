"""SIGINT and SIGTERM: the first lets the work come to a good end, a second one ends it at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

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
            say("ends after this epoch; once more ends it now")
            return
        try:
            stop.rescue()
        except Exception as error:
            say(f"the last epoch is lost ({error})")
        say(f"error: {NAMES[signal.Signals(number)]}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)

    before = {number: signal.signal(number, note) for number in NAMES}
    try:
        with concurrent.futures.ThreadPoolExecutor(1, "work") as pool:
            return pool.submit(work, stop).result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
