"""What every script shares: a command line made from dataclasses, and its exit statuses.

0: done.  1: something failed.  2: misuse, told in one line.  3: training diverged.
130: interrupted.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from sumrnn.config import ConfigError
from sumrnn.runs import RunError

T = TypeVar("T")


class Diverged(Exception):
    """The loss is no longer a number."""


def parse(cls: type[T], argv: list[str], description: str, default: T | None = None) -> T:
    """Parses a command line into `cls`; misuse raises `SystemExit` with one line and status 2."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                cls,
                args=argv,
                prog=pathlib.Path(sys.argv[0]).name,
                description=description,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    raise _misuse(_unbox(boxed.getvalue()))


def option(argv: list[str], name: str, default: str) -> str:
    """The value of one option that decides the defaults of the others."""
    found = default
    for here, after in itertools.pairwise([*argv, ""]):
        if here == f"--{name}":
            found = after
        elif here.startswith(f"--{name}="):
            found = here.partition("=")[2]
    return found


def run(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with the command line and turns what it raises into an exit status."""
    try:
        main(sys.argv[1:])
    except (ConfigError, RunError) as error:
        raise _misuse(str(error)) from None
    except Diverged as error:
        _say(str(error))
        raise SystemExit(3) from None
    except KeyboardInterrupt:
        _say("interrupted")
        raise SystemExit(130) from None


def _say(message: str) -> None:
    print(f"{pathlib.Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)


def _misuse(message: str) -> SystemExit:
    _say(message)
    return SystemExit(2)


def _unbox(text: str) -> str:
    """tyro draws its errors as a box of several lines; this keeps the message itself."""
    lines = [line.strip("│| ") for line in text.splitlines()[1:]]
    body = itertools.takewhile(lambda line: not line or line.strip("─-╰╯+"), lines)
    message = " ".join(word for line in body for word in line.split())
    # A field's own message already says where it is.
    return message.partition("Error parsing config: ")[2] or message
