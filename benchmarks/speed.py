"""Training speed on equal work: epochs in turn, one program at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks import table
from benchmarks import work as work_lib
from benchmarks.peers import MATRIX, PRODUCTS, cores
from benchmarks.process import Process
from benchmarks.work import Work
from sumrnn.command import Failed
from sumrnn.config import ConfigError, TrainConfig

NAMES = ("sumrnn", "shards", "seeds", "scan", "keras-tensorflow", "keras-jax", "pytorch")
"""What --peers chooses from."""
PAUSE = 0.1
"""Seconds between two epochs: threads of some libraries wait a moment before they sleep."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One program."""

    name: str
    """One of `NAMES`."""
    label: str
    peer: str
    """As `peers.create` knows it."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Packages that are no part of this one's installation."""
    runs: int = 1
    """How many an epoch trains."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(importlib.util.find_spec(package) is not None for package in self.needs)


def parse_peers(text: str | None) -> tuple[str, ...]:
    """The names in a list such as "sumrnn,pytorch"; all, if there is none.

    Raises:
      ConfigError: if one is unknown or repeated.
    """
    if text is None:
        return NAMES
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(NAMES) or len(set(names)) < len(names):
        raise ConfigError("peers", text, f"some of {', '.join(NAMES)}, once each, with commas")
    return names


def parse_shards(text: str, work: Work) -> tuple[int, ...]:
    """The numbers in a list such as "1,2".

    Raises:
      ConfigError: if one is no possible `batch_shards` of this work, or repeated.
    """
    try:
        shards = tuple(map(int, text.split(",")))
    except ValueError:
        raise ConfigError("shards", text, "whole numbers with commas between") from None
    if len(set(shards)) < len(shards):
        raise ConfigError("shards", text, "given once each")
    for number in shards:
        work.config(number)
    return shards


def rows(work: Work, names: Sequence[str], shards: Sequence[int], seeds: int) -> list[Row]:
    """The programs to compare, in the order of `NAMES`."""
    default = TrainConfig().batch_shards
    one = {"seeds": [work.seed]}
    together = {"seeds": list(range(work.seed, work.seed + seeds))}
    every = [
        Row("sumrnn", f"sumrnn, one run, batch_shards {default} (default)", "sumrnn", one),
        *(
            Row(
                "shards",
                f"sumrnn, one run, batch_shards {number}",
                "sumrnn",
                {**one, "batch_shards": number},
            )
            for number in shards
            if number != default
        ),
        Row("seeds", f"sumrnn, {seeds} seeds at once, per seed", "sumrnn", together, runs=seeds),
        Row(
            "scan",
            "sumrnn, one run, nn.scan",
            "sumrnn",
            {**one, "batch_shards": 1, "recurrence": "scan"},
        ),
        Row(
            "keras-tensorflow",
            "Keras on TensorFlow",
            "keras",
            {"backend": "tensorflow"},
            ("keras", "tensorflow"),
        ),
        Row("keras-jax", "Keras on JAX", "keras", {"backend": "jax"}, ("keras",)),
        Row("pytorch", "PyTorch", "pytorch", {}, ("torch",)),
    ]
    return [row for row in every if row.name in names]


def check_losses(reference: list[float], found: Mapping[str, list[float]]) -> None:
    """Makes sure that all programs do the same.

    Raises:
      Failed: if the first losses of one are not those of this package.
    """
    for label, losses in found.items():
        if not work_lib.same(reference, losses):
            raise Failed(
                f"{label}: does other work; its first losses are {_list(losses)}, "
                f"those of sumrnn {_list(reference)}"
            )


def _list(losses: list[float]) -> str:
    return " ".join(f"{loss:.6f}" for loss in losses)


def measure(
    work: Work,
    chosen: Sequence[Row],
    repetitions: int,
    limit: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Times every row's epochs, in rounds in which each has its turn.

    Args:
      work: of all.
      chosen: rows; those that are not installed are only named in the result.
      repetitions: rounds that count; one more before them compiles.
      limit: seconds that a worker may take for an answer.
      say: is told a line for each round.

    Returns:
      What JSON shall hold of it.

    Raises:
      Failed: if a worker fails, or does other work than this package.
    """
    present = [row for row in chosen if row.installed]
    floor = Row("matrix", "matrix product", "matrix")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        given = {"work": dataclasses.asdict(work), "file": str(pathlib.Path(folder, "work.npz"))}
        with Process("sumrnn", limit) as maker:
            reference = maker.ask("make", **given)["losses"]
        workers = []
        for row in (floor, *present):
            worker = stack.enter_context(Process(row.label, limit))
            worker.ask("start", peer=row.peer, settings=dict(row.settings), **given)
            workers.append(worker)
        rounds = []
        for number in range(repetitions + 1):
            rounds.append(_round(workers))
            seconds = "  ".join(
                f"{row.name} {answer['seconds']:.2f}"
                for row, answer in zip((floor, *present), rounds[-1], strict=True)
            )
            name = f"round {number}/{repetitions}" if number else "first epochs"
            say(f"{name}  {seconds} s")
        # Before the first losses, which need memory of their own.
        memory = [worker.ask("memory")["mebibytes"] for worker in workers]
        losses = [worker.ask("losses")["losses"] for worker in workers]
    labels = [row.label for row in present]
    check_losses(reference, dict(zip(labels, losses[1:], strict=True)))
    columns = [list(column) for column in zip(*rounds, strict=True)]
    product = [answer["seconds"] / PRODUCTS for answer in columns[0][1:]]
    speed = 2 * MATRIX**3 / median(product)
    measured = {
        row.label: _numbers(row, work, column, speed) | {"memory_mib": peak, "first_losses": first}
        for row, column, peak, first in zip(
            present, columns[1:], memory[1:], losses[1:], strict=True
        )
    }
    fastest = _fastest(measured)
    for numbers in measured.values():
        numbers["times_as_long"] = _ratio(numbers, measured.get(fastest or ""))
    return {
        "work": dataclasses.asdict(work),
        "flops_per_epoch": work.flops,
        "matrix": {"rows": MATRIX, "seconds": product, "flops_per_second": speed},
        "first_losses": reference,
        "fastest": fastest,
        "rows": [
            {"name": row.name, "label": row.label, "installed": row.label in measured}
            | {"settings": dict(row.settings)}
            | measured.get(row.label, {})
            for row in chosen
        ],
    }


def _round(workers: Sequence[Process]) -> list[dict[str, float]]:
    answers = []
    for worker in workers:
        time.sleep(PAUSE)
        answers.append(worker.ask("epoch"))
    return answers


def _numbers(
    row: Row, work: Work, answers: Sequence[Mapping[str, float]], speed: float
) -> dict[str, Any]:
    """Of a row's epochs, the first of which compiles; seconds are of one run."""
    seconds = [answer["seconds"] / row.runs for answer in answers[1:]]
    middle = median(seconds)
    return {
        "name": row.name,
        "runs": row.runs,
        "seconds": seconds,
        "median": middle,
        "min": min(seconds),
        "max": max(seconds),
        "share_of_matrix_speed": work.flops / middle / speed,
        "first_epoch_seconds": answers[0]["seconds"],
        "mean_losses": [answer["loss"] for answer in answers],
    }


def _fastest(measured: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The label of the fastest single run of this package."""
    single = [label for label, x in measured.items() if x["name"] in ("sumrnn", "shards")]
    return min(single, key=lambda label: measured[label]["median"], default=None)


def _ratio(numbers: Mapping[str, Any], reference: Mapping[str, Any] | None) -> float | None:
    """How many times as long as the reference, round by round."""
    if reference is None:
        return None
    own: list[float] = numbers["seconds"]
    pairs = zip(own, reference["seconds"], strict=True)
    return float(median(mine / other for mine, other in pairs))


COLUMNS = (
    "program",
    "s per epoch, median",
    "min",
    "max",
    "times as long",
    "share of matrix speed",
    "first epoch, s",
    "peak memory, MiB",
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    work, matrix, repetitions = found["work"], found["matrix"], len(found["matrix"]["seconds"])
    lines = []
    for row in found["rows"]:
        if not row["installed"]:
            lines.append([row["label"], "not installed", *[table.NONE] * (len(COLUMNS) - 2)])
            continue
        best = row["label"] == found["fastest"]
        lines.append(
            [
                f"**{row['label']}, the fastest**" if best else row["label"],
                *(table.number(row[name], 3) for name in ("median", "min", "max")),
                table.number(row["times_as_long"]),
                f"{100 * row['share_of_matrix_speed']:.0f} %",
                table.number(row["first_epoch_seconds"], 1),
                table.number(row["memory_mib"], 0),
            ]
        )
    return (
        f"# Training speed on equal work\n\n{table.origin(found)}\n\n"
        f"An epoch trains on {work['size']:,} series of {work['length']} digits in batches of "
        f"{work['batch_size']}, with {work['cells']} LSTM cells: "
        f"{found['flops_per_epoch'] / 1e9:,.2f} GFLOP of matrix products. All programs start "
        f"from the same float32 weights, see the same batches, and agree in the losses of the "
        f"first {len(found['first_losses'])} steps. They take turns, each in a process of its "
        f"own while the others idle, {repetitions} epoch{'s' if repetitions > 1 else ''} each "
        f"after a first one that compiles. *Times as long* is the median over the rounds of the "
        f"ratio to the fastest single run; the *matrix speed*, "
        f"{matrix['flops_per_second'] / 1e9:,.0f} GFLOP/s, is that of a float32 product of two "
        f"{matrix['rows']:,} × {matrix['rows']:,} matrices, measured in the same rounds.\n\n"
        f"{table.markdown(COLUMNS, lines)}"
    )


def best_shards(
    work: Work,
    shards: Sequence[int],
    repetitions: int,
    limit: float,
    say: Callable[[str], None],
) -> int:
    """The fastest `batch_shards` of a single run, the default included; see `measure`."""
    default = TrainConfig().batch_shards
    chosen = rows(work, ("sumrnn", "shards"), shards, seeds=1)
    if len(chosen) == 1:
        return default
    found = measure(work, chosen, repetitions, limit, say)
    best = next(row for row in found["rows"] if row["label"] == found["fastest"])
    return int(best["settings"].get("batch_shards", default))


def default_seeds() -> int:
    """Seeds of the row that trains several: one for each core."""
    return cores()
