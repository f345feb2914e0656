"""Watches the jobs that make an experiment's runs, and starts others where runs are left."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Sequence

from sumrnn.cli.jobs import Job
from sumrnn.cli.pool import Pool
from sumrnn.cli.processes import Unanswered
from sumrnn.cli.signals import PERIOD, Stop
from sumrnn.errors import UserError
from sumrnn.runs import lock, work
from sumrnn.runs.progress import Progress
from sumrnn.runs.recorder import Spec

PATIENCE = 60
"""Looks without an answer of the scheduler, one after the other, before that is told."""
IN_VAIN = 20
"""Jobs that may end while no run begins or ends, before something is taken to be wrong."""


class _Watch:
    """The runs that are left, as their folders tell, and the jobs that make them."""

    def __init__(self, pool: Pool, job: Job, specs: Sequence[Spec], progress: Progress) -> None:
        self._pool, self._job, self._left, self._progress = pool, job, list(specs), progress
        self._stamps: dict[Spec, tuple[int, int, int] | None] = {}
        self._attempts: dict[Spec, int] = {}
        """What config.json of a run that is left said when it was read last."""
        self._started = self._news = 0
        """Jobs of this start, and how many of them there were when a run's record changed last."""

    def look(self) -> bool:
        """Looks at every run and job, and starts jobs that are missing; whether any goes on."""
        progress, states = self._progress, self._pool.states()
        self._look_at_runs()
        free = [spec for spec in self._left if (spec.name, spec.seed) not in progress.failures]
        lacking = min(self._pool.size, len(free)) - len(states)
        idle = [spec for spec in free if not _is_held(spec)] if lacking > 0 else []
        count = min(lacking, len(idle))
        if idle and self._started - self._news < max(IN_VAIN, 2 * count):
            self._pool.submit(self._job, count)
            self._started += count
            states = self._pool.states()
        elif idle and not states:
            log = self._pool.log()
            why = "jobs ended without it" + (f"; see {log}" if log else "")
            progress.failures |= {(spec.name, spec.seed): why for spec in idle}
            free = [spec for spec in free if spec not in idle]
        progress.jobs = dict(collections.Counter(states.values()))
        progress.elsewhere = 0 if states else len(free)
        return bool(states or free)

    def _look_at_runs(self) -> None:
        """Takes note of runs that have ended, or are not tried any more."""
        progress, retries = self._progress, self._job.options.retries
        for spec in list(self._left):
            with contextlib.suppress(UserError):  # A job will say what is wrong there.
                if self._has_ended(spec):
                    self._left.remove(spec)
                    progress.failures.pop((spec.name, spec.seed), None)
                    progress.done, progress.worked = progress.done + 1, progress.worked + 1
                    continue
            why = work.failure(spec, self._attempts.get(spec, 0), retries)
            if why and not _is_held(spec):
                progress.failures[spec.name, spec.seed] = why
            else:
                progress.failures.pop((spec.name, spec.seed), None)

    def _has_ended(self, spec: Spec) -> bool:
        """Whether a run has ended; its record is read where it has changed since the last look."""
        if (stamp := spec.folder.stamp()) == self._stamps.get(spec):
            return False
        ended = work.has_ended(spec)
        self._attempts[spec] = spec.folder.attempts()
        self._stamps[spec], self._news = stamp, self._started
        return ended


def watch(
    pool: Pool,
    job: Job,
    specs: Sequence[Spec],
    *,
    stop: Stop,
    done: int,
    view: Callable[[Progress], None],
) -> Progress:
    """Lets jobs make runs until none is left, or somebody asks for an end: then they go on.

    Args:
      pool: of the jobs.
      job: what each of them is.
      specs: the runs, as from `work.missing`.
      stop: when it has a number, the jobs are left alone.
      done: runs that had ended before.
      view: is shown how far the runs are.

    Raises `UserError` if the scheduler does not answer, or takes no jobs.
    """
    progress = Progress(len(specs) + done, done=done, todo=len(specs))
    watched, unanswered, goes_on = _Watch(pool, job, specs, progress), 0, True
    while goes_on and not stop():
        began = time.perf_counter()
        try:
            goes_on, unanswered = watched.look(), 0
        except Unanswered:
            unanswered += 1
            if unanswered == PATIENCE or not progress.jobs:
                raise
        view(progress)
        # A slow file system, or very many runs, are not looked at without end.
        pause = max(pool.period, 5 * (time.perf_counter() - began)) if goes_on else 0
        until = time.perf_counter() + pause
        while time.perf_counter() < until and not stop():
            time.sleep(PERIOD)
    if progress.done == progress.total:
        pool.clear()
    return progress


def _is_held(spec: Spec) -> bool:
    try:
        return lock.is_held(spec.folder.path)
    except UserError:  # A job will say what is wrong there.
        return False
