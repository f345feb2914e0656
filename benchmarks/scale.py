"""What a batch of very many runs takes: disk, and time and memory to hand out, find and analyse.

python -m benchmarks.scale [RUNS]: one run of the experiment tiny is trained, and stands as often as
that for a run of another seed.  Slurm is replaced by programs that take every job, and forget none.
"""

import contextlib
import dataclasses
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from sumrnn.cli import experiment, jobs
from sumrnn.cli.jobs import Chunk, Engine, Resources
from sumrnn.devices import mesh
from sumrnn.report import batch as report
from sumrnn.runs import files, record, recorder
from sumrnn.study import runner
from sumrnn.study.batch import BatchFolder

CONDITION = "cells-8"
TINY = experiment.find("tiny").only(CONDITION)


def make(path: pathlib.Path, runs: int) -> BatchFolder:
    """A batch of so many finished runs."""
    batch = BatchFolder(path)
    batch.open(TINY, range(runs))
    runner.run(batch, TINY, (0,), recorder.Stop())
    first = batch.run(CONDITION, 0)
    found = first.read()
    for seed in range(1, runs):
        folder = batch.run(CONDITION, seed)
        shutil.copytree(first.path, folder.path)
        own = dataclasses.replace(found, seed=seed)
        files.write_json(folder.path / "config.json", own, record.FORMAT)
    return batch


def size(path: pathlib.Path) -> tuple[int, int]:
    """Bytes, in whole blocks of the disk, and files and folders."""
    entries = [path, *path.rglob("*")]
    return sum(entry.stat().st_blocks * 512 for entry in entries), len(entries)


@contextlib.contextmanager
def slurm(path: pathlib.Path, runs: int) -> Iterator[None]:
    """Programs of Slurm's names on the path."""
    path.mkdir()
    (path / "queue").write_text("".join(f"7_{i} PENDING\n" for i in range(runs)))
    for name, words in (("sbatch", "echo Submitted batch job 7"), ("squeue", f"cat {path}/queue")):
        (path / name).write_text(f"#!/bin/sh\n{words}\n")
        (path / name).chmod(0o755)
    (path / "srun").symlink_to("/bin/true")
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{path}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def timed(what: str, action: Callable[[], object]) -> None:
    """Does something, and prints a row of what it took."""
    began = time.perf_counter()
    action()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"| {what} | {seconds:.1f} s | {peak} MiB |", flush=True)


def main(runs: int) -> None:
    """Prints the table."""
    mesh.use_cores()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        print(f"| {runs:,} runs | time | peak of memory so far |\n| --- | ---: | ---: |")
        wanted = [(CONDITION, seed) for seed in range(runs)]
        with slurm(work / "bin", jobs.ARRAY):
            engine = Engine("slurm", work / "queue", Resources())
            chunks = jobs.chunks(wanted, 1, Chunk(str(work / "queue")))
            part = chunks[: jobs.ARRAY]
            timed(f"submit {len(part)} of them as jobs", lambda: engine.submit(part))
            timed("ask the queue", lambda: engine.states([f"7_{i}" for i in range(jobs.ARRAY)]))
        batch = make(work / "batch", runs)
        timed("find out what is missing", lambda: runner.missing(batch, TINY, range(runs)))
        timed("table, summary, page", lambda: report.write(batch))
        used, entries = size(batch.run(CONDITION, 0).path)
        shutil.rmtree(batch.run(CONDITION, 0).path / "checkpoints")
        less, fewer = size(batch.run(CONDITION, 0).path)
        print(f"\nA finished run: {used >> 10} KiB, {entries} files and folders;", end=" ")
        print(f"with --keep 0 {less >> 10} KiB, {fewer}.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
