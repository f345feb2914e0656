"""Checkpoints of a run: all that it needs to go on after an epoch, whole and proven, or not there.

checkpoints/EPOCH/state/         parameters, optimiser state, shuffling key, epoch, history (Orbax)
checkpoints/EPOCH/SHA256SUMS     of every file in it, and of the run's config.json
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from sumrnn import files, train
from sumrnn.config import Config
from sumrnn.files import RunError

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
STATE = "state"
OWNER = f"../../{CONFIG}"
"""The run that a checkpoint belongs to, seen from its folder."""
KEPT = 2
"""Of a run, the last ones."""
COLUMNS: dict[str, type[np.floating[Any]]] = {
    **dict.fromkeys(train.Metrics._fields, np.float32),
    "seconds": np.float64,
}
"""What a run's history has of each epoch, and the dtypes."""


class Snapshot(NamedTuple):
    """A run between two epochs."""

    state: train.State
    shuffle: np.ndarray
    """uint32 [2]: the data of the shuffling key."""
    epoch: np.ndarray
    """int32 []: finished epochs."""
    history: dict[str, np.ndarray]
    """By `COLUMNS`: [epoch] each."""


def like(config: Config, epoch: int) -> Snapshot:
    """A snapshot after an epoch, otherwise of zeros in the shapes and dtypes of a run."""
    keys = jax.eval_shape(lambda: train.keys(config, 0))
    state = jax.eval_shape(lambda key: train.init(config, key), keys.init)
    columns = {name: np.zeros(epoch, dtype) for name, dtype in COLUMNS.items()}
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    return Snapshot(zeros, np.zeros(2, np.uint32), np.array(epoch, np.int32), columns)


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp

    # Of several processes only the first one writes, so it must not wait for the others.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="alone"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the terminal what Orbax's threads print of a failure, which it raises as well."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    hook = sys.unraisablehook

    def filtered(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    before = [logger.disabled for logger in loggers]
    sys.unraisablehook = filtered
    for logger in loggers:
        logger.disabled = True
    yield
    # Not after a failure: threads that are late may still print.
    sys.unraisablehook = hook
    for logger, disabled in zip(loggers, before, strict=True):
        logger.disabled = disabled


def _reason(error: Exception) -> str:
    """What went wrong, of an error of tensorstore, which tells its whole configuration too."""
    if number := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(number[1]))
    return (str(error).splitlines() or [type(error).__name__])[0]


def folder(path: pathlib.Path, epoch: int) -> pathlib.Path:
    """Where the run in `path` has its checkpoint after an epoch."""
    return path / CHECKPOINTS / str(epoch)


def epochs(path: pathlib.Path) -> list[int]:
    """After which epochs the run in `path` has checkpoints, good or not, the newest first."""
    place = path / CHECKPOINTS
    found = place.iterdir() if place.is_dir() else ()
    numbers = (int(entry.name) for entry in found if re.fullmatch("[1-9][0-9]{0,8}", entry.name))
    return sorted(numbers, reverse=True)


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in place.rglob("*") if file.is_file()]


def save(path: pathlib.Path, snapshot: Snapshot) -> None:
    """Adds a checkpoint to the run in `path`, and keeps the last ones.

    Raises:
      OSError: if it cannot be written; those before it are still there.
    """
    final = folder(path, int(snapshot.epoch))
    files.clear(final.parent)
    temporary = files.temporary_of(final)
    temporary.mkdir()
    try:
        with _quiet():
            _checkpointer().save((temporary / STATE).absolute(), snapshot)
        for file in _files(temporary):
            files.flush(file)
    except OSError as error:
        error.filename = error.filename or str(final)
        raise
    except Exception as error:  # Tensorstore's have no common type.
        raise OSError(f"{final}: cannot be written ({_reason(error)})") from None
    names = [OWNER, *sorted(str(file.relative_to(temporary)) for file in _files(temporary))]
    files.write_sums(temporary, names)
    if final.exists() or final.is_symlink():  # Damaged, or it would have been continued.
        final.rename(final.with_name(f".old{files.TEMPORARY}"))
    temporary.rename(final)
    for epoch in epochs(path)[KEPT:]:
        files.remove(folder(path, epoch))
    files.clear(final.parent)


def forget(path: pathlib.Path, epoch: int) -> None:
    """Removes the checkpoints after later epochs, and what a killed process left.

    Kept, they would push out good ones.
    """
    files.clear(path / CHECKPOINTS)
    for later in epochs(path):
        if later > epoch:
            files.remove(folder(path, later))


def check(path: pathlib.Path, epoch: int) -> None:
    """Makes sure that a checkpoint is whole and of this run.

    Raises:
      RunError: if not; it names the file.
    """
    place = folder(path, epoch)
    sums = files.read_sums(place)
    if not sums:
        raise RunError(f"{place / files.SUMS}: missing")
    for name in sums:
        inside = name.startswith(f"{STATE}/") and ".." not in pathlib.PurePosixPath(name).parts
        if not inside and name != OWNER:
            raise RunError(f"{place / files.SUMS}: damaged ({name!r} is no file of a checkpoint)")
    for name in sums:
        if name != OWNER:
            files.check_sum(place, name, sums)
    there = {str(file.relative_to(place)) for file in _files(place / STATE)}
    if unnamed := sorted(there - set(sums)):
        raise RunError(f"{place / files.SUMS}: damaged (it does not name {unnamed[0]})")
    with files.explain(place / files.SUMS):
        if sums[OWNER] != files.digest(path / CONFIG):
            raise RunError(f"{place}: is of another run than {path / CONFIG}")


def load(path: pathlib.Path, config: Config, epoch: int) -> Snapshot:
    """Reads a checkpoint of the run in `path`.

    Raises:
      RunError: if it is damaged, or not of this config and epoch.
    """
    check(path, epoch)
    place = folder(path, epoch) / STATE
    if epoch > config.train.epochs:
        raise RunError(f"{place.parent}: is of an epoch that the run does not have")
    expected = like(config, epoch)
    import orbax.checkpoint as ocp

    try:
        with _quiet():
            found: Snapshot = _checkpointer().restore(
                place.absolute(), args=ocp.args.StandardRestore(expected)
            )
        chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    except Exception as error:  # Orbax's have no common type.
        raise RunError(f"{place}: damaged ({_reason(error)})") from None
    if int(found.epoch) != epoch:
        raise RunError(f"{place}: is of epoch {int(found.epoch)}")
    return found


def newest(path: pathlib.Path, config: Config) -> tuple[int, list[str]]:
    """The newest good checkpoint of the run in `path`.

    Returns:
      After which epoch it is, 0 if there is none at all; and what is wrong with newer ones.

    Raises:
      RunError: if there are checkpoints, but no good one, or they are behind a link.
    """
    if (path / CHECKPOINTS).is_symlink():  # Others may have them too, and old ones are removed.
        raise RunError(f"{path / CHECKPOINTS}: must be a folder, not a link")
    wrong: list[str] = []
    for epoch in epochs(path):
        try:
            load(path, config, epoch)
        except RunError as error:
            wrong.append(str(error))
        else:
            return epoch, wrong
    if wrong:
        raise RunError(f"{wrong[0]}; no good checkpoint is left: remove {path} to begin again")
    return 0, []
