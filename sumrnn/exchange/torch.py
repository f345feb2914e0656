"""Weights of PyTorch's `nn.LSTM` (lstm) and `nn.Linear` (output), as safetensors.

PyTorch has the gates in the order i, f, g, o too, matrices transposed, and two biases that it adds.
Only safetensors is needed, not PyTorch.
"""

from typing import Any

import numpy as np

from sumrnn.errors import require
from sumrnn.exchange.layout import Layout, check

NAMES = (
    *(f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *("output.weight", "output.bias"),
)


def write(layout: Layout) -> bytes:
    """A .safetensors file, which `load_file` reads for a module of lstm and output."""
    import safetensors.numpy

    arrays = (
        layout.inputs.T,
        layout.recurrent.T,
        np.zeros_like(layout.bias),
        layout.bias,
        layout.output.T,
        layout.output_bias,
    )
    # Of a transposed view safetensors would write the bytes in the order of memory.
    named = {name: np.ascontiguousarray(x) for name, x in zip(NAMES, arrays, strict=True)}
    written: bytes = safetensors.numpy.save(named)
    return written


def read(content: bytes, cells: int) -> Layout:
    """The weights in a .safetensors file; raises `UserError` if its tensors are others."""
    import safetensors

    deserialize: Any = safetensors.deserialize
    tensors = dict(deserialize(content))
    require({*tensors} == {*NAMES}, "tensors", ", ".join(sorted(tensors)), ", ".join(NAMES))
    width = 4 * cells
    shapes = ([width, 1], [width, cells], [width], [width], [1, cells], [1])
    arrays = []
    for name, shape in zip(NAMES, shapes, strict=True):
        tensor = tensors[name]
        dtype = "float32" if tensor["dtype"] == "F32" else tensor["dtype"]
        check(name, dtype, tensor["shape"], shape, cells)
        arrays.append(np.frombuffer(tensor["data"], np.dtype("<f4")).reshape(shape))
    inputs, recurrent, first, second, output, bias = arrays
    return Layout(inputs.T, recurrent.T, first + second, output.T, bias)
