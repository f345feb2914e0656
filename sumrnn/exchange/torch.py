"""Weights of PyTorch's `nn.LSTM` (lstm) and `nn.Linear` (output), as safetensors.

PyTorch has the gates in the order i, f, g, o too, matrices transposed, and two biases that it adds.
Only safetensors is needed, not PyTorch.
"""

import pathlib

import numpy as np

from sumrnn.exchange.layout import Layout

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


def read(path: pathlib.Path) -> Layout:
    """The weights in a .safetensors file; raises `ValueError` if its tensors are others."""
    import safetensors
    import safetensors.numpy

    try:
        found = safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is no safetensors file: {error}") from None
    if set(found) != set(NAMES):
        has = ", ".join(sorted(found)) or "none"
        raise ValueError(f"its tensors are {has}, needed are {', '.join(NAMES)}")
    inputs, recurrent, first, second, output, bias = (found[name] for name in NAMES)
    both = first + second if first.shape == second.shape else second
    return Layout(inputs.T, recurrent.T, both, output.T, bias)
