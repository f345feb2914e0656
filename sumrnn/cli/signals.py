"""Signals that ask for an end: the first lets the work end well, a second one ends it at once."""

import concurrent.futures
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sumrnn.cli.command import CLOSED, STOPPING, end, silence, warn
from sumrnn.runs.recorder import Stop

T = TypeVar("T")
P = ParamSpec("P")

PERIOD = 0.1
"""Seconds between looks at what has come."""


def attend(work: Callable[[Stop], T], say: Callable[[str], None]) -> T:
    """Lets `work` run in a thread, so that this one, the main thread, hears signals at once.

    Raised in the midst of a computation, an exception could be swallowed on its way out.
    The work looks at `Stop.number` from time to time; what it returns or raises passes through.
    """
    stop = Stop()

    def note(number: int, frame: object) -> None:
        if stop.number is None:
            stop.number = number  # First of all: the next one may come while this one is told of.
            # The stream may be closed, broken or just being written.
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                say("ends after this epoch; once more ends it now")
        elif signal.Signals(number).name != "SIGHUP":  # Shell and system both send it.
            end(STOPPING[signal.Signals(number)], 128 + number)

    # One that is ignored, as in the background of a script, stays so.
    heard = [n for n in STOPPING if signal.getsignal(n) not in (signal.SIG_IGN, None)]
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


def until_closed(stop: Stop, show: Callable[P, None]) -> Callable[P, None]:
    """What shows something; where nobody reads it any more, the work is asked to end instead."""

    def view(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            show(*arguments, **options)
        except OSError as error:
            silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):  # Such as a full disk.
                warn(f"standard output cannot be written ({error.strerror})")
            stop.number = stop.number or CLOSED

    return view
