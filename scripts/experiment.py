"""Runs an experiment: every condition with every seed, on all devices; continues if interrupted."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib

import tyro

from sumrnn import command
from sumrnn.config import ConfigError, parse_seeds

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One batch of runs."""

    name: tyro.conf.Positional[str]
    """Which experiment: the name of a file in experiments/."""
    seeds: str | None = None
    """Seeds, e.g. 0:32 (0 to 31) or 3,5,8:12; None: the experiment's own."""
    out: str | None = None
    """Folder of the batch; None: runs/NAME."""
    devices: int | None = None
    """CPU cores to use as devices; None: all."""
    per_device: int | None = None
    """Seeds that a device takes per wave; None: 1 on CPU, what memory holds on GPU and TPU."""


def find(name: str):
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    if name not in known:
        raise ConfigError("experiment", name, f"one of {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EXPERIMENT


def main(argv: list[str]) -> None:
    """Runs what is missing."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    from sumrnn import batch, placement

    experiment = find(arguments.name)
    seeds = parse_seeds("seeds", arguments.seeds or experiment.seeds)
    out = pathlib.Path(arguments.out or f"runs/{arguments.name}")
    placement.use_cores(arguments.devices)
    batch.open_folder(out, experiment, seeds)

    def view(p: batch.Progress) -> None:
        if p.epoch in (0, 1):
            print(f"{p.done}/{p.total} {p.condition} {p.seeds} {p.epoch}/{p.epochs} {p.speed:.3f}/s {p.seconds_left:.0f} s left", flush=True)

    batch.run(out, experiment, seeds, arguments.per_device, view)


if __name__ == "__main__":
    command.run(main)
