"""What several test modules share: small configs, folders compared, scripts run as people do."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# One compilation cache for all tests, their workers and the processes that they start.
if "SUMRNN_TEST_CACHE" not in os.environ:
    cache = tempfile.mkdtemp(prefix="sumrnn-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["SUMRNN_TEST_CACHE"] = cache
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # Or each thread keeps memory of its own.

import filelock
import jax
import numpy as np
import pytest

from sumrnn.cli import command, signals
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import compiler, mesh
from sumrnn.models import network
from sumrnn.models.initializer import init
from sumrnn.runs import files, recorder, work
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.progress import Progress
from sumrnn.runs.recorder import Row, Spec
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import ExperimentFolder

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 120
"""Time limit of a process."""

initial = jax.jit(init, static_argnums=1)
"""The initial weights of a key and a config, compiled as one function."""
answer = jax.jit(network.logits, static_argnums=1)
"""The logits of weights, by their model and digits, compiled."""

mesh.use_cores(2)  # Two devices for all tests in this process, however many cores there are.


def pytest_configure(config: pytest.Config) -> None:
    """Lets processes that tests start hear SIGINT, which pytest-xdist has its workers ignore."""
    if not hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


STATUS = pathlib.Path("/proc/self/status")
GROWTH = 150 << 10
"""KiB of memory beyond which what was compiled is forgotten."""
enough = 600 << 10


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two processes by default, where pytest-xdist is there: most tests use one core."""
    alone = hasattr(config, "workerinput") or config.option.usepdb
    if not alone and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses, config.option.dist = 2, "loadfile"
        config.option.loadscopereorder = False


def used_memory() -> int:
    """KiB that this process has, 0 where the system does not tell."""
    found = re.search(r"VmRSS:\s*(\d+)", STATUS.read_text()) if STATUS.exists() else None
    return int(found[1]) if found else 0


@pytest.fixture(autouse=True)
def little_memory() -> None:
    """Forgets what was compiled once it is much; it is still in the cache on disk."""
    global enough
    if used_memory() > enough:
        for cache in (mesh._compiled_functions, compiler.functions, compiler.compiled_functions):
            cache.cache_clear()
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        enough = max(600 << 10, used_memory() + GROWTH)


SMALL_TASK = TaskConfig(size=200, length=5, high=3, threshold=8)
# The batches leave no rest: a step that is compiled once is compiled in half the time.
SMALL = Config(SMALL_TASK, ModelConfig(cells=8), TrainConfig(epochs=2, batch_size=48))
SMALL_OPTIONS = (
    *("--size", "200", "--length", "5", "--high", "3", "--threshold", "8"),
    *("--cells", "8", "--epochs", "2", "--batch-size", "48"),
)
"""The command line of `SMALL`."""


def train(
    path: pathlib.Path,
    config: Config = SMALL,
    seed: int = 7,
    until: int = 0,
    every: int = 1,
    keep: int = 1,
) -> RunFolder:
    """Records a run in a folder, from where it is there; stops early after epoch `until`."""
    folder, stopped = RunFolder(path), False

    def watch(seeds: Any, epoch: int, row: Row) -> None:
        nonlocal stopped
        stopped = epoch == until - 1  # The next epoch is still trained.

    survey = folder.survey(config, seed)
    if survey.status == "unfinished":
        spec, compiled = Spec(folder, "sheet", config, seed), mesh.prepare(config, 1)
        options: Any = {"stop": lambda: stopped, "every": every, "keep": keep, "watch": watch}
        with folder.lock():
            recorder.train([spec], survey.epoch, compiled, **options)
    return folder


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file in the folder and below, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def history_of(folder: pathlib.Path) -> list[str]:
    """The lines of history.csv but the wall clock, their last column."""
    lines = (folder / "history.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def results_of(folder: pathlib.Path) -> dict[str, Any]:
    """All that must not depend on where, when and with how many interruptions a run was made."""
    record = json.loads((folder / "config.json").read_text())
    record.pop("sha256")
    record["files"].pop("history.csv", None)  # It has the wall clock, as report.json has.
    kept: dict[str, Any] = {"history.csv": history_of(folder), "config.json": record}
    if (folder / "predictions.npz").exists():  # A run that diverged has none.
        kept["predictions.npz"] = (folder / "predictions.npz").read_bytes()
    if (folder / "report.json").exists():
        kept["report.json"] = json.loads((folder / "report.json").read_text())
        kept["report.json"]["run"].pop("seconds")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    with np.load(newest) as arrays:
        names = set(arrays) - {"history/seconds"}
        return kept | {name: arrays[name].tobytes() for name in sorted(names)}


TRAIN = (sys.executable, ROOT / "scripts" / "train.py")
Done = subprocess.CompletedProcess[str]


def run_script(name: str, *arguments: object, cwd: pathlib.Path, **environment: str) -> Done:
    """Runs scripts/NAME.py in a folder, as a person would."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="session")
def trained() -> tuple[pathlib.Path, Done]:
    """A finished small run, made by the command line, and what it printed.  Do not change it.

    It is made once for all processes of a test run.
    """
    folder = pathlib.Path(os.environ["SUMRNN_TEST_CACHE"], "trained")
    said = folder / "said.json"
    with filelock.FileLock(f"{folder}.lock"):
        if not said.exists():
            folder.mkdir(exist_ok=True)
            done = run_script("train", "--seed", 7, *SMALL_OPTIONS, cwd=folder)
            assert done.returncode == 0, done.stderr
            said.write_text(json.dumps([done.stdout, done.stderr]))
    return folder / "runs" / "sheet-seed7", Done([], 0, *json.loads(said.read_text()))


THREE = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=3))
"""A run that can be interrupted with two checkpoints."""


def finish(path: pathlib.Path, config: Config = SMALL, seed: int = 7) -> RunFolder:
    """Brings a run to its end, however far it is."""
    folder = RunFolder(path)
    if folder.survey(config, seed).status == "unfinished":
        train(path, config, seed)
    return folder


def break_second_moment(folder: RunFolder, config: Config, seed: int, epoch: int) -> None:
    """As after a gradient too large to be squared: every loss is still a number."""
    found = folder.checkpoints.load(config, seed, epoch)
    broken = jax.tree.map(lambda x: np.full_like(x, np.inf), found.state.opt_state[0].nu)
    adam = found.state.opt_state[0]._replace(nu=broken)
    state = found.state._replace(opt_state=(adam, *found.state.opt_state[1:]))
    folder.checkpoints.save(found._replace(state=state), config, seed)


def flip(file: pathlib.Path, position: int, bit: int = 0) -> None:
    """Flips a bit of a file."""
    data = bytearray(file.read_bytes())
    data[position % len(data)] ^= 1 << bit
    file.write_bytes(data)


def reseal(path: pathlib.Path) -> None:
    """Makes config.json prove what there is in its folder, as somebody would who forges a run."""
    file = path / "config.json"
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        content = json.loads(file.read_text())
        content.pop(files.SEAL)
        proven = content["files"].keys() & {entry.name for entry in path.iterdir()}
        content["files"] |= {name: files.digest(path / name) for name in proven}
        file.write_text(files.to_json(content | {files.SEAL: files.seal(content)}))


_CHANGES = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,)}
_RELATIVE = {"os.remove": 1, "os.rmdir": 1}
"""Where Python tells the folder that a name is in."""
_noting: list[Callable[[str, tuple[Any, ...]], None]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _noting and (event == "open" or event in _CHANGES):
        note = _noting.pop()  # What it does itself is not noted.
        try:
            note(event, arguments)
        finally:
            _noting.append(note)


@contextlib.contextmanager
def before_changes(
    folder: pathlib.Path, note: Callable[[str, pathlib.Path], None]
) -> Iterator[None]:
    """Calls `note` before this process changes something in a folder; what it raises, that raises.

    Its arguments are the event: open, os.rename, os.remove, os.mkdir or os.rmdir; and the path.
    """
    if not hasattr(sys, "_sumrnn_hears"):  # A hook stays as long as the process.
        sys.addaudithook(_hear)
        sys._sumrnn_hears = True  # type: ignore[attr-defined]

    def filtered(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            mode = arguments[1]
            paths = arguments[:1] if isinstance(mode, str) and set(mode) & set("wax+") else ()
        elif arguments[_RELATIVE.get(event, 0)] not in (-1, None) and event in _RELATIVE:
            paths = (folder / "removed",)  # Within a folder that is removed.
        else:
            paths = tuple(arguments[i] for i in _CHANGES[event])
        known = [pathlib.Path(os.fsdecode(p)) for p in paths if not isinstance(p, int)]
        if any(path.is_relative_to(folder) for path in known):
            note(event, known[0])

    _noting.append(filtered)
    try:
        yield
    finally:
        _noting.remove(filtered)


def snapshots(
    folder: pathlib.Path, into: pathlib.Path, act: Callable[[], object]
) -> list[pathlib.Path]:
    """What a process could leave that is killed while it acts: copies of a folder.

    They are taken before every change and at the end, with half of the file that is being written;
    those that are alike but for such halves and the lock are one.
    """
    found: dict[str, pathlib.Path] = {}

    def take(event: str = "", path: pathlib.Path = folder) -> None:
        if event == "open" or not folder.exists():
            return  # What is being written is in the copy before it gets its name.
        there = sorted(folder.rglob("*"))
        whole = [e for e in there if not e.name.endswith((files.LOCK, files.TEMPORARY))]
        kept = [(e.relative_to(folder), e.is_file() and e.read_bytes()) for e in whole]
        copy = found.setdefault(repr(kept), into / str(len(found)))
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        if event == "os.rename" and path.is_file():
            half = path.stat().st_size // 2
            (copy / path.relative_to(folder)).write_bytes(path.read_bytes()[:half])

    with before_changes(folder, take):
        act()
    take()
    return list(found.values())


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[str]]:
    """Starts a process whose output is read, and which ends with the test."""

    def start(*command: object, cwd: pathlib.Path, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen([*map(str, command)], cwd=cwd, text=True, **pipes)

        def end() -> None:
            if process.poll() is None:
                process.kill()
            process.communicate()

        request.addfinalizer(end)
        return process

    return start


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Reads what a process says up to a line that begins with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(words):
            return
    raise AssertionError(process.communicate()[1])


def train_experiment(
    path: pathlib.Path, experiment: Experiment, seeds: tuple[int, ...], **options: Any
) -> Progress:
    """Opens an experiment's folder, and makes the runs that are missing; for options see `work`."""
    folder = ExperimentFolder(path)
    warn, anyway = options.pop("warn", lambda line: None), options.pop("anyway", False)
    folder.open(experiment, seeds, anyway=anyway)
    specs = folder.specs(experiment, seeds)
    left = work.missing(specs)
    how = {"checkpoint_every": options.pop("every", None), "keep": options.pop("keep", 1)}
    chosen = work.Options(**how, anyway=anyway, retries=options.pop("retries", 2))
    return work.work(left, chosen, done=len(specs) - len(left), warn=warn, **options)


def small_experiment(epochs: int) -> Experiment:
    """Two conditions of `SMALL` with so many epochs; b has other digits."""
    config = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=epochs))
    other = dataclasses.replace(config, data_seed=1)
    return Experiment("small", "Does it work?", {"a": config, "b": other})


EXPERIMENT = """
import sys
import tests.conftest
from sumrnn.cli import command, declaration, experiment
declaration.find = lambda name: tests.conftest.small_experiment(int(name))
sys.argv[0] = "experiment.py"
command.run(experiment.main)
"""
"""scripts/experiment.py as `python -c`, whose first argument is epochs of `small_experiment`."""


@functools.cache
def load_script(name: str) -> Any:
    """The module that scripts/NAME.py runs."""
    inside = "benchmarks.command" if name == "benchmark" else f"sumrnn.cli.{name}"
    return importlib.import_module(inside)


class Called(NamedTuple):
    """What came of a command line."""

    status: int
    out: str
    err: str


def call(name: str, *arguments: object, cwd: pathlib.Path) -> Called:
    """The same as `run_script`, but within this process, on the devices that it has."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv = [f"{name}.py", *map(str, arguments)]
    heard = {number: signal.getsignal(number) for number in signals.STOPPING}
    with (
        unittest.mock.patch.object(sys, "argv", argv),
        unittest.mock.patch.object(jax.config, "update"),  # Too late for other devices.
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            command.run(load_script(name).main)
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)
    return Called(status, out.getvalue(), err.getvalue())


def refused(name: str, *arguments: object, cwd: pathlib.Path) -> str:
    """What a script says of misuse: one line.  It must change nothing below `cwd`."""
    before = {path: path.is_file() and path.read_bytes() for path in cwd.rglob("*")}
    done = call(name, *arguments, cwd=cwd)
    assert (done.status, done.out) == (2, ""), done
    start, (line,) = f"{name}.py: error: ", done.err.splitlines()
    assert line.startswith(start)
    assert line.isprintable()
    assert {path: path.is_file() and path.read_bytes() for path in cwd.rglob("*")} == before
    return line.removeprefix(start)
