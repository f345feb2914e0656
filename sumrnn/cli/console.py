"""What a person is told: lines that any encoding takes, wherever the streams lead."""

import codecs
import contextlib
import io
import os
import pathlib
import shlex
import sys
from typing import NoReturn, TextIO

MAX_LINE = 2_000
"""Characters of a message."""
TERMINAL = pathlib.Path("/dev/tty")
LACKING = "sumrnn-lacking"
"""How text is encoded that an encoding lacks."""
PLAIN = {"≥": ">=", "≤": "<=", "−": "-"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    known = "".join(PLAIN.get(c, c) for c in lacking)
    return known.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(LACKING, _plain)


def prepare() -> None:
    """Makes the streams take any text, also those that were closed before the start."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = pathlib.Path(os.devnull).open("w")  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):  # Its encoding may lack a letter.
            stream.reconfigure(errors=LACKING)


def program() -> str:
    """The program that was called: train.py, or sumrnn train."""
    name = pathlib.Path(sys.argv[0]).name
    return name.replace("__main__.py", "sumrnn", 1)


def command_line(*words: str) -> str:
    """The command line that calls this program with other words."""
    name = program()
    start = ["python", sys.argv[0]] if name.endswith(".py") else name.split(" ")
    return shlex.join([*start, *words])


def say(message: str) -> None:
    """Shows a line on stderr, after the program's name."""
    # A folder's name may hold anything.
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    half = MAX_LINE // 2
    line = line if len(line) <= MAX_LINE else f"{line[:half]}...{line[-half:]}"
    text = f"{program()}: {line}"
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


def fail(message: str) -> None:
    """Shows a line on stderr of why the process ends."""
    say(f"error: {message}")


def silence(stream: TextIO) -> None:
    """Lets what is written to a closed stream go nowhere; Python writes once more at its end."""
    with contextlib.suppress(OSError, ValueError):  # A test's stream is no file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def end(message: str, status: int) -> NoReturn:
    """Says why, and ends the process at once, without any clean-up but that of the terminal."""
    # The streams may be gone, or in use just now.
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        fail(message)
        sys.stdout.flush()
        sys.stderr.flush()
        # A live line hides the cursor, and has put in their place what takes no escapes.
        proxied = (getattr(x, "rich_proxied_file", None) for x in (sys.stdout, sys.stderr))
        if terminal := next((x for x in proxied if x is not None and x.isatty()), None):
            print("\n\x1b[?25h", end="", file=terminal, flush=True)
    os._exit(status)
