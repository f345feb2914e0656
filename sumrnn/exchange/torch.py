"""Weights of PyTorch's `nn.LSTM` (lstm) and `nn.Linear` (output), as safetensors.

PyTorch has the gates in the order i, f, g, o too, matrices transposed, and two biases that it adds.
Only safetensors is needed, not PyTorch.
"""

from typing import Any

import numpy as np

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import require
from sumrnn.exchange.arrays import Arrays, from_params, require_array, to_params
from sumrnn.models.network import Params

NAMES = (
    *(f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *("output.weight", "output.bias"),
)


def write(params: Params, config: Config) -> bytes:
    """Returns a .safetensors file, which `load_file` reads for a module of lstm and output."""
    import safetensors.numpy

    inputs, recurrent, bias, output, output_bias = from_params(params, config.model)
    tensors = (inputs.T, recurrent.T, np.zeros_like(bias), bias, output.T, output_bias)
    # Of a transposed view safetensors would write the bytes in the order of memory.
    named = {name: np.ascontiguousarray(x) for name, x in zip(NAMES, tensors, strict=True)}
    content: bytes = safetensors.numpy.save(named)
    return content


def read(content: bytes, model: ModelConfig) -> Params:
    """Returns the parameters in a .safetensors file.

    Raises `UserError` if its tensors are others than this network's.
    """
    import safetensors

    deserialize: Any = safetensors.deserialize
    stored = dict(deserialize(content))
    require({*stored} == {*NAMES}, "tensors", ", ".join(sorted(stored)), ", ".join(NAMES))
    cells, width = model.cells, 4 * model.cells
    shapes = ([width, 1], [width, cells], [width], [width], [1, cells], [1])
    tensors = []
    for name, shape in zip(NAMES, shapes, strict=True):
        tensor = stored[name]
        dtype = "float32" if tensor["dtype"] == "F32" else tensor["dtype"]
        require_array(name, dtype, tensor["shape"], shape, cells)
        tensors.append(np.frombuffer(tensor["data"], np.dtype("<f4")).reshape(shape))
    inputs, recurrent, first, second, output, bias = tensors
    return to_params(Arrays(inputs.T, recurrent.T, first + second, output.T, bias), model)
