"""Rebuilds the report and the figures of a run from its folder alone, without training."""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from sumrnn import command


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to analyze."""

    run_dir: tyro.conf.Positional[pathlib.Path]
    """Folder of a finished run."""


def main(argv: list[str]) -> None:
    """Reads the run, writes its report and prints the summary."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    from sumrnn import report  # Imported late, so that --help is quick.

    print(report.summary(report.write(arguments.run_dir), arguments.run_dir))


if __name__ == "__main__":
    command.run(main)
