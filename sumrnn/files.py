"""Files that are whole or not there, that prove it, and folders of one process at a time.

A sealed JSON file holds its own SHA-256; a folder's other files are proven by `SHA256SUMS`, which
`sha256sum -c` reads too.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

TEMPORARY = ".tmp"
"""Ending of what is being written; a killed process may leave it."""
LOCK = ".lock"
SUMS = "SHA256SUMS"
SEAL = "sha256"
"""The field of a sealed JSON object: the SHA-256 of the others."""
SPARE = 512
"""Files that a process may open beside its locks."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow: no room on the disk, or a limit."""


class RunError(Exception):
    """One line: which folder or file cannot be used, and why."""


def write_atomic(path: pathlib.Path, content: bytes | str) -> None:
    """Writes a whole file or nothing: readers see the old content or the new one."""
    temporary = temporary_of(path)
    try:
        remove(temporary)
        with temporary.open("xb") as file:  # Not through a link that is there.
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # A full disk does not say for which file.
        raise
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: pathlib.Path) -> None:
    """Waits until the disk has a file that others wrote."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def temporary_of(path: pathlib.Path) -> pathlib.Path:
    """What this process writes before it becomes `path`, or what it removes after."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


def remove(path: pathlib.Path) -> None:
    """Removes a file, a folder with its content, a link (not what it leads to), or nothing.

    A folder is gone at once or still whole.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if not is_temporary(path):
        aside = temporary_of(path)
        remove(aside)
        path = path.rename(aside)
    shutil.rmtree(path)


def is_temporary(path: pathlib.Path) -> bool:
    """Whether the name is of something that is being written, or was when its process ended."""
    return re.fullmatch(rf"\.(.+\.[0-9]+|old){re.escape(TEMPORARY)}", path.name) is not None


def is_empty(path: pathlib.Path) -> bool:
    """Whether nothing is in the way of a new folder: locks and temporary files are not."""
    if not path.exists():
        return True
    return path.is_dir() and all(
        entry.name == LOCK or is_temporary(entry) for entry in path.iterdir()
    )


def clear(path: pathlib.Path) -> None:
    """Makes the folder, and removes from it what a killed process was writing."""
    path.mkdir(parents=True, exist_ok=True)
    for entry in path.iterdir():
        if is_temporary(entry):
            remove(entry)


def unwritable(path: pathlib.Path, error: OSError) -> Exception:
    """What to raise for a folder that the system does not let us write."""
    if error.errno in FULL:
        return error
    return RunError(f"out = {str(path)!r}: must be a folder that can be written ({error.strerror})")


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
    """Makes the folder this process's own; the system frees it when the process ends.

    What a killed process was writing in it is removed.  A process may take a folder again that
    it has.

    Raises:
      RunError: if another process has it, or it cannot be written.
    """
    import filelock

    held = filelock.FileLock(
        path.absolute() / LOCK, blocking=False, thread_local=False, is_singleton=True
    )
    try:
        path.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except filelock.Timeout:
        raise RunError(f"out = {str(path)!r}: another process is at work there") from None
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        try:
            clear(path)
        except OSError as error:
            raise unwritable(path, error) from None
        yield
    finally:
        held.release()


def allow_locks(count: int) -> None:
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


@contextlib.contextmanager
def explain(path: pathlib.Path, missing: str = "missing") -> Iterator[None]:
    """Turns whatever an unreadable file raises into a `RunError` that names it."""
    try:
        # Reading of others waits forever, or has no end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise RunError(f"{path}: must be a file")
        yield
    except FileNotFoundError:
        raise RunError(f"{path}: {missing}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
    except KeyError as error:
        raise RunError(f"{path}: damaged (no {error.args[0]})") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
        OverflowError,
        EOFError,
        RuntimeError,
        csv.Error,
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise RunError(f"{path}: damaged ({error})") from None


def to_json(value: Any) -> str:
    """Indented JSON; raises ValueError on NaN or infinity, which JSON does not have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _seal(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: pathlib.Path, fields: dict[str, Any]) -> None:
    """Writes a JSON object together with its own SHA-256."""
    write_atomic(path, to_json(fields | {SEAL: _seal(fields)}))


def read_sealed(path: pathlib.Path, version: int) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, if its field `format` is this version.

    Raises:
      ValueError, KeyError, OSError: if it is another or damaged; see `explain`.
    """
    read = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(read, dict) or read.get("format") != version:
        raise ValueError(f"must be an object with format = {version}")
    seal = read.pop(SEAL)
    if seal != _seal(read):
        raise ValueError(f"its {SEAL} is not that of its content")
    return read


def digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(path: pathlib.Path, names: Iterable[str]) -> None:
    """Writes the SHA-256 of files, named relative to the folder `path`, to its `SHA256SUMS`."""
    lines = [f"{digest(path / name)}  {name}\n" for name in names]
    write_atomic(path / SUMS, "".join(lines))


def read_sums(path: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of each file in the folder's `SHA256SUMS`, by name; none without this file.

    Raises:
      RunError: if it is damaged.
    """
    file = path / SUMS
    if not file.exists():
        return {}
    with explain(file):
        lines = file.read_text(encoding="utf-8").splitlines()
        found = [re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line) for line in lines]
        if not lines or None in found:
            raise ValueError("must have lines of a SHA-256 and a name")
        return {match[2]: match[1] for match in found if match}


def check_sum(path: pathlib.Path, name: str, sums: dict[str, str]) -> None:
    """Makes sure that a file of the folder is what its sum says.

    Raises:
      RunError: if it is missing or another.
    """
    with explain(path / name):
        if digest(path / name) != sums.get(name):
            raise ValueError(f"it does not match {SUMS}")
