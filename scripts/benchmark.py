"""Measures how fast training is: beside other libraries, as a whole process, as it grows and lasts.

speed: epochs of equal work, in turn. whole: processes from start to end, against the same
exercise in Keras. growth: time and memory against length, cells, series and seeds.
endurance: the cost of checkpoints, and memory and pace of a long run.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING, Any, Literal

import tyro

from sumrnn import command
from sumrnn.config import ConfigError

# benchmarks/ stays in the checkout: it is no part of what is installed.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.work import Work

USED = {
    "speed": ("cells", "length", "batch_size", "size", "seeds", "peers", "shards"),
    "whole": ("epochs", "shards"),
    "growth": ("cells", "length", "batch_size", "size"),
    "endurance": ("cells", "length", "batch_size", "size", "epochs"),
}
"""Options that only some kinds have; the others are of all."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One benchmark."""

    kind: tyro.conf.Positional[Literal["speed", "whole", "growth", "endurance"]] = "speed"
    """What to measure."""
    repetitions: int | None = None
    """Rounds that count, epochs of a point of growth, or checkpoints; None: 7 of speed, else 3."""
    quick: bool = False
    """One repetition, and of growth the smallest points, of endurance a hundredth of the epochs: to
    see whether it works."""
    size: int = 7_200
    """Training series (all but whole)."""
    length: int = 30
    """Digits per series (all but whole)."""
    cells: int = 200
    """LSTM cells (all but whole)."""
    batch_size: int = 50
    """Series per step (all but whole)."""
    seed: int = 12
    """Seed of digits, initial parameters and order."""
    seeds: int | None = None
    """Seeds of the row that trains several at once (speed); None: one for each core."""
    shards: str = "1,2"
    """Values of batch_shards to try for a single run (speed, whole)."""
    peers: str | None = None
    """Rows, such as sumrnn,shards,seeds,scan,keras-tensorflow,keras-jax,pytorch (speed);
    None: all."""
    epochs: int | None = None
    """Epochs of the whole process (whole) or of the long run (endurance); None: 60, 2000."""
    limit: int = 600
    """Seconds that a worker may take to answer, or a whole process to end."""
    out: str = "benchmarks/results"
    """Folder to write KIND.json, KIND.md and KIND.png to."""


def typed(arguments: Arguments) -> str:
    """The command line that asks for this, but for its folder."""
    words = ["python", "scripts/benchmark.py", arguments.kind]
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name not in ("kind", "out") and value != field.default:
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)


def check(arguments: Arguments) -> None:
    """Raises `ConfigError` for a number that is impossible, or of another kind of benchmark."""
    for name in ("repetitions", "seeds", "epochs", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(name, value, "at least 1")
    elsewhere = {name for names in USED.values() for name in names} - {*USED[arguments.kind]}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name in elsewhere and value != field.default:
            raise ConfigError(field.name, value, f"left out ({arguments.kind} does not use it)")
    if arguments.out == "":  # An unset shell variable, not the working directory.
        raise ConfigError("out", arguments.out, "the name of a folder")


def main(argv: list[str]) -> None:
    """Measures, prints the table, and writes it with every number and a picture."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    check(arguments)
    from benchmarks.work import Work

    work = Work(
        arguments.size,
        arguments.length,
        arguments.cells,
        arguments.batch_size,
        arguments.seed,
    )
    from benchmarks import table

    out = pathlib.Path(arguments.out)
    found, text, figure = measure(arguments, work, out)
    table.write(out, arguments.kind, found, text, figure)
    print(f"\n{text}\n{out / arguments.kind}.json, .md and .png")


def measure(
    arguments: Arguments, work: Work, out: pathlib.Path
) -> tuple[dict[str, Any], str, Figure]:
    """What was found, as JSON, Markdown and a picture; makes the folder before it begins."""
    from benchmarks import endurance, figures, growth, speed, table, whole

    usual = 7 if arguments.kind == "speed" else 3
    repetitions = arguments.repetitions or (1 if arguments.quick else usual)
    found: dict[str, Any] = {
        "kind": arguments.kind,
        "command": typed(arguments),
        "machine": table.machine(),
        "versions": table.versions(),
        "options": {k: v for k, v in dataclasses.asdict(arguments).items() if k != "out"},
        "repetitions": repetitions,
    }
    shards = speed.parse_shards(arguments.shards, work)
    names = speed.parse_peers(arguments.peers)
    table.prepare(out)
    if arguments.kind == "speed":
        seeds = arguments.seeds or speed.default_seeds()
        rows = speed.rows(work, names, shards, seeds)
        found |= speed.measure(work, rows, repetitions, arguments.limit, say)
        return found, speed.markdown(found), figures.speed(found)
    if arguments.kind == "growth":
        found |= growth.measure(work, repetitions, arguments.quick, arguments.limit, say)
        return found, growth.markdown(found), figures.growth(found)
    if arguments.kind == "endurance":
        epochs = arguments.epochs or (20 if arguments.quick else 2_000)
        found |= endurance.measure(work, epochs, repetitions, arguments.limit, say)
        return found, endurance.markdown(found), figures.endurance(found)
    epochs = arguments.epochs or 60
    best = speed.best_shards(work, shards, repetitions, arguments.limit, say)
    asked = whole.commands(arguments.seed, epochs, best)
    found |= {"epochs": epochs, "best_batch_shards": best}
    found |= whole.measure(asked, repetitions, arguments.limit, say)
    return found, whole.markdown(found), figures.whole(found)


def say(line: str) -> None:
    """Shows how far it is."""
    print(line, flush=True)


if __name__ == "__main__":
    command.run(main)
