"""The parameters as most libraries have them: a matrix for all four gates side by side."""

from typing import NamedTuple

import numpy as np

from sumrnn.config import ModelConfig
from sumrnn.models.network import Packed, Params, pack, unpack


class Layout(NamedTuple):
    """float32 arrays; gates in the order i, f, g, o on the last axis."""

    inputs: np.ndarray
    """[1, 4 cells]."""
    recurrent: np.ndarray
    """[cells, 4 cells]."""
    bias: np.ndarray
    """[4 cells]."""
    output: np.ndarray
    """[cells, 1]."""
    output_bias: np.ndarray
    """[1]."""

    @property
    def cells(self) -> int:
        """LSTM cells."""
        return int(self.output.shape[0])


def of(params: Params, model: ModelConfig) -> Layout:
    """The layout of parameters, for digits as they are: center and scale of inputs are in it."""
    lstm, output = map(np.asarray, pack(params))
    inputs, bias = lstm[-2:-1], lstm[-1]
    center, scale = np.float32(model.input_center), np.float32(model.input_scale)
    if model.scales:
        inputs = inputs / scale
        bias = bias - center * inputs[0]
    arrays = (inputs, lstm[:-2], bias, output[:-1, None], output[-1:])
    return Layout(*(np.ascontiguousarray(x, np.float32) for x in arrays))


def params(layout: Layout, model: ModelConfig) -> Params:
    """The inverse of `of`.

    Raises `ValueError` if shapes or dtypes are others than this network's.
    """
    cells = model.cells
    shapes = ((1, 4 * cells), (cells, 4 * cells), (4 * cells,), (cells, 1), (1,))
    for name, array, shape in zip(Layout._fields, layout, shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            has, needed = f"{array.dtype} {list(array.shape)}", f"float32 {list(shape)}"
            raise ValueError(f"its {name} are {has}, needed are {needed} for {cells} cells")
        if not np.isfinite(array).all():
            raise ValueError(f"its {name} are not all finite")
    inputs, bias = layout.inputs, layout.bias
    center, scale = np.float32(model.input_center), np.float32(model.input_scale)
    if model.scales:
        bias = bias + center * inputs[0]
        inputs = inputs * scale
    lstm = np.concatenate((layout.recurrent, inputs, bias[None]))
    return unpack(Packed(lstm, np.append(layout.output, layout.output_bias)))
