"""Folders of one process at a time, on this machine and on others that share the file system."""

import contextlib
import errno
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator

import filelock

from sumrnn.errors import UserError
from sumrnn.runs import files
from sumrnn.runs.files import LEASE, LOCK

NONE_HERE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What the system says where a file system has no locks."""
SECONDS = 30.0
"""Without a sign of life, after which a lease is another process's to take."""
SPARE = 512
"""Files that a process has open beside the locks of its folders."""


class Held(UserError):
    """Another process has the folder."""


@contextlib.contextmanager
def hold(path: pathlib.Path, patience: float = 0.0) -> Iterator[None]:
    """Makes a folder this process's own, which is made if it is not there.

    The system frees it when the process ends.  Where the file system has no locks, a lease stands
    for it, which its holder renews: that of a process that is silent for `SECONDS` is taken.  What
    a killed process was writing in the folder is removed.  A process may hold a folder twice.

    Raises `Held` if another process still has it after `patience` seconds, `UserError` if it cannot
    be written.
    """
    file = path.absolute() / LOCK
    native = filelock.FileLock(
        file, blocking=False, thread_local=False, is_singleton=True, fallback_to_soft=False
    )
    with contextlib.ExitStack() as held:
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
            held.callback(_acquire(native, file, patience).release)
            files.clear(path)
        yield


def _acquire(
    native: filelock.BaseFileLock, file: pathlib.Path, patience: float
) -> filelock.BaseFileLock:
    if file.exists() and file.stat().st_nlink > 1:  # It would be written under its other name too.
        raise UserError(f"{file}: must have no other name (hard link); remove it")
    try:
        native.acquire(timeout=patience, blocking=patience > 0)
    except filelock.Timeout:  # Which is an OSError.
        raise _held(file) from None
    except OSError as error:
        if error.errno not in NONE_HERE:
            raise
        return _lease(file.with_name(LEASE), patience)
    with contextlib.suppress(OSError):  # For those who have to wait; it is not the lock.
        file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return native


def _lease(file: pathlib.Path, patience: float) -> filelock.BaseFileLock:
    """Takes a lease; of one that seems silent it waits so long that this is sure."""
    with contextlib.suppress(OSError):
        if time.time() - file.stat().st_mtime > SECONDS:
            patience += 2 * SECONDS
    lease = filelock.SoftFileLease(
        file, blocking=False, thread_local=False, is_singleton=True, lease_duration=SECONDS
    )
    try:
        lease.acquire(timeout=patience, blocking=patience > 0)
    except filelock.Timeout:
        raise _held(file) from None
    return lease


def _held(file: pathlib.Path) -> Held:
    """The error that says who has a folder, as far as the file of its lock tells."""
    who = "another process"
    with contextlib.suppress(OSError, ValueError):
        text = file.read_text(encoding="utf-8")
        if told := re.search(r"^(?:pid=)?([0-9]+)\n(?:host=)?([!-~]+)$", text, re.MULTILINE):
            who = f"process {told[1]} on {told[2]}"
    return Held(f"{file.parent}: {who} is at work there")


def is_held(path: pathlib.Path) -> bool:
    """Whether another process has a folder; makes no folder, and takes none for longer than this.

    Raises `UserError` if the folder cannot be written.
    """
    if not (path / LOCK).exists() and not (path / LEASE).exists():
        return False
    try:
        with hold(path):
            return False
    except Held:
        return True


def allow(count: int) -> None:
    """Makes sure that so many folders may be held, as far as the system allows it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
