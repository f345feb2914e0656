"""Workers, as the process that measures nothing sees them: asked, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sumrnn.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]

Ask = Callable[..., dict[str, Any]]
"""The answer to a question and its details; raises `UserError` if there is none in time."""


@contextlib.contextmanager
def worker(name: str, limit: float) -> Iterator[Ask]:
    """A worker, called this in messages, that has so many seconds for each answer.

    It is killed at the end with all that it has started.  A session of its own keeps an interrupt
    at the terminal for this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    asked, answers = process.stdin, process.stdout
    assert asked is not None
    assert answers is not None

    def ask(do: str, **details: Any) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):
            asked.write(json.dumps((do, details), default=vars).encode() + b"\n")
        if not select.select([answers], [], [], limit)[0]:
            raise UserError(f"{name}: no answer within {limit} s (--limit)", 1)
        answer: dict[str, Any] = json.loads(answers.readline() or '{"error": "its process ended"}')
        if "error" in answer:
            raise UserError(f"{name}: {answer['error']}", 1)
        return answer

    with process:
        try:
            yield ask
        finally:
            with contextlib.suppress(OSError):  # Of a process that has ended, on macOS.
                os.killpg(process.pid, signal.SIGKILL)


def once(name: str, limit: float, do: str, **details: Any) -> dict[str, Any]:
    """The answer to one question of a worker of its own."""
    with worker(name, limit) as ask:
        return ask(do, **details)
