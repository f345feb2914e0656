"""What every command shares: a command line made from dataclasses, and its exit statuses.

0: done.  1: something failed.  2: misuse, told in one line.  3: training diverged.
128 + n: stopped by signal n (130: SIGINT, 143: SIGTERM).
"""

import contextlib
import io
import itertools
import os
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

import tyro

from sumrnn.cli import console
from sumrnn.errors import UserError, invalid, require

T = TypeVar("T")
Text = Annotated[str, "text"]
"""As `Text | None` it is a union that tyro knows without another library, which takes 0.1 s."""
MAX_NAME, MAX_PATH = 255, 3_000
"""Bytes of a name and of a path; common file systems take no more, here with room for the
names of what is written inside."""


def parse(cls: type[T], argv: list[str], description: str, default: T | None = None) -> T:
    """Parses a command line into `cls`; misuse raises `UserError`."""
    with _one_line():
        return tyro.cli(
            cls,
            args=argv,
            prog=console.program(),
            description=_filled(description),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            default=tyro.MISSING_NONPROP if default is None else default,
        )


def parse_known(cls: type[T], argv: list[str]) -> T:
    """Parses only the options of `cls`, on which the defaults of the others depend."""
    with _one_line():
        known, _ = tyro.cli(
            cls, args=argv, prog=console.program(), return_unknown_args=True, add_help=False
        )
        return known


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


def run(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with the command line and turns what it raises into an exit status."""
    from sumrnn.cli import signals

    console.prepare()
    os.environ.pop("MPLBACKEND", None)  # A notebook's, perhaps not there; nothing is shown.
    signals.hear()
    try:
        main(sys.argv[1:])
    except UserError as error:
        if error.status == 128 + signals.CLOSED:
            console.silence(sys.stdout)
        console.fail(str(error))
        raise SystemExit(error.status) from None
    except BrokenPipeError:
        console.silence(sys.stdout)
        console.fail(signals.UNREAD)
        raise SystemExit(128 + signals.CLOSED) from None
    except OSError as error:
        console.fail(str(error))
        raise SystemExit(1) from None


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
