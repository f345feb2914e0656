"""A run on disk: its layout, atomic writes, and reading it back with every check.

config.json      name, config, seed, versions of code and packages, device
history.csv      one row per epoch
predictions.npz  digits, labels and logits
checkpoint/      parameters and optimiser state (Orbax)
report.json, report.md, figures/*.png      rebuilt from the first three at any time
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from sumrnn import config as config_lib
from sumrnn.config import Config
from sumrnn.task import Splits

FORMAT = 2
CONFIG = "config.json"
HISTORY = "history.csv"
PREDICTIONS = "predictions.npz"
CHECKPOINT = "checkpoint"
REPORT_JSON = "report.json"
REPORT_MD = "report.md"
FIGURES = "figures"
ENTRIES = (REPORT_MD, REPORT_JSON, FIGURES, CHECKPOINT, PREDICTIONS, HISTORY, CONFIG)

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
PACKAGES = ("sumrnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
TEMPORARY = ".tmp"
"""Ending of a file that is being written; a killed process may leave one."""
CODE = ("config", "task", "recurrence", "model", "train", "placement")
"""Modules of this package on which the bits of a run depend."""
PREFIXES = {"train": "train_", "validation": "validation_", "test": ""}
"""Splits, and what their arrays' names in predictions.npz begin with."""


class RunError(Exception):
    """One line: which folder or file cannot be used, and why."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One split with the final network's answers."""

    digits: np.ndarray
    """uint8 [n, length]."""
    labels: np.ndarray
    """uint8 [n]: {0, 1}."""
    logits: np.ndarray
    """float32 [n], finite."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder."""

    config: Config
    seed: int
    name: str
    """The preset, or the condition of an experiment."""
    versions: dict[str, str]
    device: dict[str, Any]
    history: dict[str, np.ndarray]
    """Columns of history.csv, float64 [epochs]."""
    parts: dict[str, Part]
    """By split: train, validation, test."""


def write_atomic(path: pathlib.Path, content: bytes | str) -> None:
    """Writes a whole file or nothing: readers see the old content or the new one."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: pathlib.Path, error: OSError) -> RunError:
    """The refusal of a folder that the system does not let us write."""
    return RunError(f"out = {str(path)!r}: must be a folder that can be written ({error.strerror})")


def to_json(value: Any) -> str:
    """Indented JSON; raises ValueError on NaN or infinity, which JSON does not have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def is_empty(path: pathlib.Path) -> bool:
    """Whether nothing is in the way of a new folder, but for what a killed process left."""
    if not path.exists():
        return True
    return path.is_dir() and all(
        entry.name.startswith(".") and entry.name.endswith(TEMPORARY) for entry in path.iterdir()
    )


def clear(path: pathlib.Path) -> None:
    """Makes the folder, and removes from it what a killed process was writing."""
    path.mkdir(parents=True, exist_ok=True)
    for left in path.glob(f".*{TEMPORARY}"):
        left.unlink()


def check_free(path: pathlib.Path, overwrite: bool) -> None:
    """Makes sure that a run may be written to `path`; touches nothing.

    Raises:
      RunError: if something is there that may not be replaced.
    """
    try:
        if is_empty(path):
            return
        replaceable = (path / CONFIG).is_file()
    except OSError as error:
        raise unwritable(path, error) from None
    if not replaceable:
        raise RunError(
            f"out = {str(path)!r}: must be new, empty or a run folder; "
            f"it has other content and no {CONFIG}, so it is left alone"
        )
    if not overwrite:
        raise RunError(
            f"out = {str(path)!r}: must be new or empty; --overwrite replaces the run there"
        )


def versions() -> dict[str, str]:
    """Versions of all that the bits of a run depend on, beside config, seed and processor.

    `code` is a hash of the modules that compute the numbers.
    """
    code = hashlib.sha256()
    for name in CODE:
        code.update(pathlib.Path(__file__).with_name(f"{name}.py").read_bytes())
    return {"code": code.hexdigest()[:12], "python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def device() -> dict[str, str]:
    """What computes the runs."""
    import jax

    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "machine": platform.machine(),
    }


def create(path: pathlib.Path, config: Config, seed: int, name: str, overwrite: bool) -> None:
    """Starts a run folder: removes the run it replaces, and writes config.json.

    Raises:
      RunError: if `path` is taken or cannot be written.
    """
    check_free(path, overwrite)
    described = {
        "format": FORMAT,
        "name": name,
        "seed": seed,
        "config": config_lib.to_dict(config),
        "versions": versions(),
        "device": device(),
    }
    try:
        clear(path)
        for entry_name in ENTRIES:
            entry = path / entry_name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        write_atomic(path / CONFIG, to_json(described))
    except OSError as error:
        raise unwritable(path, error) from None


def write_history(path: pathlib.Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes history.csv; nine digits hold a float32 exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        metrics = [f"{row[name]:.9g}" for name in COLUMNS[1:-1]]
        writer.writerow([row["epoch"], *metrics, f"{row['seconds']:.3f}"])
    write_atomic(path / HISTORY, text.getvalue())


def write_predictions(path: pathlib.Path, parts: dict[str, Part]) -> None:
    """Writes predictions.npz; the same arrays give the same bytes."""
    arrays = {
        PREFIXES[name] + field: np.asarray(array)
        for name, part in parts.items()
        for field, array in vars(part).items()
    }
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **arrays)
    write_atomic(path / PREDICTIONS, data.getvalue())


def write_checkpoint(path: pathlib.Path, state: Any) -> None:
    """Writes parameters and optimiser state; Orbax renames a finished folder into place."""
    import orbax.checkpoint as ocp

    # Of several processes only the first one writes, so it must not wait for the others.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="alone"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save((path / CHECKPOINT).absolute(), state, force=True)


def finish(path: pathlib.Path, state: Any, data: Splits, logits: Sequence[Any]) -> None:
    """Writes what a run leaves at its end; the checkpoint last, as the sign that all is there."""
    parts = {
        name: Part(np.asarray(split.digits), np.asarray(split.labels), np.asarray(answer))
        for name, split, answer in zip(data._fields, data, logits, strict=True)
    }
    write_predictions(path, parts)
    write_checkpoint(path, state)


def is_finite(row: dict[str, float]) -> bool:
    """Whether the losses of an epoch are still numbers."""
    return math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])


def status(path: pathlib.Path) -> Literal["finished", "diverged", "unfinished"]:
    """How the run in a folder ended; "unfinished" if there is none."""
    if (path / PREDICTIONS).is_file() and (path / CHECKPOINT).is_dir():
        return "finished"
    try:
        *_, last = (path / HISTORY).read_text(encoding="utf-8").splitlines()
        values = dict(zip(COLUMNS, map(float, last.split(",")), strict=True))
        return "unfinished" if is_finite(values) else "diverged"
    except (OSError, ValueError):
        return "unfinished"


def write_report(
    path: pathlib.Path, files: dict[str, bytes | str], figures: dict[str, Any]
) -> None:
    """Writes what is rebuilt from a folder: files by name, matplotlib figures as PNG.

    Raises:
      RunError: if the folder cannot be written.
    """
    for name, figure in figures.items():
        png = io.BytesIO()
        # The same figure gives the same bytes, whatever wrote it.
        figure.savefig(png, format="png", metadata={"Software": None})
        files = files | {f"{FIGURES}/{name}.png": png.getvalue()}
    try:
        (path / FIGURES).mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomic(path / name, content)
    except OSError as error:
        raise unwritable(path, error) from None


@contextlib.contextmanager
def explain(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever an unreadable file raises into a `RunError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing, so this is no finished run folder; it must hold "
            f"{CONFIG}, {HISTORY} and {PREDICTIONS}"
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
    except KeyError as error:
        raise RunError(f"{path}: damaged (no {error.args[0]})") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        RecursionError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise RunError(f"{path}: damaged ({error})") from None


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    with explain(path):
        read = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(read, dict) or read.get("format") != FORMAT:
            raise ValueError(f"must be an object with format = {FORMAT}")
        config_lib.check_seed("seed", read["seed"])
        for name, needed in (("versions", "jax"), ("device", "kind")):
            if not isinstance(read[name], dict) or not isinstance(read[name].get(needed), str):
                raise ValueError(f"{name} must be an object with {needed}")
        if not isinstance(read["name"], str):
            raise ValueError("name must be text")
        return read | {"config": config_lib.from_dict(Config, read["config"])}


def _read_history(path: pathlib.Path, epochs: int) -> dict[str, np.ndarray]:
    with explain(path):
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError(f"the first line must be {','.join(COLUMNS)}")
        values = np.array(rows[1:], np.float64).reshape(-1, len(COLUMNS))
        if len(values) != epochs:
            raise ValueError(f"{len(values)} of {epochs} epochs; the run did not finish")
        if not np.isfinite(values).all():
            raise ValueError("every value must be a finite number")
        if (values[:, 0] != np.arange(1, epochs + 1)).any():
            raise ValueError(f"the epochs must be 1 to {epochs} in this order")
        return dict(zip(COLUMNS, values.T, strict=True))


def _read_part(arrays: Any, name: str, size: int, config: Config) -> Part:
    shapes = {
        "digits": (np.uint8, (size, config.task.length)),
        "labels": (np.uint8, (size,)),
        "logits": (np.float32, (size,)),
    }
    read = {field: arrays[PREFIXES[name] + field] for field in shapes}
    for field, (dtype, shape) in shapes.items():
        if read[field].dtype != dtype or read[field].shape != shape:
            raise ValueError(f"{PREFIXES[name]}{field} must be {np.dtype(dtype)} {list(shape)}")
    part = Part(**read)
    task = config.task
    if part.digits.min() < task.low or part.digits.max() > task.high:
        raise ValueError(f"{PREFIXES[name]}digits must lie between {task.low} and {task.high}")
    if ((part.digits.sum(axis=1) >= task.threshold) != part.labels).any():
        raise ValueError(
            f"{PREFIXES[name]}labels must be 1 where the digits sum to {task.threshold}"
        )
    if not np.isfinite(part.logits).all():
        raise ValueError(f"{PREFIXES[name]}logits must be finite")
    return part


def load(path: pathlib.Path) -> Run:
    """Reads a finished run.

    Raises:
      RunError: if a file is missing, unreadable, damaged, or disagrees with the config.
    """
    if not path.is_dir():
        raise RunError(f"{path}: must be a run folder")
    read = _read_config(path / CONFIG)
    config: Config = read["config"]
    history = _read_history(path / HISTORY, config.train.epochs)
    task = config.task
    sizes = (task.train_size, task.validation_size, task.test_size)
    predictions = path / PREDICTIONS
    with explain(predictions), np.load(predictions, allow_pickle=False) as arrays:
        parts = {
            name: _read_part(arrays, name, size, config)
            for name, size in zip(PREFIXES, sizes, strict=True)
        }
    rest = {name: read.get(name) for name in ("seed", "name", "versions", "device")}
    return Run(config=config, history=history, parts=parts, **rest)  # type: ignore[arg-type]
