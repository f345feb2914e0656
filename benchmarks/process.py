"""Other processes, as the one that measures sees them: asked, timed, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

from benchmarks.worker import mebibytes
from sumrnn.command import Failed

ROOT = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def _limited(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kills the process if what is inside takes longer, and tells so by the event."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it does not say why")


class Process:
    """A worker; as a context it is killed at the end, whatever happens."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self._limit = name, limit
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        # A session of its own: an interrupt at the terminal is for this process alone.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stdin, self._errors):
            # What was not sent any more cannot be flushed.
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Its answer to a command.

        Raises:
          Failed: if it ends instead, or takes longer than its limit.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        with _limited(self._process, self._limit) as late, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **details}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if late.is_set():
            raise Failed(f"{self.name}: no answer within {self._limit} s (--limit)")
        if not line.endswith(b"\n"):
            raise Failed(f"{self.name}: its process ended ({_last_line(self._errors)})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run(name: str, command: list[str], folder: pathlib.Path, limit: float) -> dict[str, float]:
    """Runs a command from start to finish: wall clock, processor time, peak memory in MiB.

    Raises:
      Failed: if its exit status is not 0, or it takes longer than the limit.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            with _limited(process, limit) as late:
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if late.is_set():
            raise Failed(f"{name}: not done within {limit} s (--limit)")
        if process.returncode:
            raise Failed(f"{name}: status {process.returncode} ({_last_line(errors)})")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "mebibytes": mebibytes(usage),
    }
