"""What every command shares: a command line made from dataclasses, and its exit statuses.

0: done.  1: something failed.  2: misuse, told in one line.  3: training diverged.
128 + n: stopped by signal n (130: SIGINT, 143: SIGTERM).
"""

import codecs
import contextlib
import importlib
import io
import itertools
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, TextIO, TypeVar

import tyro

from sumrnn.errors import UserError, extra, invalid, require

T = TypeVar("T")
MAX_NAME, MAX_PATH = 255, 3_000
"""Bytes of a name and of a path; common file systems take no more, here with room for the
names of what is written inside."""
MAX_LINE = 2_000
"""Characters of a message."""


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
TERMINAL = pathlib.Path("/dev/tty")
GRACE = 5.0
"""Seconds that may pass from such a signal to the end of the process."""
LACKING = "sumrnn-lacking"
"""How text is encoded that an encoding lacks."""
PLAIN = {"≥": ">=", "≤": "<=", "−": "-"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    known = "".join(PLAIN.get(c, c) for c in lacking)
    return known.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(LACKING, _plain)


class Stopped(KeyboardInterrupt):
    """A signal of `STOPPING`, where nothing has to be brought to a good end."""


def stopped(number: int | None, how: str) -> UserError:
    """The error for work that a signal has ended early; `how` says how to go on."""
    assert number is not None
    word = f"{UNREAD}," if number == CLOSED else STOPPING[signal.Signals(number)]
    return UserError(f"{word} {how}", status=128 + number)


def silence(stream: TextIO) -> None:
    """Lets what is written to a closed stream go nowhere; Python writes once more at its end."""
    with contextlib.suppress(OSError, ValueError):  # A test's stream is no file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stop(number: int, frame: object) -> NoReturn:
    """Ends the process by an exception, or hard: what runs just now may swallow it."""
    word, status = STOPPING[signal.Signals(number)], 128 + number
    for other in STOPPING:
        if signal.getsignal(other) is _stop:  # One that follows is not waited for.
            signal.signal(other, lambda *_: end(word, status))
    timer = threading.Timer(GRACE, end, (word, status))
    timer.daemon = True
    timer.start()
    raise Stopped(number)


def parse(cls: type[T], argv: list[str], description: str, default: T | None = None) -> T:
    """Parses a command line into `cls`; misuse raises `UserError`."""
    with _one_line():
        return tyro.cli(
            cls,
            args=argv,
            prog=_program(),
            description=_filled(description),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            default=tyro.MISSING_NONPROP if default is None else default,
        )


def parse_known(cls: type[T], argv: list[str]) -> T:
    """Parses only the options of `cls`, on which the defaults of the others depend."""
    with _one_line():
        found, _ = tyro.cli(
            cls, args=argv, prog=_program(), return_unknown_args=True, add_help=False
        )
        return found


class _Lines(str):
    """A text whose line breaks tyro keeps: it joins the lines that it splits one into."""

    def split(self, sep: object = None, maxsplit: object = -1) -> list[str]:
        return [str(self)]


def _filled(text: str) -> str:
    """Paragraphs in lines of up to 80 columns, or as many as the terminal has."""
    columns = min(80, shutil.get_terminal_size().columns)
    return _Lines("\n\n".join(textwrap.fill(part, columns) for part in text.split("\n\n")))


def folder(field: str, text: str) -> pathlib.Path:
    """The path of a folder to read or write, a user's home for `~`; it need not be there.

    Raises `UserError` if no folder can have this name: an unset shell variable, NUL, bytes that are
    no UTF-8, or too many; if it is an address elsewhere, such as gs://bucket/run; or if it lies in
    a working folder that was deleted.
    """
    local = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is None  # One letter may be a drive.
    require(local, field, text, "a folder of this machine, or mounted on it; not an address")
    encoded = text.encode(errors="replace")  # As many bytes or fewer.
    fits = len(encoded) <= MAX_PATH and all(len(x) <= MAX_NAME for x in encoded.split(b"/"))
    is_text = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)
    allowed = f"the name of a folder, in UTF-8, each part at most {MAX_NAME} bytes"
    require(text != "" and fits and is_text, field, text, allowed)
    path = pathlib.Path(text)
    try:
        if text.startswith("~"):  # As shells do, but for that of --out=~/run; ./~ is a name.
            path = path.expanduser()
        path.absolute()
    except RuntimeError:
        raise invalid(field, text, "in the home of a known user, or begin with ./") from None
    except OSError:
        raise invalid(field, text, "an absolute path: the working folder was deleted") from None
    return path


def need(module: str, brought_by: str) -> None:
    """Raises `UserError`, before any work, unless what an extra brings is installed."""
    with extra(brought_by):
        importlib.import_module(module)


def run(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with the command line and turns what it raises into an exit status."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Closed before the start.
            stream = pathlib.Path(os.devnull).open("w")  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):  # Its encoding may lack a letter.
            stream.reconfigure(errors=LACKING)
    os.environ.pop("MPLBACKEND", None)  # A notebook's, perhaps not there; nothing is shown.
    for number in STOPPING:
        # One that is ignored stays so.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    try:
        main(sys.argv[1:])
    except UserError as error:
        if error.status == 128 + CLOSED:
            silence(sys.stdout)
        _say(str(error))
        raise SystemExit(error.status) from None
    except Stopped as stopped:
        (number,) = stopped.args  # JAX may be in the midst of something that it does not survive.
        end(STOPPING[number], 128 + number)
    except BrokenPipeError:
        silence(sys.stdout)
        _say(UNREAD)
        raise SystemExit(128 + CLOSED) from None
    except OSError as error:
        _say(str(error))
        raise SystemExit(1) from None


def end(message: str, status: int = 1) -> NoReturn:
    """Says why, and ends the process at once, without any clean-up but that of the terminal."""
    # The streams may be gone, or in use just now.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        _say(message)
        sys.stdout.flush()
        sys.stderr.flush()
        # A live line hides the cursor, and has put in their place what takes no escapes.
        proxied = (getattr(x, "rich_proxied_file", None) for x in (sys.stdout, sys.stderr))
        if terminal := next((x for x in proxied if x is not None and x.isatty()), None):
            print("\n\x1b[?25h", end="", file=terminal, flush=True)
    os._exit(status)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """tyro draws its errors as boxes of several lines; keeps the message itself."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        plain = re.sub(r"\x1b\[[\d;]*m", "", box.getvalue())  # On a terminal it is coloured.
        lines = [line.strip("│| ") for line in plain.splitlines()[1:]]
        # Where stdout has no UTF-8, a rule stands below the title too.
        body = itertools.takewhile(_is_text, itertools.dropwhile(lambda x: not _is_text(x), lines))
        message = " ".join(word for line in body for word in line.split())
        # The message of a `UserError` says itself which field it means.
        message = re.sub(r"^Error parsing [\w.]+: (?=\w+ = )", "", message)
        raise UserError(message) from None


def _is_text(line: str) -> bool:
    """Whether a line of tyro's box is no rule."""
    return line == "" or line.strip("─-╰╯+'") != ""


def _program() -> str:
    """What was called: train.py, or sumrnn train."""
    name = pathlib.Path(sys.argv[0]).name
    return name.replace("__main__.py", "sumrnn", 1)


def typed(*words: str) -> str:
    """The command line that calls this program with other words."""
    name = _program()
    start = ["python", sys.argv[0]] if name.endswith(".py") else name.split(" ")
    return shlex.join([*start, *words])


def say(message: str) -> None:
    """Shows a line on stderr, after the program's name."""
    # A folder's name may hold anything.
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    half = MAX_LINE // 2
    line = line if len(line) <= MAX_LINE else f"{line[:half]}...{line[-half:]}"
    text = f"{_program()}: {line}"
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # Nobody reads it any more; but somebody may sit at the terminal.
        silence(sys.stderr)
        with contextlib.suppress(OSError):
            sys.stderr = TERMINAL.open("a")
            print(text, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Shows a line on stderr of what is wrong but ends nothing."""
    say(f"warning: {message}")


def _say(message: str) -> None:
    say(f"error: {message}")
