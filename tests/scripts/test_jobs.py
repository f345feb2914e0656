"""experiment.py --launcher: jobs that are processes of this machine, and a Slurm that is not there.

A real Slurm is in tests/slurm.sh.
"""

import contextlib
import csv
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sumrnn.cli import jobs, launcher, processes
from sumrnn.cli.jobs import Chunk, Engine, Resources, State
from sumrnn.cli.launcher import Launch
from sumrnn.cli.progress import Counts
from sumrnn.errors import UserError
from sumrnn.runs.folder import CHECKPOINTS, CONFIG, HISTORY
from sumrnn.runs.recorder import Stop
from sumrnn.study import runner
from sumrnn.study.batch import RUNS, BatchFolder
from sumrnn.study.table import TABLE
from tests.conftest import (
    EXPERIMENT,
    ROOT,
    SECONDS,
    call,
    refused,
    results_of,
    small_experiment,
    train,
    wait_for,
)
from tests.study.test_experiment import TWO

Start = Callable[..., "subprocess.Popen[str]"]
# --- the launcher, with jobs that end as they are told -------------------------------------------


class Machines:
    """An engine whose jobs make their runs when a test says so."""

    def __init__(self, batch: BatchFolder) -> None:
        self.batch, self.jobs, self.ended = batch, dict[str, Chunk](), set[str]()
        self.before: dict[str, Chunk] = {}

    def earlier(self) -> dict[str, Chunk]:
        return dict(self.before)

    def submit(self, chunks: Sequence[Chunk]) -> dict[str, Chunk]:
        new = {str(len(self.jobs) + i): chunk for i, chunk in enumerate(chunks)}
        self.jobs |= new
        return new

    def states(self, names: Sequence[str]) -> dict[str, State]:
        return {name: "running" for name in names if name not in self.ended}

    def log(self, name: str) -> pathlib.Path:
        return pathlib.Path(f"log of {name}")

    def end(self, name: str, make: bool = True) -> None:
        """Ends a job, with its runs or without them."""
        self.ended.add(name)
        if make:
            chunk = self.jobs[name]
            runner.run(self.batch, TWO.only(chunk.condition), chunk.seeds, Stop())


def launch(path: pathlib.Path, size: int = 2, **options: Any) -> tuple[Launch, Machines]:
    batch = BatchFolder(path)
    batch.open(TWO, (0, 1, 2))
    machines = Machines(batch)
    machines.before = options.pop("before", {})
    missing = runner.missing(batch, TWO, (0, 1, 2))
    given = {"slots": None, "retries": 1} | options
    return Launch(batch, machines, missing, size, Chunk(str(path)), **given), machines  # type: ignore[arg-type]


def look(launched: Launch) -> tuple[bool, Counts]:
    counts = Counts(6)
    return launched.look(counts), counts


def test_missing_runs_are_cut_into_chunks_of_one_condition(tmp_path: pathlib.Path) -> None:
    launched, machines = launch(tmp_path)
    goes_on, counts = look(launched)
    assert goes_on
    assert (counts.running, counts.waiting, counts.jobs) == (0, 6, 4)
    cut = [(chunk.condition, chunk.seeds) for chunk in machines.jobs.values()]
    assert cut == [("a", (0, 1)), ("a", (2,)), ("b", (0, 1)), ("b", (2,))]
    goes_on, counts = look(launched)
    assert goes_on
    assert (counts.running, counts.waiting, counts.done, counts.jobs) == (6, 0, 0, 4)
    for name in machines.jobs:
        machines.end(name)
    goes_on, counts = look(launched)
    assert not goes_on
    assert (counts.running, counts.waiting, counts.done, counts.jobs) == (0, 0, 6, 0)


def test_a_run_whose_job_ended_without_it_is_tried_again_alone_and_then_named(
    tmp_path: pathlib.Path,
) -> None:
    launched, machines = launch(tmp_path, size=3)
    look(launched)
    machines.end("1")
    machines.end("0", make=False)
    goes_on, counts = look(launched)
    assert goes_on
    assert (counts.done, counts.waiting) == (3, 3)
    assert [machines.jobs[name].seeds for name in "234"] == [(0,), (1,), (2,)]
    machines.end("2")
    machines.end("3", make=False)
    machines.end("4")
    goes_on, counts = look(launched)
    assert not goes_on
    assert (counts.done, counts.failed) == (5, 1)
    assert launched.failed() == {("a", 1): pathlib.Path("log of 3")}


def test_job_after_job_in_vain_is_not_gone_on_with(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "VAIN", 7)
    launched, machines = launch(tmp_path, size=1, retries=9)
    look(launched)
    for name in list(machines.jobs):
        machines.end(name, make=False)
    look(launched)
    machines.end("6")
    for name in "789":
        machines.end(name, make=False)
    look(launched)
    for name in list(machines.jobs)[10:]:
        machines.end(name, make=False)
    with pytest.raises(UserError, match=r"7 jobs after each other .* see log of 14"):
        look(launched)


def test_what_jobs_of_an_earlier_start_have_is_not_submitted_again(tmp_path: pathlib.Path) -> None:
    before = {"9": Chunk(str(tmp_path), condition="a", seeds=(0, 2))}
    launched, machines = launch(tmp_path, before=before)
    look(launched)
    cut = [(chunk.condition, chunk.seeds) for chunk in machines.jobs.values()]
    assert cut == [("a", (1,)), ("b", (0, 1)), ("b", (2,))]


def test_what_another_process_has_is_waited_for_and_then_taken(
    start: Start, tmp_path: pathlib.Path
) -> None:
    hold = "import pathlib, sys, time; from sumrnn.runs import locks\n"
    hold += "with locks.lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(999)"
    launched, machines = launch(tmp_path, size=3)
    held = BatchFolder(tmp_path).run("a", 1).path
    holder = start(sys.executable, "-c", hold, held, cwd=tmp_path)
    wait_for(holder, "held")
    goes_on, counts = look(launched)
    assert goes_on
    assert (counts.elsewhere, counts.waiting) == (1, 5)
    assert [chunk.seeds for chunk in machines.jobs.values()] == [(0, 2), (0, 1, 2)]
    holder.kill()
    holder.wait(timeout=SECONDS)
    look(launched)
    assert machines.jobs["2"].seeds == (1,)


@pytest.mark.parametrize(
    ("cores", "many", "expected"),
    [
        ((0, 1), 1, [(0, 1)]),
        ((4, 6), 2, [(4,), (6,)]),
        ((0, 1), 4, [(0,), (1,), (0,), (1,)]),
        ((0, 1, 2, 3, 4), 2, [(0, 1), (2, 3)]),
    ],
)
def test_cores_are_divided_among_jobs(
    cores: tuple[int, ...], many: int, expected: list[tuple[int, ...]]
) -> None:
    assert launcher.slots(cores, many) == expected


def test_on_this_machine_no_more_jobs_run_than_there_are_slots(tmp_path: pathlib.Path) -> None:
    launched, machines = launch(tmp_path, size=1, slots=[(0,), (1,)])
    look(launched)
    assert [chunk.cores for chunk in machines.jobs.values()] == [(0,), (1,)]
    machines.end("1")
    look(launched)
    assert [chunk.cores for chunk in machines.jobs.values()] == [(0,), (1,), (1,)]


def test_a_chunk_can_be_handed_on_in_the_midst_of_its_work() -> None:
    chunk = Chunk("/there", condition="a", seeds=(1, 2), cores=(0,))
    assert pickle.loads(pickle.dumps(chunk.checkpoint().function)) == chunk


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of every run, made by this process."""
    path = tmp_path_factory.mktemp("whole") / "batch"
    batch, experiment = BatchFolder(path), small_experiment(EPOCHS)
    batch.open(experiment, (0, 1, 2))
    runner.run(batch, experiment, (0, 1, 2), Stop())
    return contents(path)


def contents(path: pathlib.Path) -> dict[str, Any]:
    return {folder.name: results_of(folder) for folder in (path / RUNS).iterdir()}


linux = pytest.mark.skipif(not pathlib.Path("/proc/self/cmdline").exists(), reason="needs /proc")


@linux
@pytest.mark.slow
def test_a_killed_worker_a_preempted_one_and_an_interrupted_launcher_lose_nothing(
    start: Start, tmp_path: pathlib.Path, whole: dict[str, Any]
) -> None:
    path = tmp_path / "batch"
    first = begin(start, path, "--launcher", "local", "--chunk", 3, "--parallel", 2)
    wait_until(lambda: begun(path) and len(workers(path)) == 2, "two workers are at work")
    killed, preempted = sorted(workers(path))
    os.kill(killed, signal.SIGKILL)
    os.kill(preempted, signal.SIGUSR2)
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=SECONDS)
    assert first.returncode == 128 + signal.SIGTERM
    assert re.search(r"terminated with \d of 6 runs done; \d jobs go on, and the same", err)
    again = begin(start, path, "--launcher", "local", "--chunk", 3, "--parallel", 2)
    out, err = again.communicate(timeout=SECONDS)
    assert (again.returncode, err) == (0, "")
    assert "runs 6/6" in out
    assert contents(path) == whole
    assert not (path / jobs.FOLDER).exists()


@pytest.mark.slow
def test_a_seed_that_fails_is_named_with_its_log_and_the_others_end(
    start: Start, tmp_path: pathlib.Path, whole: dict[str, Any]
) -> None:
    path, experiment = tmp_path / "batch", small_experiment(EPOCHS)
    BatchFolder(path).open(experiment, (0, 1, 2))
    folder = train(BatchFolder(path).run("a", 1).path, experiment.conditions["a"], 1, until=2)
    (folder.path / HISTORY).unlink()
    (folder.path / HISTORY / "in the way").mkdir(parents=True)
    launched = begin(start, path, "--launcher", "local", "--chunk", 3, "--retries", 1)
    _, err = launched.communicate(timeout=SECONDS)
    assert launched.returncode == 1
    warned, told = err.splitlines()
    assert told == "experiment.py: error: 1 of 6 runs failed"
    log = pathlib.Path(warned.removeprefix("experiment.py: warning: a with seed 1 failed; see "))
    assert f"{folder.path / HISTORY}" in log.read_text()
    shutil.rmtree(folder.path)
    assert contents(path) == {name: whole[name] for name in whole if name != "a-seed1"}


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
    "unknown launcher": (("--launcher", "sge"), "invalid choice 'sge' for argument '--launcher'"),
    "no Slurm": (("--launcher", "slurm"), "launcher = 'slurm': must be used where Slurm is"),
    "no runs": (("--launcher", "local", "--chunk", 0), "chunk = 0: must be between 1 and"),
    "no jobs": (("--launcher", "local", "--parallel", 0), "parallel = 0: must be between 1 and"),
    "no launcher": (("--chunk", 2), "chunk = 2: must be left out without --launcher"),
    "no Slurm's": (
        ("--launcher", "local", "--partition", "gpu"),
        "partition = 'gpu': must be left out without --launcher slurm",
    ),
    "no option": (("--launcher", "slurm", "--sbatch", "a b"), "sbatch = 'a b': must be an option"),
    "percent": (("--launcher", "slurm", "--out", "100%"), "100%': must be without %"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse_is_told_and_nothing_submitted(
    what: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.shutil, "which", lambda name: None)  # type: ignore[attr-defined]
    options, message = MISUSE[what]
    assert message in refused("experiment", "tiny", *options, cwd=tmp_path)


def test_a_folder_of_jobs_behind_a_link_is_refused(tmp_path: pathlib.Path) -> None:
    """What jobs leave is removed in the end."""
    (tmp_path / "thesis" / "local-1").mkdir(parents=True)
    (tmp_path / "thesis" / "local-1" / "chapter").write_text("years")
    BatchFolder(tmp_path / "batch").open(TWO, (0,))
    (tmp_path / "batch" / jobs.FOLDER).symlink_to(tmp_path / "thesis")
    engine = Engine("local", tmp_path / "batch", Resources())
    for look in (engine.check, engine.earlier, engine.clear, lambda: engine.submit([Chunk("")])):
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


def test_a_log_that_is_named_is_there(tmp_path: pathlib.Path) -> None:
    engine = Engine("local", tmp_path, Resources())
    paths = types.SimpleNamespace(stderr=tmp_path / "7_0_log.err", folder=tmp_path)
    engine._own["7"] = types.SimpleNamespace(paths=paths)
    assert engine.log("7") is engine.log("8") is None
    for name in (jobs.STARTED, "7_0_log.err"):
        (tmp_path / name).write_text("Traceback")
        assert engine.log("7") == tmp_path / name


def test_without_submitit_it_is_told_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    told = refused("experiment", "tiny", "--launcher", "local", cwd=tmp_path)
    assert told.endswith("python -m pip install 'sumrnn[cluster]' brings it")


def test_a_folder_that_slurm_s_machines_do_not_see_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(tmp_path / "bin", monkeypatch, srun="echo unseen")
    done = call("experiment", "tiny", "--launcher", "slurm", "--out", "batch", cwd=tmp_path)
    assert done.status == 2
    assert "batch': must be a folder that Slurm's machines see too" in done.err
    assert not (tmp_path / "batch" / jobs.FOLDER).exists()


def test_what_slurm_says_of_jobs_that_it_does_not_take_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(tmp_path / "bin", monkeypatch, sbatch="echo 'error: no such partition' >&2; exit 1")
    done = call("experiment", "tiny", "--launcher", "slurm", "--out", "batch", cwd=tmp_path)
    assert (done.status, "no such partition" in done.err) == (2, True), done


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
    engine = Engine("slurm", tmp_path / "batch", wished)
    cut = jobs.chunks([("a", 0), ("a", 1), ("b", 0)], 1, Chunk(str(tmp_path)))
    assert list(engine.submit(cut)) == ["7_0", "7_1", "7_2"]
    (script,) = (tmp_path / "batch" / jobs.FOLDER / "slurm-1").glob("*_submission.sh")
    text = script.read_text()
    for line in ("array=0-2%3", "cpus-per-task=2", "time=90", "partition=long", "mem=4G"):
        assert f"#SBATCH --{line}\n" in text
    assert engine.states(["7_0", "7_1", "7_2"]) == {"7_0": "running", "7_1": "waiting"}
    assert Engine("slurm", tmp_path / "batch", wished).earlier() == {"7_0": cut[0], "7_1": cut[1]}
