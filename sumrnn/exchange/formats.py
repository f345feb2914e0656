"""Which files of weights and networks there are, by name and by how their names end."""

import hashlib
import pathlib
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError, extra, require
from sumrnn.exchange import keras, layout, onnx, stablehlo, torch
from sumrnn.exchange.layout import Layout
from sumrnn.models.network import Params


class Format(NamedTuple):
    """A kind of file."""

    ending: str
    write: Callable[[Params, Config], bytes]
    read: Callable[[pathlib.Path], Layout] | None = None


def _of_layout(write: Callable[[Layout], bytes]) -> Callable[[Params, Config], bytes]:
    return lambda params, config: write(layout.of(params, config.model))


FORMATS = {
    "keras": Format(".keras", _of_layout(keras.write), keras.read),
    "weights.h5": Format(".weights.h5", _of_layout(keras.write_weights), keras.read_weights),
    "torch": Format(".safetensors", _of_layout(torch.write), torch.read),
    "onnx": Format(".onnx", _of_layout(onnx.write)),
    "stablehlo": Format(".stablehlo", stablehlo.write),
}
READERS = {one.ending: one.read for one in FORMATS.values() if one.read}


def write(name: str, params: Params, config: Config) -> bytes:
    """The file of one of `FORMATS`; parameters are those of the config.

    Raises `UserError` if a library that it needs is not installed.
    """
    with extra("exchange"):
        return FORMATS[name].write(params, config)


def read(field: str, path: pathlib.Path, model: ModelConfig) -> tuple[Params, str]:
    """The parameters in a file, and its SHA-256.

    Raises `UserError` that names the field if there is none, or the file and what it has if that is
    not what this network needs.
    """
    endings = [ending for ending in READERS if path.name.endswith(ending)]
    require(len(endings) == 1, field, str(path), f"a file that ends in {', '.join(READERS)}")
    require(path.is_file(), field, str(path), "a file that is there")
    with extra("exchange"):
        try:
            found = layout.params(READERS[endings[0]](path), model)
            return found, hashlib.sha256(path.read_bytes()).hexdigest()
        except ValueError as error:
            raise UserError(f"{path}: cannot be used: {error}") from None
        except (OSError, KeyError, TypeError, AttributeError, RuntimeError, *DAMAGED) as error:
            raise UserError(f"{path}: cannot be read, or is damaged: {error}") from None


DAMAGED = (zipfile.BadZipFile, EOFError, MemoryError)
"""What libraries raise of files that are."""
