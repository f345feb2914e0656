"""Rebuilds what is read and looked at, of a run or of a batch, from its folder alone."""

from __future__ import annotations

import dataclasses

import tyro

from sumrnn import command


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to analyze."""

    folder: tyro.conf.Positional[str]
    """Folder of a finished run, or of a batch as from experiment.py."""


def main(argv: list[str]) -> None:
    """Reads the folder, writes its report and prints the summary."""
    folder = command.folder("folder", command.parse(Arguments, argv, __doc__ or "").folder)
    from sumrnn import batch, files, report, summary  # Imported late, so that --help is quick.

    with files.explain(folder):
        is_batch = (folder / batch.EXPERIMENT).exists()
    if is_batch:
        print(summary.overview(summary.write(folder), folder))
    else:
        print(report.summary(report.write(folder), folder))


if __name__ == "__main__":
    command.run(main)
