import errno
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import filelock
import pytest

from sumrnn.errors import UserError
from sumrnn.runs import files, locks
from tests.conftest import SECONDS, wait_for

HOLD = """
import pathlib, sys, time
from sumrnn.runs import locks
with locks.lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""
HOST = socket.gethostname()


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught, locks.lock(path):
        raise AssertionError
    return str(caught.value)


def test_a_folder_is_one_process_s_until_it_ends_or_is_killed(
    start: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "run"
    holder = start(sys.executable, "-c", HOLD, path, cwd=tmp_path)
    wait_for(holder, "held")
    assert refusal(path) == f"{path}: process {holder.pid} on {HOST} is at work there"
    holder.kill()
    holder.wait(timeout=SECONDS)
    assert (path / files.LOCK).exists()
    with locks.lock(path), locks.lock(path):  # This process may take it again.
        assert files.is_empty(path)


def test_a_lock_clears_away_what_a_killed_process_left(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".history.csv.4711.sumrnn-tmp").write_text("half")
    (tmp_path / "history.csv").write_text("whole")
    with locks.lock(tmp_path):
        assert {entry.name for entry in tmp_path.iterdir()} == {files.LOCK, "history.csv"}


def test_a_lock_that_has_another_name_is_not_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis").write_text("years")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / files.LOCK).hardlink_to(tmp_path / "thesis")
    assert "must have no other name (hard link)" in refusal(tmp_path / "run")
    assert (tmp_path / "thesis").read_text() == "years"


@pytest.mark.parametrize("content", ["", "4711\nelsewhere\n", "nonsense", "1\n2\n3\n4\n5\n"])
def test_where_the_system_has_locks_what_the_file_says_does_not_matter(
    content: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / files.LOCK).write_text(content)
    with locks.lock(tmp_path):
        with locks.lock(tmp_path):
            pass
        assert (tmp_path / files.LOCK).read_text() == f"{os.getpid()}\n{HOST}\n"


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=os.strerror)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of which the kernel says that it has no locks."""

    def flock(file: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", flock)


ENDED = 2**22 + 1
"""A number that no process has: it is beyond what Linux gives."""


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("left", [files.LOCK, files.HELD])
def test_without_locks_what_nobody_holds_is_taken(left: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / left).write_text(f"{ENDED}\n{HOST}\n")
    with locks.lock(tmp_path), locks.lock(tmp_path):
        process, host, *_ = (tmp_path / files.HELD).read_text().splitlines()
        assert (process, host) == (str(os.getpid()), HOST)
        assert files.is_empty(tmp_path)
    assert not (tmp_path / files.HELD).exists()


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("who", [(ENDED, "elsewhere"), (os.getppid(), HOST)])
def test_without_locks_a_holder_that_may_live_is_told_and_how_to_go_on(
    who: tuple[int, str], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / files.HELD
    file.write_text("{}\n{}\n".format(*who))
    holder = "process {} on {} is at work there".format(*who)
    how = f"if it is not, remove {file} (this file system has no locks)"
    assert refusal(tmp_path) == f"{tmp_path}: {holder}; {how}"
    file.unlink()
    with locks.lock(tmp_path):
        pass


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("minutes", [0, 1, 30])
def test_a_holder_elsewhere_that_is_silent_is_told_as_such_and_left(
    minutes: int, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / files.HELD
    file.write_text("4711\nelsewhere\n")
    past = time.time() - 60 * minutes
    os.utime(file, (past, past))
    told = refusal(tmp_path)
    assert told.startswith(f"{tmp_path}: process 4711 on elsewhere ")
    silent = "has it, and no sign of life for 30 minutes; make sure that it is dead, and remove"
    assert (silent in told) == (minutes == 30)
    assert file.read_text() == "4711\nelsewhere\n"


def test_who_has_a_folder_gives_signs_of_life(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with locks.lock(tmp_path):
        file = tmp_path / files.LOCK
        os.utime(file, (0, 0))
        end = time.monotonic() + SECONDS
        while not file.stat().st_mtime and time.monotonic() < end:
            time.sleep(0.01)
        assert file.stat().st_mtime


def test_a_folder_can_be_waited_for(start: Callable[..., Any], tmp_path: pathlib.Path) -> None:
    hold = HOLD.replace("1000", "0.5")
    holder = start(sys.executable, "-c", hold, tmp_path, cwd=tmp_path)
    wait_for(holder, "held")
    assert locks.is_held(tmp_path)
    with locks.lock(tmp_path, SECONDS):
        pass
    assert not locks.is_held(tmp_path)
    assert not locks.is_held(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_fault_of_the_system_is_told_as_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: object, **how: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert refusal(tmp_path).endswith("must be a folder that can be written (Input/output error)")


def test_as_many_folders_can_be_locked_as_the_system_allows() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 600), hard))
        locks.allow(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(soft, 600)
        locks.allow(200)
        expected = min(200 + locks.SPARE, hard) if hard != resource.RLIM_INFINITY else 712
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
