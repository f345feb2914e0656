"""The jobs of an experiment: started by submitit, here or by Slurm, and found again later."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import getpass
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from typing import Any, Literal

from sumrnn.cli import processes
from sumrnn.cli.jobs import Job, Launcher, Resources
from sumrnn.cli.processes import Unanswered
from sumrnn.devices import machine
from sumrnn.errors import UserError, invalid, require

FOLDER = "jobs"
"""Of an experiment."""
SUBMITTED, RESULT = "_submitted.pkl", "_0_result.pkl"
"""What submitit leaves of each job, after its id."""
STARTED = "started.log"
"""What jobs of this machine say before they have logs of their own."""
MAX_JOBS = 1_000
"""Jobs of an array, as many as Slurm takes unless it is told otherwise (MaxArraySize)."""
FOREVER = 10**6
"""Minutes, and times that a job is started again because its time was over."""

State = Literal["running", "waiting"]


class Pool:
    """The jobs of an experiment, of this start and of earlier ones.

    Args:
      launcher: what starts them.
      folder: of the experiment.
      resources: what each may use.
      slots: of this machine, the cores of each of the jobs that run at a time; None: they are
        Slurm's.
    """

    def __init__(
        self,
        launcher: Launcher,
        folder: pathlib.Path,
        resources: Resources,
        slots: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        import submitit

        self._launcher, self._resources, self._slots = launcher, resources, slots
        self._root = folder.absolute() / FOLDER
        self._jobs: dict[str, Any] = {}
        """Those of this start, by their ids."""
        self._executor: Any = None
        self._submitit = submitit

    @property
    def size(self) -> int:
        """The most jobs at a time."""
        return len(self._slots) if self._slots else self._resources.parallel or MAX_JOBS

    @property
    def period(self) -> float:
        """Seconds between looks at the jobs."""
        return 0.5 if self._launcher == "local" else 5.0

    def check_seen(self) -> None:
        """Raises `UserError` if the machines of the jobs do not see the experiment's folder."""
        if self._launcher == "local":
            return
        where, chosen = self._root.parent, self._resources
        words = {"partition": chosen.partition, "account": chosen.account, **chosen.further}
        options = [f"--{name}={value}" for name, value in words.items() if isinstance(value, str)]
        test = f"test -d {shlex.quote(str(where))} && echo seen || echo unseen"
        command = ["srun", "--quiet", "--immediate=10", "--ntasks=1", "--time=1", *options]
        answer = processes.output([*command, "sh", "-c", test], 20)
        # No answer: all machines are busy, and the jobs will tell.
        require("unseen" not in answer, "out", str(where), "a folder that Slurm's machines see too")

    def submit(self, job: Job, count: int) -> None:
        """Starts so many jobs, each with cores of its own where this machine has them.

        Raises `Unanswered` if they are not taken.
        """
        copies = [job] * count
        if self._slots:
            used = collections.Counter(other.cores for other in self.earlier().values())
            bound = machine.is_bound_to_cores()  # If not, other containers may have the same cores.
            for i in range(count if bound else 0):
                cores = min(self._slots, key=lambda slot: used[slot])
                used[cores] += 1
                copies[i] = dataclasses.replace(job, cores=cores)
        if self._executor is None:
            self._executor = self._make()
        refused = self._submitit.core.utils
        try:
            local = self._launcher == "local"
            with processes.apart(self._executor.folder / STARTED if local else None):
                submitted = self._executor.submit_array(copies)
        except (refused.FailedJobError, refused.FailedSubmissionError, OSError) as error:
            why = processes.last_line(error)
            raise Unanswered(f"the jobs were not taken: {why}") from None
        self._jobs |= {job.job_id: job for job in submitted}

    def _make(self) -> Any:
        chosen = self._resources
        numbers = [int(path.name.rpartition("-")[2]) for path in self._folders()]
        folder = self._root / f"{self._launcher}-{max(numbers, default=0) + 1}"
        folder.mkdir(parents=True)
        executor = self._submitit.AutoExecutor(
            folder, cluster=self._launcher, slurm_max_num_timeout=FOREVER
        )
        executor.update_parameters(
            name=f"sumrnn-{self._root.parent.name}",
            timeout_min=FOREVER if self._launcher == "local" else chosen.time,
            cpus_per_task=chosen.cpus_per_task,
            gpus_per_node=chosen.gpus_per_node,
            slurm_array_parallelism=MAX_JOBS,
            slurm_partition=chosen.partition,
            slurm_account=chosen.account,
            # What srun takes over from sbatch differs between versions of Slurm.
            slurm_srun_args=(
                [f"--cpus-per-task={chosen.cpus_per_task}"] if chosen.cpus_per_task else None
            ),
            slurm_setup=list(chosen.setup) or None,
            slurm_additional_parameters=chosen.further or None,
        )
        return executor

    def earlier(self) -> dict[str, Job]:
        """Jobs that have not ended, of this start and of earlier ones, by their ids."""
        jobs: dict[str, Job] = {}
        for folder in self._folders():
            for name in self._living(folder):
                # A file that was not written whole is none that could be started.
                with contextlib.suppress(Exception):
                    path = folder / f"{name}{SUBMITTED}"
                    job = self._submitit.helpers.DelayedSubmission.load(path).function
                    jobs |= {name: job} if isinstance(job, Job) else {}
        return jobs

    def states(self) -> dict[str, State]:
        """Jobs that have not ended; raises `Unanswered` if Slurm does not tell."""
        return {
            name: state for path in self._folders() for name, state in self._living(path).items()
        }

    def _living(self, folder: pathlib.Path) -> dict[str, State]:
        """Jobs of a folder that have not ended."""
        with contextlib.suppress(FileNotFoundError):  # Another start may just have cleared it.
            return self._states({path.name for path in folder.iterdir()})
        return {}

    def _states(self, files: set[str]) -> dict[str, State]:
        """Jobs that have not ended, of those whose files these are."""
        names = {name.removesuffix(SUBMITTED) for name in files if name.endswith(SUBMITTED)}
        names = {name for name in names if f"{name}{RESULT}" not in files}
        if not names:
            return {}
        if self._launcher == "local":
            return {name: "running" for name in names if self._lives(name)}
        # The accounting that submitit would ask is not everywhere.
        command = ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
        lines = processes.output([*command, "--format", "%i %T"], 60, needed=True).splitlines()
        queue = dict(line.split(" ", 1) for line in lines if " " in line)
        waiting = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
        return {
            name: "waiting" if queue[name] in waiting else "running"
            for name in names & queue.keys()
        }

    def _lives(self, name: str) -> bool:
        if name in self._jobs:
            return not self._jobs[name].done()
        # Of another start: its process, unless the system gave the number to another one.
        return str(self._root) in processes.output(["ps", "-ww", "-o", "command=", "-p", name], 10)

    def log(self) -> pathlib.Path | None:
        """Where the newest job of this start that says anything does; None if none does."""
        for job in reversed(list(self._jobs.values())):
            for path in (job.paths.stderr, job.paths.folder / STARTED):
                if path.is_file():
                    return pathlib.Path(path)
        return None

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


def check(launcher: Launcher, folder: pathlib.Path) -> None:
    """Raises `UserError` unless jobs can be submitted here for an experiment in a folder."""
    require(
        "%" not in str(folder), "out", str(folder), "without %, which stands for a job's number"
    )
    for name in ("sbatch", "srun", "squeue") if launcher == "slurm" else ():
        if shutil.which(name) is None:
            raise invalid("launcher", "slurm", f"used where Slurm is: there is no {name} here")


def slots(parallel: int | None) -> list[tuple[int, ...]]:
    """The cores of each of the jobs that run on this machine at a time.

    Raises `UserError` where it has GPUs, which submitit would hide: one process uses them all.
    """
    from sumrnn.devices import mesh

    allowed = "left out where there are GPUs, or with JAX_PLATFORMS=cpu"
    require(mesh.all_devices()[0].platform == "cpu", "launcher", "local", allowed)
    return cut_cores(machine.core_numbers(), parallel or machine.core_count())


def cut_cores(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Divides cores among so many jobs at a time, which share them if there are too few."""
    if count >= len(cores):
        return [(cores[i % len(cores)],) for i in range(count)]
    size = len(cores) // count
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(count)]
