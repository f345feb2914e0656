"""Measures how fast training is: beside other libraries, as a whole process, as it grows and lasts.

speed: epochs of equal work, in turn. whole: processes from start to end, against the same
exercise in Keras. growth: time and memory against length, cells, series and seeds.
endurance: the cost of checkpoints, and memory and pace of a long run. quality: how soon a network
in training errs how rarely, against the same exercise in Keras.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sumrnn import fields
from sumrnn.cli import command
from sumrnn.errors import require
from sumrnn.fields import Range

# benchmarks/ stays in the checkout: it is no part of what is installed.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

if TYPE_CHECKING:
    from benchmarks.work import Work

Count = Annotated[int, Range(1, 10**6)]


class Kind(enum.StrEnum):
    """What can be measured; modules of benchmarks/ and functions of its figures.py."""

    speed = "speed"
    whole = "whole"
    growth = "growth"
    endurance = "endurance"
    quality = "quality"


USED = {
    Kind.speed: ("cells", "length", "batch_size", "size", "seeds", "peers", "shards"),
    Kind.whole: ("epochs", "shards"),
    Kind.growth: ("cells", "length", "batch_size", "size"),
    Kind.endurance: ("cells", "length", "batch_size", "size", "epochs"),
    Kind.quality: ("epochs",),
}
"""Options that only some kinds have; the others are of all."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One benchmark."""

    kind: tyro.conf.Positional[Kind] = Kind.speed
    """What to measure."""
    repetitions: Count | None = None
    """Rounds that count, epochs of a point of growth, or checkpoints; None: 7 of speed, else 3."""
    quick: bool = False
    """One repetition, and of growth the smallest points, of endurance a hundredth of the epochs: to
    see whether it works."""
    size: int = 7_200
    """Training series (all but whole and quality)."""
    length: int = 30
    """Digits per series (all but whole and quality)."""
    cells: int = 200
    """LSTM cells (all but whole and quality)."""
    batch_size: int = 50
    """Series per step (all but whole and quality)."""
    seed: int = 12
    """Seed of digits, initial parameters and order."""
    seeds: Count | None = None
    """Seeds of the row that trains several at once (speed); None: one for each core."""
    shards: str = "1,2"
    """Values of batch_shards to try for a single run (speed, whole)."""
    peers: str | None = None
    """Rows, such as sumrnn,shards,seeds,scan,keras-tensorflow,keras-jax,pytorch (speed);
    None: all."""
    epochs: Count | None = None
    """Epochs of the whole process (whole), of the long run (endurance) or of each training
    (quality); None: 60, 2000, 60."""
    limit: Count = 600
    """Seconds that a worker may take to answer, or a whole process to end."""
    out: str | None = None
    """Folder to write KIND.json, KIND.md and KIND.png to; None: benchmarks/results/MACHINE."""


def typed(arguments: Arguments) -> str:
    """The command line that asks for this, but for its folder."""
    words = ["python", "scripts/benchmark.py", arguments.kind]
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name not in ("kind", "out") and value != field.default:
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)


def check(arguments: Arguments) -> pathlib.Path:
    """The folder; raises `UserError` for what is impossible, or of another kind of benchmark."""
    fields.check(arguments)
    kind = arguments.kind
    elsewhere = {name for names in USED.values() for name in names} - {*USED[kind]}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        used = field.name not in elsewhere or value == field.default
        require(used, field.name, value, f"left out ({kind} does not use it)")
    from benchmarks import machine

    own = f"benchmarks/results/{machine.folder()}"
    return command.folder("out", own if arguments.out is None else arguments.out)


def main(argv: list[str]) -> None:
    """Measures, prints the table, and writes it with every number and a picture."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    out, kind = check(arguments), arguments.kind
    from benchmarks import figures, machine, process, table
    from benchmarks.work import Work

    sizes = (arguments.size, arguments.length, arguments.cells, arguments.batch_size)
    work = Work(*sizes, arguments.seed)
    usual = 7 if kind == Kind.speed else 3
    repetitions = arguments.repetitions or (1 if arguments.quick else usual)
    measure = planned(arguments, work, repetitions)
    table.prepare(out)
    here = process.once("sumrnn", arguments.limit, "here", work=work)
    found = {
        "kind": kind,
        "command": typed(arguments),
        "machine": machine.here(),
        **{name: here[name] for name in ("versions", "device", "settings")},
        "options": {k: v for k, v in vars(arguments).items() if k != "out"},
        "repetitions": repetitions,
        **measure(),
    }
    found["versions"] |= table.libraries(found.get("rows", []))
    text = importlib.import_module(f"benchmarks.{kind}").markdown(found)
    table.write(out, found, text, lambda: getattr(figures, kind)(found), command.warn)
    print(f"\n{text}\n{out / kind}.json, .md and .png")


def planned(arguments: Arguments, work: Work, repetitions: int) -> Callable[[], dict[str, Any]]:
    """What measures; raises `UserError` for what turns out to be impossible before that."""
    from benchmarks import endurance, growth, quality, speed, whole
    from sumrnn.devices.processor import cores

    kind, limit = arguments.kind, arguments.limit
    shards = speed.parse_shards(arguments.shards, work)
    if kind == Kind.speed:
        names = speed.parse_peers(arguments.peers)
        chosen = speed.programs(work, names, shards, arguments.seeds or cores())
        return functools.partial(speed.measure, work, chosen, repetitions, limit)
    if kind == Kind.growth:
        points = growth.series(work, arguments.quick)
        return functools.partial(growth.measure, work, points, repetitions, limit)
    if kind == Kind.endurance:
        epochs = arguments.epochs or (20 if arguments.quick else 2_000)
        return functools.partial(endurance.measure, work, epochs, repetitions, limit)
    epochs = arguments.epochs or (3 if arguments.quick and kind == Kind.quality else 60)
    if kind == Kind.quality:
        return functools.partial(quality.measure, epochs, 2, repetitions, limit)
    return functools.partial(whole.measure, work, shards, epochs, repetitions, limit)


if __name__ == "__main__":
    command.run(main)
