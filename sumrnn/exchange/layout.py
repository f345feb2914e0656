"""The parameters as most libraries have them: a matrix for all four gates side by side."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sumrnn.config import ModelConfig
from sumrnn.errors import require
from sumrnn.models.network import Packed, Params, pack, unpack

ROOM = 2**26
"""Bytes that a file may have beside its arrays."""


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


def shapes(cells: int) -> tuple[tuple[int, ...], ...]:
    """Of the arrays of a `Layout`, in its order."""
    return (1, 4 * cells), (cells, 4 * cells), (4 * cells,), (cells, 1), (1,)


def check(name: str, dtype: str, shape: Sequence[int], needed: Sequence[int], cells: int) -> None:
    """Raises `UserError` unless an array, which need not have been read, is as needed."""
    has, allowed = f"{dtype} {[*shape]}", f"float32 {[*needed]} for {cells} cells"
    require(has == f"float32 {[*needed]}", name, has, allowed)


def check_size(name: str, size: int, cells: int) -> None:
    """Raises `UserError` for a file of more bytes than sixteen times the weights, and some room."""
    limit = ROOM + 16 * 16 * cells * (cells + 3)
    require(size <= limit, name, f"{size:,} bytes", f"at most {limit:,} bytes for {cells} cells")


def of(params: Params, model: ModelConfig) -> Layout:
    """The layout of parameters, for digits as they are: center and scale of inputs are in it.

    Raises `UserError` if that is too large for float32.
    """
    lstm, output = map(np.asarray, pack(params))
    inputs, bias = lstm[-2:-1], lstm[-1]
    center, scale = np.float32(model.input_center), np.float32(model.input_scale)
    with np.errstate(over="ignore", invalid="ignore"):
        if model.scales:
            inputs = inputs / scale
            bias = bias - center * inputs[0]
    arrays = (inputs, lstm[:-2], bias, output[:-1, None], output[-1:])
    return _finite(Layout(*(np.ascontiguousarray(x, np.float32) for x in arrays)))


def _finite(layout: Layout) -> Layout:
    for name, array in layout._asdict().items():
        largest = float(np.abs(array).max())
        require(math.isfinite(largest), name, largest, "finite in float32, with inputs scaled")
    return layout


def params(layout: Layout, model: ModelConfig) -> Params:
    """The inverse of `of`, but for rounding where inputs are scaled.

    Its arrays have the `shapes` of this network.  Raises `UserError` if not all is finite.
    """
    inputs, bias = layout.inputs, layout.bias
    center, scale = np.float32(model.input_center), np.float32(model.input_scale)
    with np.errstate(over="ignore", invalid="ignore"):
        if model.scales:
            bias = bias + center * inputs[0]
            inputs = inputs * scale
    layout = _finite(layout._replace(inputs=inputs, bias=bias))
    lstm = np.concatenate((layout.recurrent, layout.inputs, layout.bias[None]))
    return unpack(Packed(lstm, np.append(layout.output, layout.output_bias)))
