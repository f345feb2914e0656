"""Which files of weights and networks there are, by name and by how their names end."""

import hashlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError, cause, need, require
from sumrnn.exchange import keras, onnx, stablehlo, torch
from sumrnn.exchange.arrays import require_size
from sumrnn.models.network import Params
from sumrnn.runs import files


class Format(NamedTuple):
    """A kind of file."""

    ending: str
    library: str
    """The module that must be there to write and read it."""
    write: Callable[[Params, Config], bytes]
    read: Callable[[bytes, ModelConfig], Params] | None = None


FORMATS = {
    "keras": Format(".keras", "h5py", keras.write, keras.read),
    "weights.h5": Format(".weights.h5", "h5py", keras.write_weights, keras.read_weights),
    "torch": Format(".safetensors", "safetensors.numpy", torch.write, torch.read),
    "onnx": Format(".onnx", "onnx", onnx.write),
    "stablehlo": Format(".stablehlo", "flatbuffers", stablehlo.write),
}
READERS = {form.ending: (form.library, form.read) for form in FORMATS.values() if form.read}
"""What reads a file, by how its name ends: the library that it needs, and the function."""


def write(name: str, params: Params, config: Config) -> bytes:
    """Returns the content of a file of one of `FORMATS` for the parameters of a config's network.

    Raises `UserError` if the network's cells are no LSTM, or a library that it needs is missing or
    does not load.
    """
    require(config.model.cell == "lstm", "cell", config.model.cell, "lstm, which formats describe")
    need(FORMATS[name].library, "exchange")
    return FORMATS[name].write(params, config)


def read(field: str, path: pathlib.Path, model: ModelConfig) -> tuple[Params, str]:
    """Reads the parameters in a file, and returns them with its SHA-256.

    Raises `UserError` that names the field if there is no such file, or the file and what it has if
    that is not what this network needs.
    """
    endings = [ending for ending in READERS if path.name.endswith(ending)]
    require(len(endings) == 1, field, str(path), f"a file that ends in {', '.join(READERS)}")
    require(path.is_file(), field, str(path), "a file that is there")
    library, reader = READERS[endings[0]]
    need(library, "exchange")
    try:
        with files.reading(path):
            require_size("it", path.stat().st_size, model.cells)
            content = path.read_bytes()
        params = reader(content, model)
    except UserError as error:
        raise UserError(f"{path}: cannot be used: {error}") from None
    except Exception as error:  # Of files that others wrote, libraries raise anything.
        raise UserError(f"{path}: cannot be read, or is damaged ({cause(error)})") from None
    return params, hashlib.sha256(content).hexdigest()
