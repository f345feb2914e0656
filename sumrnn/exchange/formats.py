"""Which files of weights and networks there are, by name and by how their names end."""

import hashlib
import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError, cause, extra, require
from sumrnn.exchange import keras, layout, onnx, stablehlo, torch
from sumrnn.exchange.layout import Layout
from sumrnn.models.network import Params
from sumrnn.runs import files


class Format(NamedTuple):
    """A kind of file."""

    ending: str
    library: str
    """What must be there to write and read it."""
    write: Callable[[Params, Config], bytes]
    read: Callable[[bytes, int], Layout] | None = None
    """From the file's content and the number of cells that it must have."""


def _of_layout(write: Callable[[Layout], bytes]) -> Callable[[Params, Config], bytes]:
    return lambda params, config: write(layout.of(params, config.model))


FORMATS = {
    "keras": Format(".keras", "h5py", _of_layout(keras.write), keras.read),
    "weights.h5": Format(
        ".weights.h5", "h5py", _of_layout(keras.write_weights), keras.read_weights
    ),
    "torch": Format(".safetensors", "safetensors.numpy", _of_layout(torch.write), torch.read),
    "onnx": Format(".onnx", "onnx", _of_layout(onnx.write)),
    "stablehlo": Format(".stablehlo", "flatbuffers", stablehlo.write),
}
READERS = {one.ending: one for one in FORMATS.values() if one.read}


def _load(library: str) -> None:
    with extra("exchange"):
        importlib.import_module(library)


def write(name: str, params: Params, config: Config) -> bytes:
    """The file of one of `FORMATS`; parameters are those of the config.

    Raises `UserError` if a library that it needs is missing or does not load.
    """
    _load(FORMATS[name].library)
    return FORMATS[name].write(params, config)


def read(field: str, path: pathlib.Path, model: ModelConfig) -> tuple[Params, str]:
    """The parameters in a file, and its SHA-256.

    Raises `UserError` that names the field if there is none, or the file and what it has if that is
    not what this network needs.
    """
    endings = [ending for ending in READERS if path.name.endswith(ending)]
    require(len(endings) == 1, field, str(path), f"a file that ends in {', '.join(READERS)}")
    require(path.is_file(), field, str(path), "a file that is there")
    one = READERS[endings[0]]
    _load(one.library)
    assert one.read is not None
    try:
        with files.reading(path):
            layout.check_size("it", path.stat().st_size, model.cells)
            content = path.read_bytes()
        params = layout.params(one.read(content, model.cells), model)
    except UserError as error:
        raise UserError(f"{path}: cannot be used: {error}") from None
    except Exception as error:  # Of files that others wrote, libraries raise anything.
        raise UserError(f"{path}: cannot be read, or is damaged ({cause(error)})") from None
    return params, hashlib.sha256(content).hexdigest()
