"""A run on disk: its layout, and reading it back with every check.

config.json      name, config, seed, versions of code and packages, device; sealed
history.csv      one row per epoch
checkpoints/     the last ones (see `checkpoint`)
predictions.npz  digits, labels and logits
SHA256SUMS       of the files above but the checkpoints, written last: the run has ended
report.json, report.md, figures/*.png      rebuilt from the first four at any time
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import pathlib
import platform
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sumrnn import checkpoint, files
from sumrnn import config as config_lib
from sumrnn.config import Config
from sumrnn.files import SUMS, RunError
from sumrnn.task import Splits

FORMAT = 3
CONFIG = checkpoint.CONFIG
CHECKPOINTS = checkpoint.CHECKPOINTS
HISTORY = "history.csv"
PREDICTIONS = "predictions.npz"
REPORT_JSON = "report.json"
REPORT_MD = "report.md"
FIGURES = "figures"
ENTRIES = (REPORT_MD, REPORT_JSON, FIGURES, SUMS, PREDICTIONS, CHECKPOINTS, HISTORY, CONFIG)

NAME = "[a-z0-9][a-z0-9.-]{0,99}"
NAMED = "up to 100 lower-case letters, digits, dots and hyphens"
"""What runs, experiments and conditions are called: parts of folders' names, titles of figures."""
COLUMNS = ("epoch", *checkpoint.COLUMNS)
PACKAGES = ("sumrnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
CODE = ("config", "task", "recurrence", "model", "train", "placement")
"""Modules of this package on which the bits of a run depend."""
PREFIXES = {"train": "train_", "validation": "validation_", "test": ""}
"""Splits, and what their arrays' names in predictions.npz begin with."""


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


Status = Literal["finished", "diverged", "unfinished"]


def _is_new(path: pathlib.Path) -> bool:
    """Whether there is nothing in a folder; raises `RunError` if what is there is no run."""
    try:
        if files.is_empty(path):
            return True
        if (path / CONFIG).is_file():
            return False
    except OSError as error:
        raise files.unwritable(path, error) from None
    raise _foreign(path)


def _foreign(path: pathlib.Path) -> RunError:
    return RunError(
        f"out = {str(path)!r}: must be new, empty or a run folder; "
        f"it has other content and no {CONFIG} of a run, so it is left alone"
    )


def check_free(path: pathlib.Path, overwrite: bool) -> None:
    """Makes sure that a run may be written to `path`; touches nothing.

    Raises:
      RunError: if something is there that may not be replaced.
    """
    if _is_new(path):
        return
    try:  # Of any version, and its numbers may be damaged, but others have a config.json too.
        read = json.loads((path / CONFIG).read_bytes())
        is_run = {"format", "seed", "config", "versions"} <= set(read)
    except OSError as error:
        raise files.unwritable(path, error) from None
    except (ValueError, TypeError, RecursionError):
        is_run = False
    if not is_run:
        raise _foreign(path)
    if not overwrite:
        raise RunError(
            f"out = {str(path)!r}: must be new or empty; --resume continues the run there, "
            "--overwrite replaces it"
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


def check_made_here(file: pathlib.Path, found: dict[str, Any]) -> None:
    """Makes sure that what is continued here keeps its bits.

    Args:
      file: that the next one was read from.
      found: its `versions` and `device`.

    Raises:
      RunError: if it was made with other versions or on another device.
    """
    made_with = found["versions"] | {"device": found.get("device")}
    for name, version in (versions() | {"device": device()}).items():
        if (made := made_with.get(name)) != version:
            raise RunError(
                f"{file}: was made with {name} {made}, this is {version}, which may give other "
                "bits; choose another folder or go back to that version"
            )


def create(path: pathlib.Path, config: Config, seed: int, name: str) -> None:
    """Starts a run folder: removes the run that may be there, and writes config.json.

    Raises:
      RunError: if `path` cannot be written.
      OSError: if the disk is full.
    """
    described = {
        "format": FORMAT,
        "name": name,
        "seed": seed,
        "config": config_lib.to_dict(config),
        "versions": versions(),
        "device": device(),
    }
    try:
        files.clear(path)
        # Killed in between, this is still the old run, which lacks something.
        for entry in ENTRIES[:-1]:
            files.remove(path / entry)
        files.write_sealed(path / CONFIG, described)
    except OSError as error:
        raise files.unwritable(path, error) from None


def check_same(path: pathlib.Path, config: Config, seed: int) -> None:
    """Makes sure that a folder holds this run or none; touches nothing, nor looks how far it is.

    Raises:
      RunError: if it is another run, made by other code, or its config.json is damaged.
    """
    if _is_new(path):
        return
    read = read_config(path)
    if (read["config"], read["seed"]) != (config, seed):
        raise RunError(f"{path / CONFIG}: is of another run; {_difference(read, config, seed)}")
    check_made_here(path / CONFIG, read)


def survey(path: pathlib.Path, config: Config, seed: int) -> tuple[Status, int, list[str]]:
    """How far the run in a folder is that no other process works on; touches nothing.

    Args:
      path: the folder; may be new or empty.
      config: of the run that must be there.
      seed: of this run.

    Returns:
      Its status; the epoch after which it can be continued; and what is damaged, but can be
      made again from what is not.

    Raises:
      RunError: if it is another run, or cannot be continued.
    """
    check_same(path, config, seed)
    if files.is_empty(path):
        return "unfinished", 0, []
    wrong = []
    try:
        ended = status(path)
        if ended != "unfinished":
            check_sums(path)
            return ended, config.train.epochs, []
    except RunError as error:
        wrong.append(str(error))
    epoch, older = checkpoint.newest(path, config)
    return "unfinished", epoch, wrong + older


def _difference(read: dict[str, Any], config: Config, seed: int) -> str:
    """The first value in which two runs differ."""
    there, here = (
        _flat({"seed": s} | config_lib.to_dict(c))
        for s, c in ((read["seed"], read["config"]), (seed, config))
    )
    name = next(name for name in there if there[name] != here[name])
    return f"its {name} is {there[name]!r}, not {here[name]!r}"


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= _flat(value) if isinstance(value, dict) else {name: value}
    return found


def write_history(path: pathlib.Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes history.csv; nine digits hold a float32 exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        metrics = [f"{row[name]:.9g}" for name in COLUMNS[1:-1]]
        writer.writerow([row["epoch"], *metrics, f"{row['seconds']:.6f}"])
    files.write_atomic(path / HISTORY, text.getvalue())


def write_predictions(path: pathlib.Path, parts: dict[str, Part]) -> None:
    """Writes predictions.npz; the same arrays give the same bytes."""
    arrays = {
        PREFIXES[name] + field: np.asarray(array)
        for name, part in parts.items()
        for field, array in vars(part).items()
    }
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **arrays)
    files.write_atomic(path / PREDICTIONS, data.getvalue())


def finish(path: pathlib.Path, data: Splits, logits: Sequence[Any]) -> None:
    """Writes the predictions of a run whose history is written, and that it has finished."""
    parts = {
        name: Part(np.asarray(split.digits), np.asarray(split.labels), np.asarray(answer))
        for name, split, answer in zip(data._fields, data, logits, strict=True)
    }
    write_predictions(path, parts)
    files.write_sums(path, (CONFIG, HISTORY, PREDICTIONS))


def give_up(path: pathlib.Path) -> None:
    """Marks a run whose history is written as one whose numbers are no longer finite."""
    files.remove(path / PREDICTIONS)
    files.write_sums(path, (CONFIG, HISTORY))


def status(path: pathlib.Path) -> Status:
    """How the run in a folder ended; "unfinished" if it did not, or there is none.

    Raises:
      RunError: if its SHA256SUMS is damaged.
    """
    sums = files.read_sums(path)
    if not sums:
        return "unfinished"
    if set(sums) == {CONFIG, HISTORY, PREDICTIONS}:
        return "finished"
    # Cut short, that of a finished run must not be taken for one's that diverged.
    if set(sums) == {CONFIG, HISTORY} and not (path / PREDICTIONS).exists():
        return "diverged"
    raise RunError(f"{path / SUMS}: damaged (it does not name the files of the run)")


def divergence(path: pathlib.Path, config: Config) -> str:
    """One line: when and how the run in a folder diverged.

    Raises:
      RunError: if its history is damaged.
    """
    with files.explain(path / HISTORY):
        *_, last = (path / HISTORY).read_text(encoding="utf-8").splitlines()
        row = dict(zip(COLUMNS, last.split(","), strict=True))
    return (
        f"loss = {row['loss']}, val_loss = {row['val_loss']} in epoch {row['epoch']}: these, the "
        "parameters and Adam's moments must be finite; a learning_rate below "
        f"{config.train.learning_rate} may help"
    )


def check_sums(path: pathlib.Path) -> None:
    """Makes sure that the files of a run that has ended are as they were then.

    Raises:
      RunError: if one is not.
    """
    sums = files.read_sums(path)
    for name in (CONFIG, HISTORY, PREDICTIONS):
        if name in sums or name != PREDICTIONS:
            files.check_sum(path, name, sums)


def write_report(
    path: pathlib.Path, texts: dict[str, bytes | str], figures: dict[str, Any]
) -> None:
    """Writes what is rebuilt from a folder: files by name, matplotlib figures as PNG.

    Raises:
      RunError: if the folder cannot be written.
      OSError: if the disk is full.
    """
    for name, figure in figures.items():
        png = io.BytesIO()
        # The same figure gives the same bytes, whatever wrote it.
        figure.savefig(png, format="png", metadata={"Software": None})
        texts = texts | {f"{FIGURES}/{name}.png": png.getvalue()}
    try:
        if (path / FIGURES).is_symlink():  # Replaced as a file that is a link is.
            files.remove(path / FIGURES)
        files.clear(path / FIGURES)
        for name, content in texts.items():
            files.write_atomic(path / name, content)
    except OSError as error:
        raise files.unwritable(path, error) from None


def check_texts(field: str, value: Any, *names: str) -> None:
    """Raises ValueError unless the value is a dict of lines of text that has these names."""
    texts = isinstance(value, dict) and all(
        isinstance(text, str) and text.isprintable() for pair in value.items() for text in pair
    )
    if not texts or not set(names) <= set(value):
        raise ValueError(f"{field} must be lines of text with {' and '.join(names)}")


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The content of a run's config.json, checked; `config` is a `Config`.

    Raises:
      RunError: if it is missing, unreadable or damaged.
    """
    file = path / CONFIG
    with files.explain(file):
        read = files.read_sealed(file, FORMAT)
        config_lib.check_seed("seed", read["seed"])
        check_texts("versions", read["versions"], "jax")
        check_texts("device", read["device"], "kind")
        if not isinstance(read["name"], str) or not re.fullmatch(NAME, read["name"]):
            raise ValueError(f"name must be {NAMED}")
        return read | {"config": config_lib.from_dict(Config, read["config"])}


def _read_history(path: pathlib.Path, epochs: int) -> dict[str, np.ndarray]:
    with files.explain(path):
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
    read = read_config(path)
    config: Config = read["config"]
    ended = status(path)
    if ended == "unfinished":
        raise RunError(f"{path / SUMS}: missing, so this is no finished run; --resume continues it")
    check_sums(path)
    if ended == "diverged":
        raise RunError(f"{path / PREDICTIONS}: missing, because the run diverged (see {HISTORY})")
    history = _read_history(path / HISTORY, config.train.epochs)
    task = config.task
    sizes = (task.train_size, task.validation_size, task.test_size)
    predictions = path / PREDICTIONS
    with files.explain(predictions), np.load(predictions, allow_pickle=False) as arrays:
        parts = {
            name: _read_part(arrays, name, size, config)
            for name, size in zip(PREFIXES, sizes, strict=True)
        }
    rest = {name: read.get(name) for name in ("seed", "name", "versions", "device")}
    return Run(config=config, history=history, parts=parts, **rest)  # type: ignore[arg-type]
