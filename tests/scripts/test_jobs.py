"""experiment.py --launcher: jobs that are processes of this machine, and a Slurm that is not there.

A real Slurm is in tests/slurm.sh.
"""

import contextlib
import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from sumrnn.cli import pool, processes, watch
from sumrnn.cli.jobs import Job, Resources
from sumrnn.cli.pool import Pool, State
from sumrnn.cli.signals import Stop
from sumrnn.errors import UserError
from sumrnn.runs import work
from sumrnn.runs.folder import CHECKPOINTS, CONFIG
from sumrnn.runs.progress import Progress
from sumrnn.runs.work import Options
from sumrnn.runs.writer import RunWriter
from sumrnn.study.folder import RUNS, ExperimentFolder
from sumrnn.study.table import TABLE
from tests.conftest import (
    EXPERIMENT,
    ROOT,
    SECONDS,
    call,
    refused,
    results_of,
    small_experiment,
    train_experiment,
)
from tests.study.test_experiment import TWO

Start = Callable[..., "subprocess.Popen[str]"]
pytest.importorskip("submitit")  # Its import settles what logging writes to.
# --- what is started, with jobs that end as they are told -----------------------------------------


class Machines:
    """A pool whose jobs make runs when a test says so."""

    period = 0.0

    def __init__(self, size: int) -> None:
        self.size, self.living, self.started, self.cleared = size, 0, list[int](), False
        self.acts: list[Callable[[], object]] = []
        """What happens before each look."""

    def submit(self, job: Job, count: int) -> None:
        self.living += count
        self.started.append(count)

    def states(self) -> dict[str, State]:
        if self.acts:
            self.acts.pop(0)()
        return {str(number): "running" for number in range(self.living)}

    def log(self) -> pathlib.Path:
        return pathlib.Path("the log")

    def clear(self) -> None:
        self.cleared = True

    def end(self, path: pathlib.Path, *makes: tuple[str, int]) -> None:
        """Ends every job; before that they make some runs."""
        self.living = 0
        specs = ExperimentFolder(path).specs(TWO, range(3))
        work.work([spec for spec in specs if (spec.name, spec.seed) in makes], Options())

    def die(self, path: pathlib.Path, *takes: tuple[str, int]) -> None:
        """Kills every job; each was in the midst of a run."""
        self.living = 0
        for spec in ExperimentFolder(path).specs(TWO, range(3)):
            if (spec.name, spec.seed) in takes:
                RunWriter(spec.folder).begin(spec.config, spec.seed, spec.name)


ALL = [(name, seed) for name in "ab" for seed in range(3)]


def watched(
    path: pathlib.Path, machines: Machines, retries: int = 1, stop: Stop | None = None
) -> tuple[Progress, list[tuple[int, dict[str, int]]]]:
    """How far the runs come, and what is seen of runs and jobs."""
    folder, seen = ExperimentFolder(path), []
    folder.open(TWO, (0, 1, 2))
    specs = work.missing(folder.specs(TWO, (0, 1, 2)))
    job = Job(str(path), (0, 1, 2), Options(retries=retries))
    ended = watch.watch(
        machines,  # type: ignore[arg-type]
        job,
        specs,
        stop=stop or Stop(),
        done=0,
        view=lambda progress: seen.append((progress.done, dict(progress.jobs))),
    )
    return ended, seen


def test_as_many_jobs_are_started_as_there_may_be_and_their_folder_is_cleared(
    tmp_path: pathlib.Path,
) -> None:
    machines = Machines(4)
    machines.acts = [lambda: None] * 3 + [lambda: machines.end(tmp_path, *ALL)]
    ended, seen = watched(tmp_path, machines)
    assert (ended.done, machines.started, machines.cleared) == (6, [4], True)
    assert seen == [(0, {"running": 4}), (0, {"running": 4}), (6, {})]


def test_runs_whose_jobs_were_killed_are_tried_again_and_then_named(tmp_path: pathlib.Path) -> None:
    machines = Machines(2)
    machines.acts = [
        *(lambda: None, lambda: None),
        *(lambda: machines.die(tmp_path, ("a", 0), ("b", 1)), lambda: None),
        *(lambda: machines.die(tmp_path, ("a", 0)), lambda: None),
        lambda: machines.end(tmp_path, *ALL[1:]),
    ]
    ended, _ = watched(tmp_path, machines)
    assert machines.started == [2, 2, 2]
    told = "its process ended 2 times before a checkpoint"
    assert (ended.done, ended.failures) == (5, {("a", 0): told})
    assert not machines.cleared


def test_jobs_that_end_in_vain_are_not_gone_on_with(tmp_path: pathlib.Path) -> None:
    machines = Machines(5)
    machines.acts = [lambda: machines.end(tmp_path)] * 99
    ended, _ = watched(tmp_path, machines)
    assert machines.started == [5] * 4
    assert ended.failures == dict.fromkeys(ALL, "jobs ended without it; see the log")


def test_a_signal_leaves_jobs_alone(tmp_path: pathlib.Path) -> None:
    machines, stop = Machines(2), Stop()
    machines.acts = [lambda: None] * 3 + [lambda: setattr(stop, "number", 15)]
    ended, _ = watched(tmp_path, machines, stop=stop)
    assert (ended.done, ended.jobs, machines.cleared) == (0, {"running": 2}, False)


def test_what_another_process_has_is_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {ExperimentFolder(tmp_path).run("a", 1).path}
    monkeypatch.setattr(watch.lock, "is_held", held.__contains__)  # type: ignore[attr-defined]
    machines = Machines(9)
    others = [run for run in ALL if run != ("a", 1)]
    machines.acts = [lambda: None, lambda: None, lambda: machines.end(tmp_path, *others)]
    machines.acts += [lambda: None, held.clear, lambda: None]
    machines.acts += [lambda: machines.end(tmp_path, ("a", 1))]
    ended, _ = watched(tmp_path, machines)
    assert (ended.done, machines.started) == (6, [5, 1])


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [
        ((0, 1), 4, [(0,), (1,), (0,), (1,)]),
        ((0, 1, 2, 3, 4), 2, [(0, 1), (2, 3)]),
    ],
)
def test_cores_are_divided_among_jobs(
    cores: tuple[int, ...], count: int, expected: list[tuple[int, ...]]
) -> None:
    assert pool.cut_cores(cores, count) == expected


# --- jobs that are processes ---------------------------------------------------------------------

EPOCHS = 400
"""Of a run that takes a second or two."""
WORKER = "submitit.core._submit"


def begin(start: Start, path: pathlib.Path, *options: object) -> "subprocess.Popen[str]":
    """Starts the launcher on a batch of 2 conditions and 3 seeds."""
    arguments = (EPOCHS, "--seeds", "0:3", "--out", path, "--checkpoint-every", 20, *options)
    return start(sys.executable, "-c", EXPERIMENT, *arguments, cwd=ROOT)


def workers(path: pathlib.Path) -> list[int]:
    """The processes that make runs of a batch."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if WORKER.encode() in words and any(str(path).encode() in word for word in words):
                found.append(int(entry.name))
    return found


def wait_until(happens: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not happens():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def begun(path: pathlib.Path) -> bool:
    """Whether a run is in the midst of its epochs."""
    configs = (path / RUNS).glob(f"*/{CONFIG}")
    return any(
        json.loads(config.read_bytes())["status"] == "unfinished"
        and (config.parent / CHECKPOINTS).exists()
        for config in configs
    )


def contents(path: pathlib.Path) -> dict[str, Any]:
    return {folder.name: results_of(folder) for folder in (path / RUNS).iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of every run, made by this process."""
    path = tmp_path_factory.mktemp("whole") / "batch"
    train_experiment(path, small_experiment(EPOCHS), (0, 1, 2))
    return contents(path)


linux = pytest.mark.skipif(not pathlib.Path("/proc/self/cmdline").exists(), reason="needs /proc")


@linux
@pytest.mark.slow
def test_a_killed_worker_a_preempted_one_and_an_interrupted_launcher_lose_nothing(
    start: Start, tmp_path: pathlib.Path, whole: dict[str, Any]
) -> None:
    path = tmp_path / "batch"
    first = begin(start, path, "--launcher", "local", "--parallel", 2)
    wait_until(lambda: begun(path) and len(workers(path)) == 2, "two workers are at work")
    killed, preempted = sorted(workers(path))
    os.kill(killed, signal.SIGKILL)
    os.kill(preempted, signal.SIGUSR2)
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=SECONDS)
    assert first.returncode == 128 + signal.SIGTERM
    assert re.search(r"terminated with \d of 6 runs done; \d jobs go on, and the same", err)
    again = begin(start, path, "--launcher", "local", "--parallel", 2)
    out, err = again.communicate(timeout=SECONDS)
    assert (again.returncode, err) == (0, "")
    assert "runs 6/6" in out
    assert contents(path) == whole
    assert not (path / pool.FOLDER).exists()


@pytest.mark.slow
def test_several_starts_on_one_folder_divide_the_work(
    start: Start, tmp_path: pathlib.Path, whole: dict[str, Any]
) -> None:
    path = tmp_path / "batch"
    both = [begin(start, path, "--devices", 1) for _ in range(2)]
    said = [process.communicate(timeout=SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert contents(path) == whole
    # The epochs of a run are of one process: nothing was made twice.
    waves = [re.findall(r"epoch 1/.*  (\w)  seeds (\d)", out) for out, _ in said]
    assert sorted(waves[0] + waves[1]) == [(name, str(seed)) for name in "ab" for seed in range(3)]
    assert all(waves)
    with (path / TABLE).open() as table:
        assert [row["status"] for row in csv.DictReader(table)] == ["finished"] * 6


MISUSE = {
    "no Slurm": (("--launcher", "slurm"), "launcher = 'slurm': must be used where Slurm is"),
    "no jobs": (("--launcher", "local", "--parallel", 0), "parallel = 0: must be between 1 and"),
    "no launcher": (("--parallel", 2), "parallel = 2: must be left out without --launcher"),
    "no Slurm's": (
        ("--launcher", "local", "--partition", "gpu"),
        "partition = 'gpu': must be left out without --launcher slurm",
    ),
    "no option": (("--launcher", "slurm", "--sbatch", "a b"), "sbatch = 'a b': must be an option"),
    "two lines": (("--launcher", "slurm", "--setup", "a\nb"), r"setup = 'a\nb': must be one line"),
    "percent": (("--launcher", "slurm", "--out", "100%"), "100%': must be without %"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse_is_told_and_nothing_submitted(
    what: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.shutil, "which", lambda name: None)  # type: ignore[attr-defined]
    options, message = MISUSE[what]
    assert message in refused("experiment", "tiny", *options, cwd=tmp_path)


def test_a_folder_of_jobs_behind_a_link_is_refused(tmp_path: pathlib.Path) -> None:
    """What jobs leave is removed in the end."""
    (tmp_path / "thesis" / "local-1").mkdir(parents=True)
    (tmp_path / "thesis" / "local-1" / "chapter").write_text("years")
    ExperimentFolder(tmp_path / "batch").open(TWO, (0,))
    (tmp_path / "batch" / pool.FOLDER).symlink_to(tmp_path / "thesis")
    jobs, job = Pool("local", tmp_path / "batch", Resources()), Job("", (), Options())
    for look in (jobs.states, jobs.earlier, jobs.clear, lambda: jobs.submit(job, 1)):
        with pytest.raises(UserError, match=r"jobs: must be a folder, not a link"):
            look()
    assert (tmp_path / "thesis" / "local-1" / "chapter").exists()


def test_jobs_import_nothing_from_the_folder_they_are_started_in(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not that of Python')")
    monkeypatch.chdir(tmp_path)
    command, log = [sys.executable, "-c", "import random; print(random.__file__)"], tmp_path / "log"
    with processes.apart(log):
        assert subprocess.run(command, timeout=SECONDS, check=False).returncode == 0
    assert str(tmp_path) not in log.read_text()
    assert log.read_text().endswith("random.py\n")
    assert processes.SAFE not in os.environ


def test_a_command_that_cannot_be_started_is_no_answer() -> None:
    assert processes.output(["/nowhere/squeue"], 5) == ""
    with pytest.raises(processes.Unanswered, match=r"^/nowhere/squeue: No such file"):
        processes.output(["/nowhere/squeue"], 5, needed=True)


def test_a_log_that_is_named_is_there(tmp_path: pathlib.Path) -> None:
    jobs = Pool("local", tmp_path, Resources())
    paths = types.SimpleNamespace(stderr=tmp_path / "7_0_log.err", folder=tmp_path)
    jobs._jobs["7"] = types.SimpleNamespace(paths=paths)
    assert jobs.log() is None
    for name in (pool.STARTED, "7_0_log.err"):
        (tmp_path / name).write_text("Traceback")
        assert jobs.log() == tmp_path / name


def test_without_submitit_it_is_told_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    told = refused("experiment", "tiny", "--launcher", "local", cwd=tmp_path)
    assert told.endswith("python -m pip install 'sumrnn[cluster]' brings it")


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ({"srun": "echo unseen"}, "batch': must be a folder that Slurm's machines see too"),
        ({"sbatch": "echo 'error: no such partition' >&2; exit 1"}, "no such partition"),
    ],
)
def test_what_slurm_does_not_take_is_told(
    programs: dict[str, str], told: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(tmp_path / "bin", monkeypatch, **programs)
    done = call("experiment", "tiny", "--launcher", "slurm", "--out", "batch", cwd=tmp_path)
    assert (done.status, told in done.err) == (2, True), done
    assert not ("srun" in programs and (tmp_path / "batch" / pool.FOLDER).exists())


def slurm(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Makes programs of these names and the shell's words, on the path."""
    path.mkdir()
    for name in ("sbatch", "srun", "squeue", "sacct"):
        (path / name).write_text(f"#!/bin/sh\n{programs.get(name, 'true')}\n")
        (path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")


def test_slurm_is_asked_for_what_was_wished_and_its_queue_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(
        tmp_path / "bin",
        monkeypatch,
        sbatch="echo Submitted batch job 7",
        squeue="printf '7_0 RUNNING\\n7_1 PENDING\\n8 RUNNING\\n'",
    )
    wished = Resources(parallel=3, cpus_per_task=2, time=90, partition="long", sbatch=("mem=4G",))
    jobs, job = Pool("slurm", tmp_path / "batch", wished), Job(str(tmp_path), (0, 1), Options())
    assert jobs.size == 3
    jobs.submit(job, 3)
    (script,) = (tmp_path / "batch" / pool.FOLDER / "slurm-1").glob("*_submission.sh")
    text = script.read_text()
    for line in ("array=0-2%3", "cpus-per-task=2", "time=90", "partition=long", "mem=4G"):
        assert f"#SBATCH --{line}\n" in text
    assert jobs.states() == {"7_0": "running", "7_1": "waiting"}
    assert Pool("slurm", tmp_path / "batch", wished).earlier() == {"7_0": job, "7_1": job}
