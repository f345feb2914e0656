"""Training speed on equal work: epochs in turn, one program at a time."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import pathlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks import process, table, turns
from benchmarks.machine import Idle
from benchmarks.peers import MATRIX, PRODUCTS
from benchmarks.table import Column
from benchmarks.turns import Program
from benchmarks.work import Work
from sumrnn.config import TrainConfig, check_seeds
from sumrnn.errors import UserError, invalid, require

NAMES = ("sumrnn", "shards", "seeds", "scan", "keras-tensorflow", "keras-jax", "pytorch")
"""What --peers chooses from."""
TOLERANCE = 1e-4
"""Difference up to which two losses are the same, absolute and as a share."""
FLOOR = Program("matrix", "matrix product")


def parse_peers(text: str | None) -> tuple[str, ...]:
    """The names in a list such as "sumrnn,pytorch", all if there is none; raises `UserError`."""
    names = NAMES if text is None else tuple(map(str.strip, text.split(",")))
    once = set(names) <= set(NAMES) and len(set(names)) == len(names)
    require(once, "peers", text, f"some of {', '.join(NAMES)}, once each, with commas")
    return names


def parse_shards(text: str, work: Work) -> tuple[int, ...]:
    """The values of `batch_shards` in a list such as "1,2"; raises `UserError`."""
    try:
        shards = tuple(map(int, text.split(",")))
    except ValueError:
        raise invalid("shards", text, "whole numbers with commas between") from None
    require(len(set(shards)) == len(shards), "shards", text, "given once each")
    for number in shards:
        work.config(number)
    return shards


def programs(work: Work, names: Sequence[str], shards: Sequence[int], seeds: int) -> list[Program]:
    """The programs of some of `NAMES`; those of a single run with each of the `batch_shards`.

    Raises `UserError` if there are not so many seeds from the work's own on.
    """
    default, one = TrainConfig.batch_shards, {"seeds": [work.seed]}
    several = check_seeds("seeds", range(work.seed, work.seed + seeds))
    single, scan = "sumrnn, one run, batch_shards", {"batch_shards": 1, "recurrence": "scan"}
    tensorflow, at_once = ("keras", "tensorflow"), f"sumrnn, {seeds} seeds at once, per seed"
    others = [n for n in shards if n != default]
    every = [
        Program("sumrnn", f"{single} {default} (default)", one),
        *(Program("shards", f"{single} {n}", one | {"batch_shards": n}) for n in others),
        Program("seeds", at_once, {"seeds": several}, runs=seeds),
        Program("scan", "sumrnn, one run, nn.scan", one | scan),
        Program("keras-tensorflow", "Keras on TensorFlow", {"backend": "tensorflow"}, tensorflow),
        Program("keras-jax", "Keras on JAX", {"backend": "jax"}, ("keras",)),
        Program("pytorch", f"PyTorch, {pytorch_build()} build", {}, ("torch",)),
    ]
    return [program for program in every if program.name in names]


def pytorch_build() -> str:
    """CPU unless what is installed is for CUDA, which is larger and starts later."""
    needs = ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        needs = " ".join(importlib.metadata.requires("torch") or ())
    return "CUDA" if "cuda" in needs or "nvidia" in needs else "CPU"


def check_losses(label: str, reference: list[float], found: list[float]) -> None:
    """Raises `UserError` if a program's first losses are not those of this package."""
    shape = np.shape(reference)
    if np.shape(found) != shape or not np.allclose(found, reference, TOLERANCE, TOLERANCE):
        own, ours = (" ".join(f"{x:.6f}" for x in losses) for losses in (found, reference))
        what = f"does other work; its first losses are {own}, those of sumrnn {ours}"
        raise UserError(f"{label}: {what}", 1)


def measure(
    work: Work, chosen: Sequence[Program], repetitions: int, limit: float
) -> dict[str, Any]:
    """Times the programs' epochs in turn, after one that compiles; what JSON shall hold of it.

    Programs that are not installed are only named.  Raises `UserError` if one fails, needs longer
    than the limit for an answer, or does other work than this package.
    """
    present = [program for program in chosen if program.installed]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        given = {"work": work, "file": str(pathlib.Path(folder, "work.npz"))}
        reference = process.once("sumrnn", limit, "make", **given)["losses"]
        workers, ready, idle = dict[Program, process.Ask](), dict[Program, float](), Idle()
        for program in [FLOOR, *present]:
            began = time.perf_counter()
            ask = stack.enter_context(process.worker(program.label, limit))
            ask("start", name=program.name, settings=program.settings, **given)
            workers[program], ready[program] = ask, time.perf_counter() - began
        epochs = {p: functools.partial(ask, "epoch") for p, ask in workers.items()}
        answers = turns.take(epochs, repetitions, idle, warm=True)
        ends = {p: ask("losses") for p, ask in workers.items()}
    product = [answer["seconds"] / PRODUCTS for answer in answers[FLOOR][1:]]
    speed, measured = 2 * MATRIX**3 / median(product), {}
    for p in present:
        check_losses(p.label, reference, ends[p]["first_losses"])
        measured[p] = numbers(p, work, answers[p], speed, ready[p]) | ends[p]
    single = [p for p in present if p.name in ("sumrnn", "shards")]
    fastest = min(single, key=lambda p: median(measured[p]["seconds"]), default=None)
    return {
        "work": vars(work),
        "flops_per_epoch": work.flops,
        "matrix": {"rows": MATRIX, "seconds": product, "flops_per_second": speed},
        "busy_cores": idle.cores,
        "first_losses": reference,
        "fastest": fastest and fastest.label,
        "rows": turns.rows(chosen, measured, fastest),
    }


def numbers(
    program: Program,
    work: Work,
    answers: Sequence[Mapping[str, float]],
    speed: float,
    ready: float,
) -> dict[str, Any]:
    """Of a program's epochs, the first of which compiles; seconds are of one run.

    `ready` are those from the start of its process to the first epoch.
    """
    seconds = [answer["seconds"] / program.runs for answer in answers[1:]]
    return {
        "seconds": seconds,
        "share_of_matrix_speed": work.flops / median(seconds) / speed,
        "start_seconds": ready + answers[0]["seconds"],
        "mean_losses": [answer["loss"] for answer in answers],
    }


COLUMNS = (
    *turns.columns("s per epoch", 3),
    Column("share of matrix speed", "share_of_matrix_speed", 0, is_share=True),
    Column("start to end of first epoch, s", "start_seconds", 1),
    Column("peak memory, MiB", "memory_mib", 0),
)


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it needs to be understood."""
    best = {"label": f"**{found['fastest']}, the fastest**"}
    lines = [row | best if row["label"] == found["fastest"] else row for row in found["rows"]]
    return table.page(found, COLUMNS, lines)
