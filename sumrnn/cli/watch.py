"""Watches the jobs that make an experiment's runs, and starts others where runs are left."""

from __future__ import annotations

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
        self._stamps = {spec: spec.folder.stamp() for spec in specs}
        self._given_up = False
        self._started = self._news = 0
        """Jobs of this start, and how many of them there were when a run began or ended last."""

    def look(self) -> bool:
        """Looks at every run and job, and starts jobs that are missing; whether any goes on."""
        progress, states = self._progress, self._pool.states()
        self._look_at_runs()
        free = [spec for spec in self._left if (spec.name, spec.seed) not in progress.failures]
        lacking = min(self._pool.size, len(free)) - len(states)
        if lacking > 0 and (lacking := min(lacking, sum(not _is_held(spec) for spec in free))):
            self._start(lacking)
            states = self._pool.states()
        progress.jobs = {
            name: list(states.values()).count(name) for name in dict.fromkeys(states.values())
        }
        progress.elsewhere = 0 if states else len(free)
        if self._given_up and not states:
            log = self._pool.log()
            for spec in free:
                where = f"; see {log}" if log else ""
                progress.failures[spec.name, spec.seed] = f"jobs ended without it{where}"
            return False
        return bool(states or free)

    def _look_at_runs(self) -> None:
        progress, retries = self._progress, self._job.options.retries
        for spec in list(self._left):
            try:
                if work.has_ended(spec):
                    self._left.remove(spec)
                    progress.failures.pop((spec.name, spec.seed), None)
                    progress.done, progress.worked = progress.done + 1, progress.worked + 1
                    self._news = self._started
                    continue
                held, stamp = _is_held(spec), spec.folder.stamp()
                attempts = spec.folder.attempts()
            except UserError:  # Being written, or a job will say what is wrong there.
                continue
            if stamp != self._stamps[spec]:  # It was begun, or has a checkpoint.
                self._news, self._stamps[spec] = self._started, stamp
            if (why := work.failure(spec, attempts, retries)) and not held:
                progress.failures[spec.name, spec.seed] = why
            else:
                progress.failures.pop((spec.name, spec.seed), None)

    def _start(self, count: int) -> None:
        self._given_up = self._started - self._news >= max(IN_VAIN, 2 * count)
        if not self._given_up:
            self._pool.submit(self._job, count)
            self._started += count


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

    Raises `UserError` if the scheduler does not answer, or takes no jobs, or they end without runs.
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
