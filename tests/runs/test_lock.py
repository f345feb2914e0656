import errno
import os
import pathlib
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from sumrnn.errors import UserError
from sumrnn.runs import files, lock
from tests.conftest import SECONDS, wait_for

HOLD = """
import pathlib, sys, time
from sumrnn.runs import lock
with lock.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""
HOST = socket.gethostname()


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught, lock.hold(path):
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
    with lock.hold(path), lock.hold(path):  # This process may take it again.
        assert files.is_empty(path)


def test_a_lock_that_has_another_name_is_not_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis").write_text("years")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / files.LOCK).hardlink_to(tmp_path / "thesis")
    assert "must have no other name (hard link)" in refusal(tmp_path / "run")
    assert (tmp_path / "thesis").read_text() == "years"


def test_where_the_system_has_locks_what_the_file_says_does_not_matter(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / ".history.csv.4711.sumrnn-tmp").write_text("half")  # As after a kill.
    for content in ("", "4711\nelsewhere\n", "nonsense", "1\n2\n3\n4\n5\n"):
        (tmp_path / files.LOCK).write_text(content)
        with lock.hold(tmp_path):
            assert (tmp_path / files.LOCK).read_text() == f"{os.getpid()}\n{HOST}\n"
            assert [entry.name for entry in tmp_path.iterdir()] == [files.LOCK]
    (tmp_path / files.LOCK).unlink()
    (tmp_path / files.LOCK).mkdir()
    assert refusal(tmp_path).startswith(f"{tmp_path / files.LOCK}: must ")


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of which the kernel says that it has no locks."""

    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)


WITHOUT = """
import errno, fcntl
def flock(file, operation):
    raise OSError(errno.ENOLCK, "none here")
fcntl.flock = flock
"""


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_lease_keeps_others_away_until_its_process_ends_or_is_killed(
    start: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    with lock.hold(tmp_path), lock.hold(tmp_path):
        assert files.is_empty(tmp_path)
    assert not (tmp_path / files.LEASE).exists()
    holder = start(sys.executable, "-c", WITHOUT + HOLD, tmp_path, cwd=tmp_path)
    wait_for(holder, "held")
    assert refusal(tmp_path) == f"{tmp_path}: process {holder.pid} on {HOST} is at work there"
    holder.kill()
    holder.wait(timeout=SECONDS)
    assert (tmp_path / files.LEASE).exists()
    with lock.hold(tmp_path):
        pass


@pytest.mark.usefixtures("without_locks")
def test_without_locks_one_elsewhere_that_is_silent_is_taken_and_one_that_renews_is_not(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a machine that was switched off."""
    monkeypatch.setattr(lock, "SECONDS", 0.5)
    file = tmp_path / files.LEASE
    with lock.hold(tmp_path):
        text = file.read_text()
    for name, value in (("host", "elsewhere"), ("pid", "4711")):
        text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
    file.write_text(text)
    assert refusal(tmp_path) == f"{tmp_path}: process 4711 on elsewhere is at work there"
    past = time.time() - 60
    os.utime(file, (past, past))
    with lock.hold(tmp_path):
        assert "elsewhere" not in file.read_text()


def test_a_folder_can_be_waited_for(start: Callable[..., Any], tmp_path: pathlib.Path) -> None:
    hold = HOLD.replace("1000", "0.5")
    holder = start(sys.executable, "-c", hold, tmp_path, cwd=tmp_path)
    wait_for(holder, "held")
    assert lock.is_held(tmp_path)
    with lock.hold(tmp_path, SECONDS):
        pass
    assert not lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_as_many_folders_can_be_locked_as_the_system_allows() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 600), hard))
        lock.allow(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(soft, 600)
        lock.allow(200)
        expected = min(200 + lock.SPARE, hard) if hard != resource.RLIM_INFINITY else 712
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
