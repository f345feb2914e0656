"""Atomic files that prove themselves, and folders of one process at a time.

What stands alone (a JSON object, the arrays of an .npz file) is sealed: it holds the SHA-256 of
all the rest of it under the name `SEAL`.  Other files are proven by their SHA-256 in such an
object.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from sumrnn import fields
from sumrnn.errors import UserError, cause

T = TypeVar("T")
TEMPORARY = ".sumrnn-tmp"
"""Ending of what is being written; a killed process may leave it."""
LOCK, HELD = ".lock", ".lock.held"
"""Of a folder in use: the file that is locked, and the one that is there where nothing can be."""
SEAL = "sha256"
"""The field of a sealed object: the SHA-256 of the others."""
HEADER = 1_000
"""Bytes that an array in a file takes beside its numbers, at most."""
FIGURES = "figures"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow: no room on the disk, or a limit."""


def write_atomic(
    path: pathlib.Path, content: bytes | str, first: Callable[[], object] = lambda: None
) -> None:
    """Writes a whole file or nothing: readers see the old content or the new one.

    `first` is called when the new one is on the disk, and not yet seen.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        remove(temporary)
        with temporary.open("xb") as file:  # Not through a link that is there.
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        first()
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # A full disk does not say for which file.
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _is_temporary(path: pathlib.Path) -> bool:
    return re.fullmatch(rf"\..+\.[0-9]+{re.escape(TEMPORARY)}", path.name) is not None


def remove(path: pathlib.Path) -> None:
    """Removes a file, a folder with its content, a link (not what it leads to), or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_empty(path: pathlib.Path) -> bool:
    """Whether nothing is in the way of a new folder: locks and temporary files are not."""
    if not path.exists():
        return True
    return path.is_dir() and all(
        entry.name in (LOCK, HELD) or _is_temporary(entry) for entry in path.iterdir()
    )


def clear(path: pathlib.Path) -> None:
    """Makes the folder, and removes from it what a killed process was writing."""
    path.mkdir(parents=True, exist_ok=True)
    for entry in path.iterdir():
        if _is_temporary(entry):
            remove(entry)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns what the system says of a folder that it does not let us write into a `UserError`.

    A full disk stays an OSError: something failed, and nothing was misused.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(
            f"{path}: must be a folder that can be written ({error.strerror})"
        ) from None


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Turns what an unreadable or damaged file raises into a `UserError` that names it."""
    try:
        # Reading of others waits forever, or has no end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: must be a file")
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: missing") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def to_json(value: Any) -> str:
    """Indented JSON; raises ValueError on NaN or infinity, which JSON does not have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal; of a .csv, with the line ends that it had here."""
    if path.suffix == ".csv":  # Git and editors on Windows change them.
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(values: Mapping[str, Any]) -> str:
    """The SHA-256 of values by name: arrays, or what JSON can hold."""
    found = hashlib.sha256()
    for name, value in sorted(values.items()):
        if isinstance(value, np.ndarray):
            found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
            found.update(f"{name} {text}\n".encode())
    return found.hexdigest()


def _unseal(values: dict[str, Any]) -> dict[str, Any]:
    """The other values; raises ValueError if the seal is not theirs."""
    seal = values.pop(SEAL, None)
    try:
        same = str(seal) == _seal(values)
    except RecursionError:  # Writing may nest less deeply than reading.
        raise ValueError("it is nested too deeply") from None
    if not same:
        raise ValueError(f"its {SEAL} is not that of its content")
    return values


def write_json(
    path: pathlib.Path, instance: Any, version: int, first: Callable[[], object] = lambda: None
) -> None:
    """Writes a dataclass as a sealed JSON object of a `format`; for `first` see `write_atomic`."""
    content = {"format": version, **fields.to_dict(instance)}
    write_atomic(path, to_json(content | {SEAL: _seal(content)}), first)


def read_json(path: pathlib.Path, cls: type[T], version: int) -> T:
    """The inverse of `write_json`.

    Raises `UserError` if the file is missing, damaged or of another version.
    """
    with reading(path):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(read, dict) or type(read.get("format")) is not int:
            raise ValueError("must be an object with a format")
        if read["format"] != version:
            raise UserError(
                f"{path}: has format {read['format']}, of another version of this program; "
                f"this one reads format {version}"
            )
        content = _unseal(read)
        del content["format"]
        try:
            return fields.from_dict(cls, content)
        except UserError as error:
            raise ValueError(str(error)) from None


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], sealed: bool) -> None:
    """Writes an .npz file, sealed or compressed; the same arrays give the same bytes."""
    data = io.BytesIO()
    if sealed:
        np.savez(data, allow_pickle=False, **arrays, **{SEAL: np.array(_seal(arrays))})
    else:
        np.savez_compressed(data, allow_pickle=False, **arrays)
    write_atomic(path, data.getvalue())


def read_arrays(
    path: pathlib.Path, sealed: bool, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name; `sizes` are the most numbers of those not sealed.

    Raises `UserError` if it is missing or damaged, or has others or larger ones.
    """
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                members = {_checked(x, sealed, sizes or {}): x for x in archive.infolist()}
                arrays = {name: _read_array(archive, member) for name, member in members.items()}
        except OSError:
            raise
        except Exception as error:  # NumPy's and zipfile's have no common type.
            raise ValueError(cause(error)) from None
        return _unseal(arrays) if sealed else arrays


def _checked(member: zipfile.ZipInfo, sealed: bool, sizes: Mapping[str, int]) -> str:
    """The name of an array, before it is read; raises `ValueError` if it would become large."""
    name, limit = member.filename.removesuffix(".npy"), 0
    # What is sealed is not compressed; of other kinds a piece may become any size at once.
    if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        limit = member.compress_size if sealed else sizes.get(name, -HEADER) * 8 + HEADER
    if member.file_size > limit:
        raise ValueError(f"{name!r} has {member.file_size:,} bytes, and may have {max(0, limit):,}")
    return name


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


def write_report(
    path: pathlib.Path,
    texts: Mapping[str, bytes | str],
    pictures: Iterable[tuple[str, bytes]],
    known: Collection[str],
) -> None:
    """Writes what is rebuilt from a folder: texts by name, then PNG pictures, as they come.

    Pictures of the `known` names that do not come are removed.  Raises `UserError` if the folder
    cannot be written, `OSError` if the disk is full.
    """
    figures, missing = path / FIGURES, set(known)
    with writing(path):
        if figures.is_symlink():  # Replaced as a file that is a link is.
            remove(figures)
        clear(figures)
        for name, content in texts.items():
            write_atomic(path / name, content)
        for name, png in pictures:
            write_atomic(figures / f"{name}.png", png)
            missing.discard(name)
        for name in missing:
            remove(figures / f"{name}.png")
