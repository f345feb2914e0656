"""Disks that are full, read-only or odd, links, and folders of two processes, as real processes.

Whatever happens ends in one line, and nothing half-written is taken for whole.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from sumrnn import batch, checkpoint, files, recorder, report, runs
from sumrnn.signals import Stop
from tests.conftest import ROOT, SECONDS, SMALL, SMALL_OPTIONS, files_of, results_of

SEED = 7
TRAIN = ("train", "--seed", SEED, *SMALL_OPTIONS, "--checkpoint-every", 1)
Trained = tuple[pathlib.Path, "subprocess.CompletedProcess[str]"]
Done = "subprocess.CompletedProcess[str]"
Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., Done]

INSIDE = """
mount -t tmpfs -o size="$SIZE" none "$DISK" || exit 99
if [ -n "$CONTENT" ]; then cp -a "$CONTENT" "$DISK/run"; fi
if [ "$BALLAST" -gt 0 ]; then head -c "$BALLAST" /dev/zero > "$DISK/ballast"; fi
if [ -n "$READONLY" ]; then mount -o remount,ro "$DISK"; fi
"$@"
status=$?
rm -f "$DISK/ballast"
if [ -z "$READONLY" ]; then cp -a "$DISK/." "$AFTER"; fi
exit $status
"""
"""Runs a command that sees a small disk of its own at $DISK, and copies its content to $AFTER."""


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts scripts/NAME.py."""
    running: list[subprocess.Popen[str]] = []

    def start(
        name: str,
        *arguments: object,
        cwd: pathlib.Path,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*prefix, sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def run(start: Start) -> Run:
    """Runs a script to its end."""

    def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
        process = start(*arguments, **options)
        output, errors = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture
def disk(run: Run, tmp_path: pathlib.Path) -> Run:
    """Runs a script that has a small disk at DISK, whose content is in after/ afterwards."""
    place, after = tmp_path / "disk", tmp_path / "after"
    place.mkdir()
    after.mkdir()
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    inside = ("unshare", "--map-root-user", "--mount", "sh", "-c", INSIDE, "sh")

    def on_disk(
        *arguments: object,
        size: str,
        ballast: int = 0,
        content: pathlib.Path | None = None,
        readonly: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        env = {
            "SIZE": size,
            "DISK": str(place),
            "AFTER": str(after),
            "BALLAST": str(ballast),
            "CONTENT": str(content or ""),
            "READONLY": "yes" if readonly else "",
        }
        done = run(*arguments, cwd=tmp_path, prefix=inside, env=env)
        if done.returncode == 99 or done.stderr.startswith("unshare:"):
            pytest.skip("needs the right to mount a disk in a namespace")
        return done

    return on_disk


def assert_one_line(done: Done, status: int, words: str = "") -> None:
    assert done.returncode == status, done.stderr
    assert re.fullmatch(rf"\w+\.py: error: [^\n]*{words}[^\n]*\n", done.stderr), done.stderr


def finish(path: pathlib.Path, trained: Trained) -> None:
    """Continues a run here, and compares it with one that nothing disturbed."""
    status, epoch, wrong = runs.survey(path, SMALL, SEED)
    assert wrong == []
    if status == "unfinished":
        for _ in recorder.record({SEED: path}, {SEED: epoch}, SMALL, "sheet", Stop()):
            pass
    report.write(path)
    assert results_of(path) == results_of(trained[0])


# A checkpoint takes 68 KiB of a disk, all else before the report 16, the report 400.
DISKS = {
    "no room at all": ("8k", 8192),
    "room for the config": ("12k", 0),
    "room for half a checkpoint": ("40k", 0),
    "room for one checkpoint": ("100k", 0),
    "room for two checkpoints": ("140k", 0),
    "room for a history": ("144k", 0),
    "room for predictions": ("148k", 0),
    "room for half a report": ("400k", 0),
}
USUAL = (
    "no room at all",
    "room for one checkpoint",
    "room for predictions",
    "room for half a report",
)
BY_SIZE = [
    pytest.param(name, marks=() if name in USUAL else pytest.mark.slow, id=name) for name in DISKS
]


@pytest.mark.parametrize("room", BY_SIZE)
def test_a_full_disk_is_told_and_the_run_continues_elsewhere(
    room: str, disk: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    size, ballast = DISKS[room]
    done = disk(*TRAIN, "--out", tmp_path / "disk" / "run", size=size, ballast=ballast)
    assert_one_line(done, 1, "No space left on device")
    finish(tmp_path / "after" / "run", trained)


LIMITS = {"config": "1", "checkpoint": "8", "report": "128"}
"""By what is larger: units of 512 bytes."""


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_on_the_size_of_files_is_told_and_the_run_continues_without(
    name: str, run: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    # In the shell: between fork and exec, Python has no place in a process with threads.
    prefix = ("sh", "-c", 'ulimit -f "$0" && exec "$@"', LIMITS[name])
    path = tmp_path / "run"
    env = {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # Which may be larger.
    done = run(*TRAIN, "--out", path, cwd=tmp_path, prefix=prefix, env=env)
    assert_one_line(done, 1, "(File|file) too large")
    finish(path, trained)


@pytest.mark.slow
def test_a_batch_on_a_full_disk_continues_elsewhere(
    disk: Run, run: Run, tmp_path: pathlib.Path
) -> None:
    options = ("experiment", "tiny", "--seeds", "0:2", "--devices", 2, "--checkpoint-every", 1)
    done = disk(*options, "--out", tmp_path / "disk" / "run", size="400k")
    assert_one_line(done, 1, "No space left on device")
    paths = tmp_path / "after" / "run", tmp_path / "whole"
    for path in paths:
        done = run(*options, "--out", path, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    for found in paths[1].rglob(runs.PREDICTIONS):
        again = paths[0] / found.relative_to(paths[1])
        assert again.read_bytes() == found.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze", "run"),
        (*TRAIN, "--out", "new"),
        pytest.param((*TRAIN, "--out", "run", "--overwrite"), marks=pytest.mark.slow),
        pytest.param(("train", "--resume", "--out", "run"), marks=pytest.mark.slow),
        pytest.param(("experiment", "tiny", "--out", "new"), marks=pytest.mark.slow),
    ],
    ids=lambda arguments: " ".join(map(str, (arguments[0], *arguments[-2:]))),
)
def test_a_read_only_disk_is_told(
    arguments: tuple[str, ...], disk: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    *options, folder = (
        tmp_path / "disk" / word if word in ("run", "new") else word for word in arguments
    )
    done = disk(*options, folder, size="4m", content=trained[0], readonly=True)
    assert_one_line(done, 2, "must be a folder that can be written .Read-only file system.")


CASES = {
    "a new run where nothing may be made": (0o500, (*TRAIN, "--out", "locked/new"), 2),
    "a run that may not be looked at": (0o000, ("train", "--resume", "--out", "locked"), 2),
    "a report of a run that may not be looked at": (0o000, ("analyze", "locked"), 2),
    "a report that may not be written": (0o500, ("analyze", "locked"), 2),
    "a batch where nothing may be made": (
        0o500,
        ("experiment", "tiny", "--out", "locked/new"),
        2,
    ),
}
SLOW = ("a report that may not be written", "a batch where nothing may be made")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in SLOW else (), id=case) for case in CASES],
)
def test_a_folder_without_permission_is_told(
    case: str, run: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    mode, arguments, status = CASES[case]
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # Whom no mode keeps out, unless it gives that right up.
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv, as root")
        prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "locked"))
    path.chmod(mode)
    try:
        done = run(*arguments, cwd=tmp_path, prefix=prefix)
    finally:
        path.chmod(0o700)
    if done.stderr.startswith("setpriv:"):
        pytest.skip("needs the right to give rights up")
    assert_one_line(done, status, "Permission denied")
    assert results_of(path) == results_of(trained[0])


@pytest.mark.parametrize("target", ["nowhere", "link"], ids=["to nowhere", "to itself"])
def test_a_link_that_leads_nowhere_is_no_run_folder(
    target: str, run: Run, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "link").symlink_to(target)
    done = run(*TRAIN, "--out", "link", cwd=tmp_path)
    assert_one_line(done, 2, "out = 'link': must be a folder that can be written")
    assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(words):
            return
    raise AssertionError(process.communicate()[1])


def test_a_killed_process_leaves_a_folder_that_continues_through_a_link(
    start: Start, run: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    path, link = tmp_path / "real", tmp_path / "link"
    path.mkdir()
    link.symlink_to("real")
    killed = start(*TRAIN, "--out", link, cwd=tmp_path)
    wait_for(killed, "epoch  1/2")
    killed.kill()
    killed.communicate(timeout=SECONDS)
    assert (path / files.LOCK).exists()
    done = run("train", "--resume", "--out", link, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert link.readlink() == pathlib.Path("real")
    assert results_of(path) == results_of(trained[0])


def linked(trained: Trained, tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A run whose files are links to those of a run outside of it, and that one."""
    outside = pathlib.Path(shutil.copytree(trained[0], tmp_path / "outside"))
    path = tmp_path / "run"
    path.mkdir()
    for entry in runs.ENTRIES:
        (path / entry).symlink_to(outside / entry)
    return path, outside


def test_overwriting_does_not_follow_links(
    run: Run, trained: Trained, tmp_path: pathlib.Path
) -> None:
    path, outside = linked(trained, tmp_path)
    before = files_of(outside)
    done = run(*TRAIN, "--out", path, "--overwrite", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(outside) == before
    assert not any(file.is_symlink() for file in path.rglob("*"))
    assert results_of(path) == results_of(trained[0])


@pytest.mark.parametrize("entry", [*runs.ENTRIES, files.LOCK, f"{runs.CHECKPOINTS}/2"])
def test_resuming_does_not_write_through_links(
    entry: str, trained: Trained, tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
    outside = pathlib.Path(shutil.copytree(trained[0], tmp_path / "outside"))
    (outside / files.LOCK).write_text("not empty")
    (outside / runs.FIGURES / "confusion.png").write_text("not what a report has")
    files.remove(path / entry)
    (path / entry).symlink_to(outside / entry)
    if entry != files.SUMS:  # Not finished, so that there is something to do.
        (path / files.SUMS).unlink()
    before = files_of(outside)
    if entry in (runs.CHECKPOINTS, files.LOCK):
        with pytest.raises(files.RunError) as caught:
            finish(path, trained)
        assert "\n" not in str(caught.value)
    else:
        finish(path, trained)
    if entry in (runs.REPORT_MD, runs.FIGURES):
        report.write(path)
    assert files_of(outside) == before


@pytest.mark.parametrize("entry", [batch.EXPERIMENT])
def test_continuing_a_batch_does_not_write_through_links(
    entry: str, tmp_path: pathlib.Path
) -> None:
    one = batch.Experiment("one", "Which?", {"a": SMALL})
    path, outside = tmp_path / "batch", tmp_path / "outside"
    batch.open_folder(outside, one, (1,))
    path.mkdir()
    (path / entry).symlink_to(outside / entry)
    before = files_of(outside)
    batch.open_folder(path, one, (2,))
    assert files_of(outside) == before
    assert batch.read(path)["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((*TRAIN, "--out", "run"), ("train", "--resume", "--out", "run"), "epoch"),
        (
            ("experiment", "tiny", "--seeds", "0:1", "--devices", 1, "--out", "run"),
            ("experiment", "tiny", "--seeds", "1:2", "--devices", 1, "--out", "run"),
            "runs",
        ),
    ],
    ids=["train", "experiment"],
)
def test_a_second_process_on_a_folder_is_sent_away(
    first: Sequence[object],
    second: Sequence[object],
    words: str,
    start: Start,
    run: Run,
    trained: Trained,
    tmp_path: pathlib.Path,
) -> None:
    process = start(*first, cwd=tmp_path)
    wait_for(process, words)
    process.send_signal(signal.SIGSTOP)  # It must still be there when the second one comes.
    os.waitpid(process.pid, os.WUNTRACED)  # All its threads, which takes a moment.
    try:
        before = files_of(tmp_path)
        done = run(*second, cwd=tmp_path)
        assert_one_line(done, 2, "out = 'run': another process is at work there")
        assert files_of(tmp_path) == before
    finally:
        process.send_signal(signal.SIGCONT)
    errors = process.communicate(timeout=SECONDS)[1]
    assert (process.returncode, errors) == (0, "")
    if words == "epoch":
        assert results_of(tmp_path / "run") == results_of(trained[0])
        assert checkpoint.newest(tmp_path / "run", SMALL) == (SMALL.train.epochs, [])
