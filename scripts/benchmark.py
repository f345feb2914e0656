"""Measures speed, quality, profile or scale; see benchmarks/."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # It is no part of what is installed.

from benchmarks import command as benchmark
from sumrnn.cli import command

if __name__ == "__main__":
    command.run(benchmark.main)
