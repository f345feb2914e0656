"""The one way to stop: a first signal lets the work end well, a second one ends the process.

Where no work is that has to end well, the first one ends the process: what it leaves on disk is
whole at every moment.  Output that nobody reads any more is a signal like the others.
"""

import concurrent.futures
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from sumrnn.cli import console
from sumrnn.errors import UserError

T = TypeVar("T")
P = ParamSpec("P")

_WORDS = {
    "SIGINT": "interrupted",
    "SIGTERM": "terminated",
    "SIGHUP": "hung up",
    "SIGUSR1": "stopped by SIGUSR1",
    "SIGUSR2": "stopped by SIGUSR2",
}
STOPPING = {signal.Signals[s]: word for s, word in _WORDS.items() if hasattr(signal, s)}
"""Signals of people, systems, terminals and schedulers, and what is said of them."""
CLOSED, UNREAD = 13, "stopped, because nobody reads the output any more"
"""The number of SIGPIPE, which Python ignores to raise an error, and what is said of it."""
PERIOD = 0.1
"""Seconds between looks at what has come."""


class Stop:
    """Whether the work shall end early: `number` is that of the signal that asks for it."""

    def __init__(self, number: int | None = None) -> None:
        self.number = number
        self.words = "ends after this epoch; once more ends it now"
        """What is said when the signal comes."""
        self.ended = False

    def __call__(self) -> bool:
        """Whether a signal has asked for it."""
        return self.number is not None


_current: list[Stop] = []
"""That of the work which is going on, if any is."""


def hear() -> None:
    """Makes this process hear the signals, but for those that it ignores."""
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _heard)


def _heard(number: int, frame: object) -> None:
    word, status = STOPPING[signal.Signals(number)], 128 + number
    if not _current:
        console.end(word, status)
    stop = _current[-1]
    if stop.number is None:
        stop.number = number  # First of all: the next one may come while this one is told of.
        # The stream may be closed, broken or just being written.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            console.say(stop.words)
    elif signal.Signals(number).name != "SIGHUP":  # Shell and system both send it.
        console.end(word, status)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Yields what has the number of a signal that comes: the work has to look at it."""
    _current.append(Stop())
    try:
        yield _current[-1]
    finally:
        _current.pop()


def attend(work: Callable[[Stop], T]) -> T:
    """Lets `work` run in a thread, so that this one, the main thread, hears signals at once.

    Raised in the midst of a computation, an exception could be swallowed on its way out.
    The work looks at `Stop.number` from time to time; what it returns or raises passes through.
    """
    with stopping() as stop, concurrent.futures.ThreadPoolExecutor(1, "work") as pool:

        def attended() -> T:
            try:
                return work(stop)
            finally:
                stop.ended = True

        future = pool.submit(attended)
        # The system may hand a signal to another thread, which does not wake this one.
        while not concurrent.futures.wait((future,), timeout=PERIOD).done:
            pass
        return future.result()


def end_well(number: int) -> None:
    """Asks the work that `attend` lets run for an end, as a signal does, and waits for it."""
    for stop in _current:
        stop.number = stop.number or number
        while not stop.ended:  # No lock: this may interrupt whoever has it.
            time.sleep(PERIOD)


def until_closed(stop: Stop, show: Callable[P, None]) -> Callable[P, None]:
    """What shows something; where nobody reads it any more, the work is asked to end instead."""

    def view(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            show(*arguments, **options)
        except OSError as error:
            console.silence(sys.stdout)
            if not isinstance(error, BrokenPipeError):  # Such as a full disk.
                console.warn(f"standard output cannot be written ({error.strerror})")
            stop.number = stop.number or CLOSED

    return view


def stopped(number: int | None, how: str) -> UserError:
    """The error for work that a signal has ended early; `how` says how to go on."""
    assert number is not None
    word = f"{UNREAD}," if number == CLOSED else STOPPING[signal.Signals(number)]
    return UserError(f"{word} {how}", status=128 + number)
