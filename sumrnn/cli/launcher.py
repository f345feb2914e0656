"""Lets jobs make the missing runs of a batch, and watches them; they go on without it."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence

from sumrnn.cli import jobs
from sumrnn.cli.jobs import Chunk, Engine, State
from sumrnn.errors import UserError
from sumrnn.runs import locks
from sumrnn.study.batch import BatchFolder

PERIOD = 0.5
"""Seconds between looks, unless one takes longer than that."""

VAIN = 20
"""Jobs that may end without a run, one after the other, before something is taken to be wrong."""

Run = tuple[str, int]
"""Condition and seed."""


@dataclasses.dataclass
class Counts:
    """How far the runs of a batch are."""

    total: int
    done: int = 0
    running: int = 0
    """In jobs that run."""
    waiting: int = 0
    """For a job, or in one that waits."""
    elsewhere: int = 0
    """In processes that are no jobs of this batch's launcher."""
    failed: int = 0
    """Left alone, because job after job ended without them."""
    jobs: int = 0
    """That have not ended."""
    first: int = 0
    """Done before this start."""
    began: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def seconds_left(self) -> float:
        """Expected time until the end; NaN before a run is done."""
        made = self.done - self.first
        left = self.total - self.done - self.failed
        return left * (time.perf_counter() - self.began) / made if made else float("nan")


class Launch:
    """Makes the missing runs of a batch by jobs.

    Args:
      batch: that is open.
      engine: takes the jobs.
      missing: runs that have not ended, as from `batch.missing`.
      size: runs of a job.
      template: of a job, without runs.
      slots: of this machine, the cores of each of the jobs that run at a time; None: it is not this
        machine that runs them.
      retries: how often a run is tried again, alone, when its job ended without it.
    """

    def __init__(
        self,
        batch: BatchFolder,
        engine: Engine,
        missing: Sequence[Run],
        size: int,
        template: Chunk,
        slots: Sequence[tuple[int, ...]] | None,
        retries: int,
    ) -> None:
        self._batch, self._engine, self._missing = batch, engine, dict.fromkeys(missing)
        self._size, self._template, self._slots, self._retries = size, template, slots, retries
        self._tries: collections.Counter[Run] = collections.Counter()
        self._last: dict[Run, str] = {}
        self._vain: list[str] = []
        self._jobs = engine.earlier()

    def watch(self, counts: Counts, view: Callable[[Counts], None]) -> None:
        """Goes on until nothing more is to be done; `view` is shown how far it is.

        Raises `UserError` if the scheduler does not answer, or takes no jobs, or job after job ends
        without a run; those that go on do so.
        """
        counts.first = counts.total - len(self._missing)
        goes_on = True
        while goes_on:
            began = time.perf_counter()
            goes_on = self._look(counts)
            view(counts)
            # A slow file system, or very many runs, are not looked at without end.
            time.sleep(max(PERIOD, time.perf_counter() - began) if goes_on else 0)

    def failed(self) -> dict[Run, pathlib.Path]:
        """The runs that are left alone, and where their last job says why."""
        return {run: self._engine.log(self._last[run]) for run in self._missing if self._spent(run)}

    def _spent(self, run: Run) -> bool:
        return self._tries[run] > self._retries

    def _look(self, counts: Counts) -> bool:
        """Looks at every job, and starts those that are missing; whether anything goes on."""
        states = self._engine.states(list(self._jobs))
        taken: dict[Run, State] = {}
        for job, chunk in [*self._jobs.items()]:
            runs = [(chunk.condition, seed) for seed in chunk.seeds]
            state = states.get(job)
            if state != "waiting":
                self._forget(runs)
            if state is None:
                del self._jobs[job]
                made = any(run not in self._missing for run in runs)
                self._vain = [] if made else [*self._vain, job]
            else:
                taken |= dict.fromkeys(runs, state)
        free = [run for run in self._missing if run not in taken]
        held = {run for run in free if locks.is_held(self._batch.run(*run).path)}
        self._forget([run for run in free if run not in held])  # Perhaps a moment ago.
        free = [run for run in free if run in self._missing and run not in held]
        wanted = [run for run in free if not self._spent(run)]
        if len(self._vain) >= VAIN and wanted:
            what = f"{VAIN} jobs after each other ended without a run"
            raise UserError(f"{what}; see {self._engine.log(self._last[wanted[0]])}", status=1)
        self._start(wanted)
        found = collections.Counter(taken[run] for run in self._missing if run in taken)
        counts.done = counts.total - len(self._missing)
        counts.running, counts.waiting = found["running"], found["waiting"] + len(wanted)
        counts.elsewhere, counts.failed = len(held), len(free) - len(wanted)
        counts.jobs = len(self._jobs)
        return bool(self._jobs or held or wanted)

    def _start(self, wanted: Sequence[Run]) -> None:
        """Submits jobs: new runs in chunks, and one by one those that a job ended without."""
        cut = []
        for tried, size in ((True, 1), (False, self._size)):
            runs = [run for run in wanted if (self._tries[run] > 0) == tried]
            cut += jobs.chunks(runs, size, self._template)
        if self._slots is not None:
            used = collections.Counter(chunk.cores for chunk in self._jobs.values())
            cut = cut[: max(0, len(self._slots) - len(self._jobs))]
            for i, chunk in enumerate(cut):
                cores = min(self._slots, key=lambda slot: used[slot])
                used[cores] += 1
                cut[i] = dataclasses.replace(chunk, cores=cores)
        if not cut:
            return
        for job, chunk in self._engine.submit(cut).items():
            self._jobs[job] = chunk
            for seed in chunk.seeds:
                self._tries[chunk.condition, seed] += 1
                self._last[chunk.condition, seed] = job

    def _forget(self, runs: Sequence[Run]) -> None:
        """Takes note of runs that have ended."""
        for run in runs:
            if run in self._missing and self._has_ended(run):
                del self._missing[run]

    def _has_ended(self, run: Run) -> bool:
        folder = self._batch.run(*run)
        try:
            if folder.status() == "unfinished":
                return False
            folder.check_files()
        except UserError:  # A job will say what is wrong there.
            return False
        return True


def slots(cores: Sequence[int], many: int) -> list[tuple[int, ...]]:
    """Divides cores among so many jobs at a time, which share them if there are too few."""
    if many >= len(cores):
        return [(cores[i % len(cores)],) for i in range(many)]
    size = len(cores) // many
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(many)]
