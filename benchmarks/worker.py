"""A process that does one program's work: a line of JSON in, a line of JSON out.

Its own process, because threads, devices and the backend of Keras are set once for each.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import peers
from benchmarks import work as work_lib
from benchmarks.work import Work

Answer = dict[str, Any]


def memory() -> float:
    """Most memory that this process has had, in MiB."""
    return mebibytes(resource.getrusage(resource.RUSAGE_SELF))


def mebibytes(usage: resource.struct_rusage) -> float:
    """Peak memory in MiB, which macOS counts in bytes and Linux in KiB."""
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Worker:
    """What can be asked for, by name."""

    def __init__(self) -> None:
        self._peer: peers.Peer | None = None

    def make(self, work: dict[str, Any], file: str) -> Answer:
        """Writes the file that all others start from."""
        from benchmarks import product

        return {"losses": product.make(Work(**work), pathlib.Path(file))}

    def start(self, peer: str, work: dict[str, Any], file: str, settings: Answer) -> Answer:
        """Prepares everything but what the first epoch itself compiles."""
        given = work_lib.load(pathlib.Path(file))
        self._peer = peers.create(peer, Work(**work), given, settings)
        return {}

    def epoch(self) -> Answer:
        """Trains for an epoch."""
        assert self._peer is not None
        before = time.perf_counter()
        loss = self._peer.epoch()
        return {"seconds": time.perf_counter() - before, "loss": loss}

    def losses(self) -> Answer:
        """First losses from the initial parameters."""
        assert self._peer is not None
        return {"losses": self._peer.losses()}

    def memory(self) -> Answer:
        """Peak memory so far."""
        return {"mebibytes": memory()}

    def fit(self, work: dict[str, Any], seeds: int, epochs: int) -> Answer:
        """Time and memory of a whole batch of runs."""
        from benchmarks import product

        seconds = product.fit_seconds(Work(**work), seeds, epochs)
        return {"seconds": seconds, "mebibytes": memory()}


def serve(lines: Iterator[str], answer: Callable[[str], object]) -> None:
    """Does what each line asks for until there are no more."""
    worker = Worker()
    for line in lines:
        asked = json.loads(line)
        answer(json.dumps(getattr(worker, asked.pop("do"))(**asked)) + "\n")


def main() -> None:
    """Keeps the real output for answers; what libraries print goes to the errors."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(iter(sys.stdin.readline, ""), answers.write)


if __name__ == "__main__":
    main()
