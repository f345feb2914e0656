"""Measures how fast training is, how soon it is good, where time goes, and how far it scales.

speed: epochs of equal work beside Keras and PyTorch, growth with every size, whole processes.
quality: how soon a network in training errs how rarely, beside the same exercise in Keras.
profile: the kernels of a training step. scale: very many runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shlex
import signal
from typing import Annotated, Literal, NoReturn

import tyro

from sumrnn import fields
from sumrnn.cli import command
from sumrnn.errors import UserError, require
from sumrnn.fields import Range

Count = Annotated[int, Range(1, 10**6)]


Kind = Literal["speed", "quality", "profile", "scale"]
"""What can be measured: the modules of this package that have `plan` and `page`."""
USED: dict[Kind, tuple[str, ...]] = {
    "speed": ("size", "length", "cells", "batch_size", "seed"),
    "quality": ("epochs",),
    "profile": (),
    "scale": ("runs",),
}
"""Options that only one kind has; the others are of all."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One benchmark."""

    kind: tyro.conf.Positional[Kind] = "speed"
    """What to measure."""
    repetitions: Count | None = None
    """Rounds in which every program has a turn; None: 3, of scale 1."""
    quick: bool = False
    """One round of the smallest sizes, to see whether it works."""
    size: int = 7_200
    """Training series (speed)."""
    length: int = 30
    """Digits per series (speed)."""
    cells: int = 200
    """LSTM cells (speed)."""
    batch_size: int = 50
    """Series per step (speed)."""
    seed: int = 12
    """Seed of digits, initial parameters and order (speed)."""
    epochs: Count | None = None
    """Epochs of each training (quality); None: 60."""
    runs: Count = 1_000
    """Runs of the experiment (scale)."""
    limit: Count = 3_600
    """Seconds that a turn may take."""
    out: str | None = None
    """Folder to write KIND.json, KIND.md and KIND.png to; None: benchmarks/results/PROCESSOR."""

    @property
    def rounds(self) -> int:
        """The rounds that are meant."""
        return self.repetitions or (1 if self.quick or self.kind == "scale" else 3)


def check(arguments: Arguments) -> None:
    """Raises `UserError` for an option that is impossible, or of another kind of benchmark."""
    fields.check(arguments)
    kind = arguments.kind
    elsewhere = {name for names in USED.values() for name in names} - {*USED[kind]}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        used = field.name not in elsewhere or value == field.default
        require(used, field.name, value, f"left out ({kind} does not use it)")
    if arguments.out is not None:
        command.folder("out", arguments.out)


def stop(number: int, frame: object) -> NoReturn:
    """Ends the command by an error, on whose way out the turn that is being taken is killed."""
    raise UserError("interrupted", 128 + number)


def main(argv: list[str]) -> None:
    """Measures, prints the page, and writes it with every number and a picture."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    check(arguments)
    from benchmarks import harness

    for number in harness.STOPPING:
        signal.signal(number, stop)

    kind, load = arguments.kind, os.getloadavg()[0]
    module = importlib.import_module(f"benchmarks.{kind}")
    facts, tables = module.plan(arguments)
    here = harness.turn(
        harness.Program("origin", harness.call("harness.origin")), ".", arguments.limit
    )
    place = "-".join(re.findall(r"[a-z0-9]+", f"{here['processor']} {here['cores']} cores".lower()))
    out = command.folder("out", arguments.out or f"benchmarks/results/{place}")
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "kind": kind,
        "command": shlex.join(["python", "scripts/benchmark.py", *argv]),
        **{name: here[name] for name in ("processor", "cores", "versions", "device", "settings")},
        "load": load,
        "repetitions": arguments.rounds,
        **facts,
        **harness.measure(tables, arguments.rounds, arguments.limit),
    }
    text = module.page(results)
    (out / f"{kind}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / f"{kind}.md").write_text(text, encoding="utf-8")
    if hasattr(module, "draw"):
        module.draw(results).savefig(out / f"{kind}.png")
    print(f"\n{text}\n{out / kind}.json and .md")
