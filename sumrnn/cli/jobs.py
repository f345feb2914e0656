"""Runs of a batch as jobs that fail alone: a chunk of them each, started by submitit.

submitit hands them to Slurm as arrays, or starts them as processes of this machine.  What it needs
is in jobs/LAUNCHER-NUMBER of the batch, with the logs; a job itself is a pickled `Chunk`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import pathlib
import re
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sumrnn import fields
from sumrnn.cli import processes
from sumrnn.errors import UserError, invalid, require
from sumrnn.fields import Range

if TYPE_CHECKING:
    import submitit

FOLDER = "jobs"
"""Of a batch."""
SUBMITTED, RESULT = "_submitted.pkl", "_0_result.pkl"
"""What submitit leaves of each job, after its id."""
STARTED = "started.log"
"""What jobs of this machine say before they have logs of their own."""
ARRAY = 1_000
"""Jobs of an array, as many as Slurm takes unless it is told otherwise (MaxArraySize)."""
OWN = ("array", "error", "output", "parsable", "quiet", "signal", "test-only", "wait")
"""Options of sbatch that jobs cannot do without, or not with."""
PER_GPU = 32
"""Runs that a GPU is given, unless it is said how many."""
PERIOD = 0.1
"""Seconds between looks whether a job's work is done."""
FOREVER = 10**6
"""Minutes, and times that a job is started again because its time was over."""

Launcher = Literal["local", "slurm"]
State = Literal["running", "waiting"]
Count = Annotated[int, Range(1, 10**6)]


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a job may use; all but the first are Slurm's own words."""

    parallel: Count | None = None
    """Jobs at a time, of Slurm's of each array; None: on this machine one per core, else as many
    as Slurm starts."""
    gpus_per_node: Count | None = None
    """GPUs of a job; None: none."""
    cpus_per_task: Count | None = None
    """Cores of a job; None: Slurm's default."""
    time: Count = 240
    """Minutes after which Slurm stops a job; it is started again, and goes on."""
    partition: str | None = None
    """Slurm's partition."""
    account: str | None = None
    """Slurm's account."""
    setup: tuple[str, ...] = ()
    """Lines of shell that Slurm's jobs begin with, such as 'module load cuda'."""
    sbatch: tuple[str, ...] = ()
    """Further words for sbatch, such as qos=long mem=4G."""

    def __post_init__(self) -> None:
        fields.check(self)
        for text in self.sbatch:
            good = re.fullmatch(r"[a-z][a-z-]*(=.+)?", text) is not None
            require(good, "sbatch", text, "an option of sbatch without its dashes, such as mem=4G")
            own = text.partition("=")[0] not in OWN
            require(own, "sbatch", text, f"an option that is not set anyway ({', '.join(OWN)})")
        for text in (self.partition or "", self.account or "", *self.setup, *self.sbatch):
            require(text.isprintable(), "sbatch", text, "one line of text")

    @property
    def further(self) -> dict[str, str | bool]:
        """The further words by name; True for one without a value."""
        parts = (text.partition("=") for text in self.sbatch)
        return {name: value if sign else True for name, sign, value in parts}


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Runs that a job makes; submitit calls it, and asks for a `checkpoint` to stop it."""

    batch: str
    """The folder, absolute."""
    devices: int | None = None
    every: int | None = None
    per_device: int | None = None
    anyway: bool = False
    keep: int = 1
    condition: str = ""
    seeds: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    """Of this machine that it may use; all if empty."""

    def __call__(self) -> None:
        """Makes those of its runs that are missing and nobody has."""
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        # Only now: XLA has as many threads as it sees cores.
        from sumrnn.cli import command, progress
        from sumrnn.devices import mesh
        from sumrnn.runs.recorder import Stop
        from sumrnn.study import batch as batch_lib
        from sumrnn.study import runner

        mesh.use_cores(self.devices)
        folder, stop = batch_lib.BatchFolder(pathlib.Path(self.batch)), Stop()
        experiment = batch_lib.check_here(folder, self.condition, self.anyway)
        with futures.ThreadPoolExecutor(1) as pool, progress.of_batch() as show:
            ways = (self.every, self.per_device, self.anyway, self.keep)
            given = (folder, experiment, self.seeds, stop, show, command.warn)
            work = pool.submit(runner.run, *given, *ways)
            # Not a field: a signal's handler finds it, no pickle has it.
            object.__setattr__(self, "_stopping", (stop, work))
            while not work.done():  # This thread hears signals at once.
                time.sleep(PERIOD)
            work.result()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Lets the work end after its epoch; returns what goes on."""
        from submitit.helpers import DelayedSubmission

        if (found := getattr(self, "_stopping", None)) is not None:
            stop, work = found
            stop.number = signal.SIGTERM
            futures.wait((work,))
        return DelayedSubmission(dataclasses.replace(self))


def chunks(runs: Sequence[tuple[str, int]], size: int, template: Chunk) -> list[Chunk]:
    """Cuts runs, condition and seed, into chunks of at most `size` of one condition."""
    found = []
    for condition in dict.fromkeys(condition for condition, _ in runs):
        seeds = [seed for name, seed in runs if name == condition]
        parts = (tuple(seeds[i : i + size]) for i in range(0, len(seeds), size))
        found += [dataclasses.replace(template, condition=condition, seeds=s) for s in parts]
    return found


class Engine:
    """Jobs of a batch, of this start and of earlier ones."""

    def __init__(self, launcher: Launcher, batch: pathlib.Path, resources: Resources) -> None:
        import submitit

        self._launcher, self._resources = launcher, resources
        self._root = batch.absolute() / FOLDER
        self._own: dict[str, Any] = {}
        """Jobs of this start, by their ids."""
        self._executor: Any = None
        self._submitit = submitit

    def check(self) -> None:
        """Raises `UserError` unless jobs can be submitted here."""
        self._folders()
        out = str(self._root.parent)
        require("%" not in out, "out", out, "without %, which stands for a job's number")
        if self._launcher == "local":
            return
        for name in ("sbatch", "srun", "squeue"):
            if shutil.which(name) is None:
                raise invalid("launcher", "slurm", f"used where Slurm is: there is no {name} here")

    def check_seen(self) -> None:
        """Raises `UserError` if the machines of the jobs do not see the folder of the batch."""
        if self._launcher == "local":
            return
        where, chosen = self._root.parent, self._resources
        words = {"partition": chosen.partition, "account": chosen.account, **chosen.further}
        options = [f"--{name}={value}" for name, value in words.items() if isinstance(value, str)]
        test = f"test -d {shlex.quote(str(where))} && echo seen || echo unseen"
        command = ["srun", "--quiet", "--immediate=10", "--ntasks=1", "--time=1", *options]
        found = processes.output([*command, "sh", "-c", test], 20)
        # No answer: all machines are busy, and the jobs will tell.
        require("unseen" not in found, "out", str(where), "a folder that Slurm's machines see too")

    def submit(self, chunks: Sequence[Chunk]) -> dict[str, Chunk]:
        """Submits jobs; returns those that were taken by their ids.

        Raises `Unanswered` if none are.
        """
        found: dict[str, Chunk] = {}
        if self._executor is None:
            self._executor = self._make()
        refused = self._submitit.core.utils
        for i in range(0, len(chunks), ARRAY):
            part = chunks[i : i + ARRAY]
            try:
                local = self._launcher == "local"
                with processes.apart(self._executor.folder / STARTED if local else None):
                    jobs = self._executor.submit_array(part)
            except (refused.FailedJobError, refused.FailedSubmissionError, OSError) as error:
                if found:
                    break
                why = processes.last_line(error)
                raise processes.Unanswered(f"the jobs were not taken: {why}") from None
            found |= {job.job_id: chunk for job, chunk in zip(jobs, part, strict=True)}
            self._own |= {job.job_id: job for job in jobs}
        return found

    def _make(self) -> Any:
        chosen, own = self._resources, [path.name for path in self._folders()]
        numbers = [int(name.rpartition("-")[2]) for name in own]
        folder = self._root / f"{self._launcher}-{max(numbers, default=0) + 1}"
        folder.mkdir(parents=True)
        made = self._submitit.AutoExecutor(
            folder, cluster=self._launcher, slurm_max_num_timeout=FOREVER
        )
        made.update_parameters(
            name=f"sumrnn-{self._root.parent.name}",
            timeout_min=FOREVER if self._launcher == "local" else chosen.time,
            cpus_per_task=chosen.cpus_per_task,
            gpus_per_node=chosen.gpus_per_node,
            slurm_array_parallelism=chosen.parallel or ARRAY,
            slurm_partition=chosen.partition,
            slurm_account=chosen.account,
            # What srun takes over from sbatch differs between versions of Slurm.
            slurm_srun_args=(
                [f"--cpus-per-task={chosen.cpus_per_task}"] if chosen.cpus_per_task else None
            ),
            slurm_setup=list(chosen.setup) or None,
            slurm_additional_parameters=chosen.further or None,
        )
        return made

    def earlier(self) -> dict[str, Chunk]:
        """Jobs of earlier starts that have not ended, by their ids."""
        found: dict[str, Chunk] = {}
        for folder in self._folders():
            for job in self._living(folder):
                # A file that was not written whole is none that could be started.
                with contextlib.suppress(Exception):
                    path = folder / f"{job}{SUBMITTED}"
                    chunk = self._submitit.helpers.DelayedSubmission.load(path).function
                    found |= {job: chunk} if isinstance(chunk, Chunk) else {}
        return found

    def _living(self, folder: pathlib.Path) -> dict[str, State]:
        """Jobs of a folder that have not ended."""
        files = {path.name for path in folder.iterdir()}
        names = {name.removesuffix(SUBMITTED) for name in files if name.endswith(SUBMITTED)}
        return self.states([name for name in names if f"{name}{RESULT}" not in files])

    def states(self, jobs: Sequence[str]) -> dict[str, State]:
        """Which of these jobs have not ended."""
        if not jobs:
            return {}
        if self._launcher == "local":
            return {job: "running" for job in jobs if self._lives(job)}
        # The accounting that submitit would ask is not everywhere.
        command = ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
        lines = processes.output([*command, "--format", "%i %T"], 60, needed=True).splitlines()
        queue = dict(line.split(" ", 1) for line in lines if " " in line)
        waiting = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
        return {
            job: "waiting" if queue[job] in waiting else "running" for job in jobs if job in queue
        }

    def _lives(self, job: str) -> bool:
        if job in self._own:
            return not self._own[job].done()
        # Of another start: its process, unless the system gave the number to another one.
        return str(self._root) in processes.output(["ps", "-ww", "-o", "command=", "-p", job], 10)

    def log(self, job: str) -> pathlib.Path | None:
        """Where a job says what went wrong; None if it says nothing, or is of another start."""
        if job not in self._own:
            return None
        paths = self._own[job].paths
        return next(filter(pathlib.Path.is_file, (paths.stderr, paths.folder / STARTED)), None)

    def clear(self) -> None:
        """Removes what jobs have left that have ended."""
        for folder in self._folders():
            if not self._living(folder):
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # Of the other launcher there may be some.
            self._root.rmdir()

    def _folders(self) -> list[pathlib.Path]:
        """Those of this launcher's starts; raises `UserError` if they are behind a link."""
        if self._root.is_symlink():  # They are cleared in the end.
            raise UserError(f"{self._root}: must be a folder, not a link")
        pattern = f"{self._launcher}-*[0-9]"
        return sorted(self._root.glob(pattern)) if self._root.is_dir() else []
