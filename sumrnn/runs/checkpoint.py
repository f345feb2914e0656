"""Checkpoints: all that a run needs to go on after an epoch, as the arrays of one .npz file."""

import dataclasses
import json
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from sumrnn.config import Config
from sumrnn.devices import compiler
from sumrnn.errors import UserError
from sumrnn.fields import from_dict, to_dict
from sumrnn.models import network
from sumrnn.runs import files
from sumrnn.train.run import Metrics, State

KEPT = 2
"""Checkpoints of a run that goes on."""
COLUMNS: dict[str, type[np.floating[Any]]] = {
    **dict.fromkeys(Metrics._fields, np.float32),
    "seconds": np.float64,
}
"""The columns of a run's history, and their dtypes."""
BIAS = "/output/bias"
"""The end of names in checkpoints of earlier versions, where weights had the names of Flax."""

History = dict[str, np.ndarray]
"""The history of a run by `COLUMNS`, [epochs] each."""


class Snapshot(NamedTuple):
    """A run between two epochs."""

    epoch: np.ndarray
    """int32 []: finished epochs."""
    state: State
    history: History


class Checkpoints:
    """The checkpoints of a run, each a file EPOCH.npz.

    Args:
      path: of their folder, which need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def file(self, epoch: int) -> pathlib.Path:
        """The path of the checkpoint after an epoch, whether it is there or not."""
        return self.path / f"{epoch}.npz"

    def epochs(self) -> list[int]:
        """The epochs after which there are checkpoints, good or not, the newest first."""
        names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        matches = (re.fullmatch(r"([1-9][0-9]{0,8})\.npz", name) for name in names)
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def load(self, config: Config, seed: int, epoch: int) -> Snapshot:
        """Reads the checkpoint after an epoch.

        Raises `UserError` if it is missing, damaged, or of another run.
        """
        arrays = files.read_arrays(self.file(epoch))
        with files.reading(self.file(epoch)):
            return unpack(arrays, config, seed, epoch)

    def newest(self, config: Config, seed: int) -> tuple[int, list[str]]:
        """The epoch of the newest good checkpoint, or 0, and what is wrong with newer ones.

        Raises `UserError` if there are checkpoints, but no good one, or they are behind a link.
        """
        if self.path.is_symlink():  # Others may have them too, and old ones are removed.
            raise UserError(f"{self.path}: must be a folder, not a link")
        wrong: list[str] = []
        for epoch in self.epochs():
            try:
                self.load(config, seed, epoch)
            except UserError as error:
                wrong.append(str(error))
            else:
                return epoch, wrong
        if wrong:
            again = f"no good checkpoint is left: remove {self.path.parent} to begin again"
            raise UserError(f"{wrong[0]}; {again}")
        return 0, []

    def save(self, snapshot: Snapshot, config: Config, seed: int) -> None:
        """Adds a checkpoint, and removes all but the last `KEPT`.

        Raises `OSError` if it cannot be written; the earlier ones are still there.
        """
        file = self.file(int(snapshot.epoch))
        files.clear(self.path)
        if file.is_dir():  # Damaged, or the run would have gone on from there.
            files.remove(file)
        files.write_arrays(file, pack(snapshot, config, seed), compressed=False)
        self.keep(KEPT)

    def keep(self, count: int) -> None:
        """Removes all but so many of the newest checkpoints."""
        for old in self.epochs()[count:]:
            files.remove(self.file(old))

    def forget(self, epoch: int) -> None:
        """Removes checkpoints after later epochs: they would push out good ones."""
        files.clear(self.path)
        for later in self.epochs():
            if later > epoch:
                files.remove(self.file(later))


def identity(config: Config, seed: int) -> str:
    """The seed and config of a run as a line of JSON, by which checkpoints are told apart."""
    return json.dumps({"seed": seed, "config": to_dict(config)}, sort_keys=True)


def _check_identity(text: str, config: Config, seed: int) -> None:
    """Raises `ValueError` unless an identity is of this run, which may have got more epochs."""
    try:
        named = json.loads(text)
        other = from_dict(Config, named["config"])
        train = dataclasses.replace(other.train, epochs=config.train.epochs)
        same = (dataclasses.replace(other, train=train), named["seed"]) == (config, seed)
    except (ValueError, TypeError, KeyError, RecursionError, UserError):
        same = False
    if not same:
        raise ValueError("it is of another run")


def pack(snapshot: Snapshot, config: Config, seed: int) -> dict[str, np.ndarray]:
    """Names the arrays of a checkpoint by their place in it, such as state/params/output."""
    leaves = jax.tree_util.tree_leaves_with_path(snapshot)
    arrays = {_name(path): np.asarray(leaf) for path, leaf in leaves}
    return {"run": np.array(identity(config, seed)), **arrays}


def unpack(arrays: dict[str, np.ndarray], config: Config, seed: int, epoch: int) -> Snapshot:
    """Makes a snapshot of the arrays of a checkpoint.

    Raises `ValueError` if the arrays are not of this run after this epoch.
    """
    _check_identity(str(arrays.get("run")), config, seed)
    if not np.array_equal(arrays.get("epoch", 0), epoch) or epoch > config.train.epochs:
        raise ValueError(f"it is of epoch {arrays.get('epoch')}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(like(config, epoch))
    expected = {_name(path): leaf for path, leaf in leaves}
    arrays = _renamed(arrays, config) if config.model.fused else arrays
    for name, leaf in expected.items():
        array = arrays.get(name)
        if array is None or (array.dtype, array.shape) != (leaf.dtype, leaf.shape):
            raise ValueError(f"{name} must be {leaf.dtype} {list(leaf.shape)}")
    snapshot: Snapshot = jax.tree.unflatten(structure, [arrays[name] for name in expected])
    return snapshot


def _renamed(arrays: dict[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """The arrays by today's names, also those of an earlier version."""
    for place in [name.removesuffix(BIAS) for name in arrays if name.endswith(BIAS)]:
        parts = {
            tuple(name.removeprefix(f"{place}/").split("/")): array
            for name, array in arrays.items()
            if name.startswith(f"{place}/")
        }
        try:
            named: Any = traverse_util.unflatten_dict(parts)  # type: ignore[no-untyped-call]
            weights = network.from_flax(named, config.model)
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{place} must have all arrays of its weights") from None
        arrays = arrays | {f"{place}/{name}": x for name, x in weights._asdict().items()}
    return arrays


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def like(config: Config, epoch: int) -> Snapshot:
    """A snapshot after an epoch, otherwise of zeros in the shapes and dtypes of a run."""
    seeds = jax.ShapeDtypeStruct((3,), np.uint32)
    begun = jax.eval_shape(compiler.functions(config.canonical).begin, seeds)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), begun.state)
    columns = {name: np.zeros(epoch, dtype) for name, dtype in COLUMNS.items()}
    return Snapshot(np.array(epoch, np.int32), state, columns)
