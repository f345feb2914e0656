"""Writes a trained network for other programs: its weights, or a model that runs by itself.

keras: a .keras file with the network; weights.h5: Keras's arrays alone, which do not say of what
network; torch: weights of nn.LSTM (lstm) and nn.Linear (output) as .safetensors; onnx: digits
uint8 [batch, length] to P(sum >= threshold), for onnxruntime and others; stablehlo: to logits, any
batch from 1 and length from 2, for JAX without this package.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import tyro

from sumrnn.cli import command
from sumrnn.cli.command import Text
from sumrnn.errors import require


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to write."""

    folder: tyro.conf.Positional[str]
    """Folder of a finished run."""
    to: Literal["keras", "weights.h5", "torch", "onnx", "stablehlo"]
    """What kind of file."""
    out: Text | None = None
    """File to write; None: named as the run, in the current folder."""
    overwrite: bool = False
    """Replace the file that is there."""


def main(argv: list[str]) -> None:
    """Reads the run, writes the file and prints its name."""
    arguments = command.parse(Arguments, argv, __doc__ or "")
    path = command.folder("folder", arguments.folder)

    # Imported late, so that --help is quick.
    from sumrnn.exchange import formats
    from sumrnn.runs import files
    from sumrnn.runs.folder import RunFolder

    ending = formats.FORMATS[arguments.to].ending
    name = path.resolve().name + ending
    out = command.folder("out", name if arguments.out is None else arguments.out)
    require(out.name.endswith(ending), "out", str(out), f"a file that ends in {ending}")
    require(out.parent.is_dir(), "out", str(out), "in a folder that is there")
    free = arguments.overwrite or not out.exists()
    require(free and not out.is_dir(), "out", str(out), "new, or a file to --overwrite")
    record, params = RunFolder(path).network()
    content = formats.write(arguments.to, params, record.config)
    with files.writing(out.parent):
        files.write_atomic(out, content)
    print(f"{out}  {len(content):,} bytes")
