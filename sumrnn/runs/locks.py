"""Folders of one process at a time."""

import contextlib
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from sumrnn.errors import UserError
from sumrnn.runs import files
from sumrnn.runs.files import HELD, LOCK

NONE_HERE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What the system says where a file system has no locks."""
SPARE = 512
"""Files that a process has open beside the locks of its folders."""


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
    """Makes the folder this process's own; the system frees it when the process ends.

    Where the file system has no locks, the file `HELD` says who has it; one that is left by a
    process of this machine that has ended is nobody's.  What a killed process was writing in the
    folder is removed.  A process may take a folder again that it has.

    Raises `UserError` if another process has it, or it cannot be written.
    """
    file = path.absolute() / LOCK
    native = filelock.FileLock(
        file, blocking=False, thread_local=False, is_singleton=True, fallback_to_soft=False
    )
    with contextlib.ExitStack() as held:
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
            own = _acquire(native, file)
            held.callback(own.release)
            if own is native:  # For those who have to wait; it is not the lock.
                with contextlib.suppress(OSError):
                    file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
            files.clear(path)
        yield


def _acquire(native: filelock.BaseFileLock, file: pathlib.Path) -> filelock.BaseFileLock:
    try:
        native.acquire()
    except filelock.Timeout:  # Which is an OSError.
        raise UserError(f"{file.parent}: {_holder(file)} is at work there") from None
    except OSError as error:
        if error.errno not in NONE_HERE:
            raise
        return _acquire_by_name(file.with_name(HELD))
    return native


def _acquire_by_name(file: pathlib.Path) -> filelock.BaseFileLock:
    """As `_acquire`, where the file system has no locks."""
    soft = filelock.SoftFileLock(file, blocking=False, thread_local=False, is_singleton=True)
    try:
        soft.acquire()
    except filelock.Timeout:
        how = f"if it is not, remove {file} (this file system has no locks)"
        raise UserError(f"{file.parent}: {_holder(file)} is at work there; {how}") from None
    return soft


def _holder(file: pathlib.Path) -> str:
    """Who has a lock, as far as its file tells."""
    with contextlib.suppress(OSError, ValueError):
        process, host, *_ = file.read_text(encoding="utf-8").splitlines()
        if process.isdecimal() and host.isprintable():
            return f"process {process} on {host}"
    return "another process"


def allow(count: int) -> None:
    """Makes sure that so many folders may be locked, as far as the system allows it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
