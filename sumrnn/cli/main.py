"""The command `sumrnn`: one word chooses what to do."""

from __future__ import annotations

import importlib
import sys

from sumrnn.cli import command
from sumrnn.errors import require
from sumrnn.version import __version__

COMMANDS = {
    "train": "train one network and report on it",
    "experiment": "put a question to many seeds",
    "analyze": "write the report of a run or an experiment again",
    "predict": "let a trained network answer series of digits",
    "export": "write a trained network for Keras, PyTorch, ONNX or JAX",
}
"""Modules of this package that are commands, and what they do."""


def run() -> None:
    """Runs the command that the first word names, with the others."""
    command.run(main)


def main(argv: list[str]) -> None:
    """Does what the words say."""
    name, *rest = argv or ["--help"]
    if name in ("--help", "-h"):
        print("usage: sumrnn COMMAND [OPTIONS]\n")
        for known, what in COMMANDS.items():
            print(f"  {known:<11} {what}")
        print("\nsumrnn COMMAND --help shows its options; sumrnn --version the version.")
    elif name == "--version":
        print(__version__)
    else:
        require(name in COMMANDS, "command", name, f"one of {', '.join(COMMANDS)}")
        sys.argv = [f"{sys.argv[0]} {name}", *rest]  # What messages and --help begin with.
        importlib.import_module(f"sumrnn.cli.{name}").main(rest)
