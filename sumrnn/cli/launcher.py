"""Lets jobs make the missing runs of a batch, and watches them; they go on without it."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence

from sumrnn.cli import jobs
from sumrnn.cli.jobs import Chunk, Engine, Launcher, State
from sumrnn.cli.processes import Unanswered
from sumrnn.cli.progress import Counts
from sumrnn.errors import UserError
from sumrnn.runs import locks
from sumrnn.study.batch import BatchFolder

PERIODS: dict[Launcher, float] = {"local": 0.5, "slurm": 5.0}
"""Seconds between looks, unless one takes a fifth of that."""
PATIENT = 60
"""Looks without an answer of the scheduler, one after the other, before that is told."""

VAIN = 20
"""Jobs that may end without a run, one after the other, before something is taken to be wrong."""

Run = tuple[str, int]
"""Condition and seed."""


class Launch:
    """Makes the missing runs of a batch by jobs.

    Args:
      batch: that is open.
      engine: takes the jobs.
      missing: runs that have not ended, as from `runner.missing`.
      size: runs of a job.
      template: of a job, without runs.
      slots: of this machine, the cores of each of the jobs that run at a time; None: it is not this
        machine that runs them.
      retries: how often a run is tried again, alone, when its job ended without it.
      period: seconds between looks.
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
        period: float = 0.0,
    ) -> None:
        self._batch, self._engine, self._missing = batch, engine, dict.fromkeys(missing)
        self._size, self._template, self._slots, self._retries = size, template, slots, retries
        self._tries: collections.Counter[Run] = collections.Counter()
        self._last: dict[Run, str] = {}
        self._vain: list[str] = []
        self._period = period
        self._jobs = engine.earlier()

    def watch(self, counts: Counts, view: Callable[[Counts], None]) -> None:
        """Goes on until nothing more is to be done; `view` is shown how far it is.

        Raises `UserError` if the scheduler does not answer, or takes no jobs, or job after job ends
        without a run; those that go on do so.
        """
        counts.first = counts.total - len(self._missing)
        goes_on, unanswered = True, 0
        while goes_on:
            began = time.perf_counter()
            try:
                goes_on, unanswered = self.look(counts), 0
            except Unanswered:
                unanswered += 1
                if not self._jobs or unanswered == PATIENT:
                    raise
            view(counts)
            # A slow file system, or very many runs, are not looked at without end.
            took = time.perf_counter() - began
            time.sleep(max(self._period, 5 * took) if goes_on else 0)

    def failed(self) -> dict[Run, pathlib.Path | None]:
        """The runs that are left alone, and where their last job says why."""
        return {run: self._engine.log(self._last[run]) for run in self._missing if self._spent(run)}

    def _spent(self, run: Run) -> bool:
        return self._tries[run] > self._retries

    def look(self, counts: Counts) -> bool:
        """Looks at every job, and starts those that are missing; whether anything goes on."""
        states = self._engine.states(list(self._jobs))
        taken: dict[Run, State] = {}
        for job, chunk in [*self._jobs.items()]:
            runs, state = _runs(chunk), states.get(job)
            if state != "waiting":
                self._forget(runs)
            if state is None:
                self._end(job, runs)
            else:
                taken |= dict.fromkeys(runs, state)
        # A signal may end this while jobs are submitted.
        counts.done, counts.jobs = counts.total - len(self._missing), len(self._jobs)
        free = [run for run in self._missing if run not in taken]
        wanted, held = self._wanted([run for run in free if not self._spent(run)])
        started = self._start(wanted) if wanted else []
        found = collections.Counter(taken[run] for run in self._missing if run in taken)
        counts.done, counts.jobs = counts.total - len(self._missing), len(self._jobs)
        counts.failed = sum(map(self._spent, free)) - sum(map(self._spent, started))
        counts.running, counts.elsewhere = found["running"], held
        counts.waiting = len(self._missing) - counts.failed - counts.running - held
        return counts.waiting + counts.running + held > 0

    def _end(self, job: str, runs: Sequence[Run]) -> None:
        """Takes note of a job that has ended, and whether that was in vain."""
        del self._jobs[job]
        others = [run for run in runs if run in self._missing and self._is_held(run)]
        for run in others:  # It left them to those that have them.
            self._tries[run] -= 1
        if others or any(run not in self._missing for run in runs):
            self._vain = []
        else:
            self._vain.append(job)

    def _wanted(self, free: Sequence[Run]) -> tuple[list[Run], int]:
        """Those of the runs that nobody has, as far as there is room; how many others have."""
        room, held, found = len(free), 0, list[Run]()
        if self._slots is not None:
            room = max(0, len(self._slots) - len(self._jobs)) * self._size
        for run in free:
            if len(found) == room:
                break
            if self._is_held(run):
                held += 1
            elif not self._has_ended(run):  # Perhaps a moment ago.
                found.append(run)
            else:
                del self._missing[run]
        return found, held

    def _start(self, wanted: Sequence[Run]) -> list[Run]:
        """Submits jobs: new runs in chunks, and one by one those that a job ended without.

        Returns the runs that were submitted; another start may have submitted some just before.
        """
        if len(self._vain) >= VAIN:
            own = [log for job in self._vain if (log := self._engine.log(job))]
            where = f"; see {own[-1]}" if own else ""
            raise UserError(f"{VAIN} jobs after each other ended without a run{where}", status=1)
        with self._batch.lock():
            self._jobs |= self._engine.earlier()
            taken = {run for chunk in self._jobs.values() for run in _runs(chunk)}
            cut: list[Chunk] = []
            for tried, size in ((True, 1), (False, self._size)):
                runs = [r for r in wanted if r not in taken and (self._tries[r] > 0) == tried]
                cut += jobs.chunks(runs, size, self._template)
            new = self._engine.submit(self._placed(cut)) if cut else {}
        self._jobs |= new
        started = [(run, job) for job, chunk in new.items() for run in _runs(chunk)]
        for run, job in started:
            self._tries[run] += 1
            self._last[run] = job
        return [run for run, _ in started]

    def _placed(self, cut: list[Chunk]) -> list[Chunk]:
        """As many of the chunks as have room on this machine, each with cores; all elsewhere."""
        if self._slots is None:
            return cut
        used = collections.Counter(chunk.cores for chunk in self._jobs.values())
        found = []
        for chunk in cut[: max(0, len(self._slots) - len(self._jobs))]:
            cores = min(self._slots, key=lambda slot: used[slot])
            used[cores] += 1
            found.append(dataclasses.replace(chunk, cores=cores))
        return found

    def _forget(self, runs: Sequence[Run]) -> None:
        """Takes note of runs that have ended."""
        for run in runs:
            if run in self._missing and self._has_ended(run):
                del self._missing[run]

    def _is_held(self, run: Run) -> bool:
        try:
            return locks.is_held(self._batch.run(*run).path)
        except UserError:  # A job will say what is wrong there.
            return False

    def _has_ended(self, run: Run) -> bool:
        folder = self._batch.run(*run)
        try:
            if folder.status() == "unfinished":
                return False
            folder.check_files()
        except UserError:
            return False
        return True


def _runs(chunk: Chunk) -> list[Run]:
    return [(chunk.condition, seed) for seed in chunk.seeds]


def slots(cores: Sequence[int], many: int) -> list[tuple[int, ...]]:
    """Divides cores among so many jobs at a time, which share them if there are too few."""
    if many >= len(cores):
        return [(cores[i % len(cores)],) for i in range(many)]
    size = len(cores) // many
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(many)]
