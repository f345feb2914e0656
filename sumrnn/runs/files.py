"""Atomic files: JSON objects that hold their own SHA-256, arrays, and what reports consist of."""

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
import types
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from sumrnn import fields
from sumrnn.errors import UserError, cause

T = TypeVar("T")
TEMPORARY = ".sumrnn-tmp"
"""Ending of what is being written; a killed process may leave it."""
LOCK, LEASE = ".lock", ".lock.lease"
"""Of a folder in use: the file that is locked, and the one that stands for it where none can be."""
SEAL = "sha256"
"""The field of a JSON object that is the SHA-256 of the others."""
HEADER = 1_000
"""Bytes that an array in a file takes beside its numbers, at most."""
FIGURES = "figures"


def is_full(error: BaseException) -> bool:
    """Whether the system says that a file cannot grow: no room on the disk, or a limit."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


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
        entry.name in (LOCK, LEASE) or _is_temporary(entry) for entry in path.iterdir()
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
        if is_full(error):
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


def seal(content: Mapping[str, Any]) -> str:
    """The SHA-256 of an object's fields, in hexadecimal, whatever their order and layout."""
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        digest.update(f"{name} {text}\n".encode())
    return digest.hexdigest()


def write_json(
    path: pathlib.Path, instance: Any, version: int, first: Callable[[], object] = lambda: None
) -> None:
    """Writes a dataclass as a JSON object with its `format` and the SHA-256 of all fields.

    For `first` see `write_atomic`.
    """
    content = {"format": version, **fields.to_dict(instance)}
    write_atomic(path, to_json(content | {SEAL: seal(content)}), first)


def read_json(
    path: pathlib.Path,
    cls: type[T],
    version: int,
    earlier: Mapping[int, Mapping[str, Any]] = types.MappingProxyType({}),
) -> T:
    """Reads a dataclass that `write_json` has written.

    `earlier` formats, by their number, are read too: each has the fields that it lacked, and None
    for those that it had beside.  Raises `UserError` if the file is missing, damaged or of another
    version.
    """
    with reading(path):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(content, dict) or type(content.get("format")) is not int:
            raise ValueError("must be an object with a format")
        if (number := content["format"]) not in (version, *earlier):
            raise UserError(
                f"{path}: has format {number}, of another version of this program; "
                f"this one reads format {version}"
            )
        proof = content.pop(SEAL, None)
        try:
            whole = proof == seal(content)
        except RecursionError:  # Writing may nest less deeply than reading.
            raise ValueError("it is nested too deeply") from None
        if not whole:
            raise ValueError(f"its {SEAL} is not that of its content")
        del content["format"]
        changes = earlier.get(number, {})
        gone = {name for name, value in changes.items() if value is None}
        content = {k: v for k, v in {**changes, **content}.items() if k not in gone}
        try:
            return fields.from_dict(cls, content)
        except UserError as error:
            raise ValueError(str(error)) from None


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], compressed: bool) -> None:
    """Writes an .npz file, which has a CRC of each array; the same arrays give the same bytes."""
    data = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(data, allow_pickle=False, **arrays)
    write_atomic(path, data.getvalue())


def read_arrays(
    path: pathlib.Path, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name.

    `sizes` are the names and the most numbers of compressed ones; without it they must not be
    compressed.  Raises `UserError` if the file is missing or damaged, or has others or larger ones.
    """
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                members = {_checked(member, sizes): member for member in archive.infolist()}
                return {name: _read_array(archive, member) for name, member in members.items()}
        except OSError:
            raise
        except Exception as error:  # NumPy's and zipfile's have no common type.
            raise ValueError(cause(error)) from None


def _checked(member: zipfile.ZipInfo, sizes: Mapping[str, int] | None) -> str:
    """The name of an array, before it is read; raises `ValueError` if it would become large."""
    name = member.filename.removesuffix(".npy")
    if sizes is None:
        limit = member.compress_size if member.compress_type == zipfile.ZIP_STORED else 0
    else:  # Of other kinds of compression a piece may become any size at once.
        known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        limit = sizes[name] * 8 + HEADER if known and name in sizes else 0
    if member.file_size > limit:
        raise ValueError(f"{name!r} has {member.file_size:,} bytes, and may have {limit:,}")
    return name


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # At the end of what is read its CRC is checked.
            raise ValueError(f"{member.filename!r} goes on after its array")
        return array


def write_report(
    path: pathlib.Path,
    texts: Mapping[str, str],
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
