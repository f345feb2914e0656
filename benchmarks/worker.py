"""A process that measures: a line of JSON in, a line of JSON out.

Its own process, because threads, devices and the backend of Keras are set once for each, and
the most memory that it ever had is its own.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.work import Work

Answer = dict[str, Any]


class Worker:
    """What can be asked for, by name; other names are those of functions in `product`."""

    def start(self, name: str, work: Work, file: str, settings: Answer) -> Answer:
        """Prepares everything but what the first epoch itself compiles."""
        with np.load(file, allow_pickle=False) as arrays:
            self._given = (name, work, dict(arrays), settings)
        self._peer = peers.create(*self._given)
        return {}

    def epoch(self) -> Answer:
        """Trains for an epoch."""
        before = time.perf_counter()
        loss = self._peer.epoch()
        return {"seconds": time.perf_counter() - before, "loss": loss}

    def losses(self) -> Answer:
        """Peak memory; then, since they need some of their own, the first losses of a fresh one."""
        return _memory() | {"first_losses": peers.create(*self._given).losses()}

    def learn_keras(self, seed: int, epochs: int, every: int, began: float) -> Answer:
        """The notebook's training, see `quality.Course`, with a seed of its own."""
        # Here, since the memory of `run` is also what this process had when it started one.
        notebook, quality = (
            importlib.import_module(f"benchmarks.{x}") for x in ("notebook", "quality")
        )
        keras, course = notebook.load(), quality.Course(began)
        keras.utils.set_random_seed(seed)

        def stop(epoch: int, logs: object) -> None:
            if (epoch + 1) % every == 0 or epoch + 1 == epochs:
                course.stop((epoch + 1) * series, error)

        def error() -> float:
            product = importlib.import_module("benchmarks.product")  # Its JAX, at the first exam.
            return float(product.exam_error("notebook", answer))

        def answer(digits: np.ndarray) -> np.ndarray:
            found: np.ndarray = model.predict(digits[..., None], 1_000, verbose=0)[:, 0] - 0.5
            return found

        x, _, y, _ = notebook.split()
        series = len(x) - len(x) // 10  # Of which Keras trains, without the validation's.
        model = notebook.compiled(keras)
        watch = keras.callbacks.LambdaCallback(on_epoch_end=stop)
        notebook.train(model, x, y, epochs, [watch])
        told: Answer = course.told()
        return told

    def run(self, command: Sequence[str], sample: int = 0) -> Answer:
        """A command in an empty folder, from start to finish: its time, and its peak memory.

        Its memory after every so many of the epochs that it prints are pairs in `memory`; the
        seconds in run/history.csv, where it leaves that, are in `epochs`.
        """
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
            began, memory, pipe = time.perf_counter(), [], subprocess.PIPE
            with subprocess.Popen(command, stdout=pipe, stderr=errors, cwd=folder) as process:
                for line in process.stdout or ():
                    epoch = re.match(rb"epoch +(\d+)/", line)
                    if sample and epoch and int(epoch[1]) % sample == 0:
                        memory.append((int(epoch[1]), _resident(process.pid)))
            seconds = time.perf_counter() - began
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            if process.returncode:
                errors.seek(0)
                last = [b"without a word", *errors.read().split(b"\n")]
                why = next(line for line in reversed(last) if line.strip()).decode().strip()
                raise RuntimeError(f"status {process.returncode} ({why})")
            history = Path(folder, "run", "history.csv")
            rows = history.read_text().splitlines()[1:] if history.exists() else []
        spent = {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime}
        epochs = [float(row.rpartition(",")[2]) for row in rows]
        return spent | _memory(used) | {"memory": memory, "epochs": epochs}


def _memory(used: resource.struct_rusage | None = None) -> Answer:
    """The most so far, usually of this process; macOS counts it in bytes and Linux in KiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"memory_mib": (used or resource.getrusage(resource.RUSAGE_SELF)).ru_maxrss / unit}


def _resident(number: int) -> float:
    """MiB that a process has in memory now."""
    asked = ["ps", "-o", "rss=", "-p", str(number)]
    return int(subprocess.run(asked, capture_output=True, check=True).stdout) / 2**10


def main() -> None:
    """Keeps the real output for answers; what libraries print goes to the errors."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in iter(sys.stdin.readline, ""):
        do, details = json.loads(line)
        try:
            if "work" in details:
                details["work"] = Work(**details["work"])
            if hasattr(worker, do):
                found = getattr(worker, do)(**details)
            else:
                product = importlib.import_module("benchmarks.product")
                importlib.import_module("sumrnn.devices.mesh").use_cores()
                found = getattr(product, do)(**details) | _memory()
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
