"""Jobs: workers on the runs of an experiment, in processes of this machine or of Slurm's.

They are started by submitit, and go on without the process that has started them.  What they need
is in jobs/LAUNCHER-NUMBER of the experiment's folder, with their logs; a job is a pickled `Job`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import signal
from typing import TYPE_CHECKING, Annotated, Literal

from sumrnn import fields
from sumrnn.cli import signals
from sumrnn.cli.command import Text
from sumrnn.errors import require
from sumrnn.fields import Range

if TYPE_CHECKING:
    import submitit

    from sumrnn.runs.progress import Progress
    from sumrnn.runs.work import Options

RESERVED = ("array", "error", "output", "parsable", "quiet", "signal", "test-only", "wait")
"""Options of sbatch that jobs cannot do without, or not with."""
Launcher = Literal["local", "slurm"]
Count = Annotated[int, Range(1, 10**6)]
PER_GPU = 32
"""Runs that a GPU is given at a time, unless it is said how many."""


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a job may use; all but the first are Slurm's own words."""

    parallel: Count | None = None
    """Jobs; None: on this machine one per core, else one for each run, at most 1,000."""
    gpus_per_node: Count | None = None
    """GPUs of a job; None: none."""
    cpus_per_task: Count | None = None
    """Cores of a job; None: Slurm's default."""
    time: Count = 240
    """Minutes after which Slurm stops a job; it is started again, and goes on."""
    partition: Text | None = None
    """Slurm's partition."""
    account: Text | None = None
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
            free = text.partition("=")[0] not in RESERVED
            require(
                free, "sbatch", text, f"an option that is not set anyway ({', '.join(RESERVED)})"
            )
        for name in ("partition", "account", "setup", "sbatch"):
            values = getattr(self, name) or ()
            for text in (values,) if isinstance(values, str) else values:
                require(text.isprintable(), name, text, "one line of text")

    @property
    def further(self) -> dict[str, str | bool]:
        """The further words by name; True for one without a value."""
        parts = (text.partition("=") for text in self.sbatch)
        return {name: value if sign else True for name, sign, value in parts}


@dataclasses.dataclass(frozen=True)
class Job:
    """A worker on the runs of an experiment; submitit calls it, and its `checkpoint` to stop it."""

    folder: str
    """Of the experiment, absolute."""
    seeds: tuple[int, ...]
    options: Options
    devices: int | None = None
    cores: tuple[int, ...] = ()
    """Of this machine that it may use; all if empty."""

    def __call__(self) -> None:
        """Makes runs that are missing until there are none that it may take."""
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        # Only now: XLA has as many threads as it sees cores.
        from sumrnn.cli import console, progress
        from sumrnn.devices import mesh
        from sumrnn.runs import work
        from sumrnn.study.folder import ExperimentFolder

        mesh.use_cores(self.devices)
        folder = ExperimentFolder(pathlib.Path(self.folder))
        experiment = folder.read().experiment
        folder.check(experiment, anyway=self.options.anyway, anywhere=True)
        failures: dict[tuple[str, int], str] = {}
        specs = work.missing(folder.specs(experiment, self.seeds), failures)

        def run(stop: signals.Stop) -> Progress:
            with progress.of_experiment() as view:
                return work.work(specs, self.options, stop, view=view, warn=console.warn)

        for (name, seed), why in (failures | signals.attend(run).failures).items():
            console.warn(f"{name} with seed {seed} failed; {why}")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Lets the work end after its epoch; returns what goes on."""
        from submitit.helpers import DelayedSubmission

        signals.end_well(signal.SIGTERM)
        return DelayedSubmission(self)
