"""Folders of one process at a time, on this machine and on others that share the file system."""

import contextlib
import errno
import os
import pathlib
import socket
import threading
from collections.abc import Iterator

import filelock

from sumrnn.errors import UserError
from sumrnn.runs import files
from sumrnn.runs.files import HELD, LOCK

NONE_HERE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What the system says where a file system has no locks."""
SPARE = 512
"""Files that a process has open beside the locks of its folders."""
BEAT = 15.0
"""Seconds between signs of life: the file of a lock is touched that often."""
SILENT = 8 * BEAT
"""Seconds without one, after which a holder on another machine is taken for dead."""


class Held(UserError):
    """Another process has the folder; `silent` if it gives no sign of life."""

    def __init__(self, message: str, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


@contextlib.contextmanager
def lock(path: pathlib.Path, patience: float = 0.0) -> Iterator[None]:
    """Makes the folder this process's own; the system frees it when the process ends.

    Where the file system has no locks, the file `HELD` says who has it; one that is left by a
    process of this machine that has ended is nobody's.  What a killed process was writing in the
    folder is removed.  A process may take a folder again that it has.

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
            own = _acquire(native, file, patience)
            held.callback(own.release)
            if own is native:  # For those who have to wait; it is not the lock.
                with contextlib.suppress(OSError):
                    file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
            files.clear(path)
        held.enter_context(_alive(pathlib.Path(own.lock_file)))
        yield


@contextlib.contextmanager
def _alive(file: pathlib.Path) -> Iterator[None]:
    """Touches the file of a lock now and then."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(file)

    with contextlib.suppress(RuntimeError):  # There may be too many threads.
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


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
        return _acquire_by_name(file.with_name(HELD), patience)
    return native


def _acquire_by_name(file: pathlib.Path, patience: float) -> filelock.BaseFileLock:
    """As `_acquire`, where the file system has no locks."""
    soft = filelock.SoftFileLock(file, blocking=False, thread_local=False, is_singleton=True)
    try:
        soft.acquire(timeout=patience, blocking=patience > 0)
    except filelock.Timeout:
        how = f"; if it is not, remove {file} (this file system has no locks)"
        raise _held(file, how) from None
    return soft


def _held(file: pathlib.Path, how: str = "") -> Held:
    """Who has a lock, as far as its file tells; of another machine, whether it seems to live."""
    process, host = _holder(file)
    who = f"process {process} on {host}" if process else "another process"
    # Of this machine's processes the system knows that they live.
    silent = 0.0 if host == socket.gethostname() else _silent(file)
    if silent < SILENT:
        return Held(f"{file.parent}: {who} is at work there{how}", silent=False)
    dead = f"{who} has it, and no sign of life for {silent / 60:.0f} minutes"
    return Held(f"{file.parent}: {dead}; make sure that it is dead, and remove {file}", silent=True)


def _holder(file: pathlib.Path) -> tuple[str, str]:
    """Process and host that a lock's file names; empty if it names none."""
    with contextlib.suppress(OSError, ValueError):
        process, host, *_ = file.read_text(encoding="utf-8").splitlines()
        if process.isdecimal() and host.isprintable():
            return process, host
    return "", ""


def _silent(file: pathlib.Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system; 0 if it has none."""
    probe = file.with_name(f".alive.{os.getpid()}{files.TEMPORARY}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return max(0.0, now - file.stat().st_mtime)
    except OSError:
        return 0.0


def is_held(path: pathlib.Path) -> bool:
    """Whether another process has a folder; makes no folder, and takes none for longer than this.

    Raises `UserError` if the folder cannot be written.
    """
    if not (path / LOCK).exists() and not (path / HELD).exists():
        return False
    try:
        with lock(path):
            return False
    except Held:
        return True


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
