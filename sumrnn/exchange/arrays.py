"""The parameters as most libraries have them: a matrix for all four gates side by side."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sumrnn.config import ModelConfig
from sumrnn.errors import require
from sumrnn.models.network import Packed, Params, pack, unpack

MARGIN = 2**26
"""Bytes that a file may have beside its arrays."""


class Arrays(NamedTuple):
    """The arrays of a network, float32; gates in the order i, f, g, o on the last axis."""

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


def shapes(cells: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of the arrays of a network of so many cells, in the order of `Arrays`."""
    return (1, 4 * cells), (cells, 4 * cells), (4 * cells,), (cells, 1), (1,)


def require_array(
    name: str, dtype: str, shape: Sequence[int], needed: Sequence[int], cells: int
) -> None:
    """Raises `UserError` unless an array, which need not have been read, is as needed."""
    has, allowed = f"{dtype} {[*shape]}", f"float32 {[*needed]}"
    require(has == allowed, name, has, f"{allowed} for {cells} cells")


def require_size(name: str, size: int, cells: int) -> None:
    """Raises `UserError` for a file of more bytes than sixteen times the weights and `MARGIN`."""
    limit = MARGIN + 16 * 16 * cells * (cells + 3)
    require(size <= limit, name, f"{size:,} bytes", f"at most {limit:,} bytes for {cells} cells")


def from_params(params: Params, model: ModelConfig) -> Arrays:
    """The arrays of a network for digits as they are: center and scale of inputs are in them.

    Raises `UserError` if that is too large for float32.
    """
    lstm, output = map(np.asarray, pack(params))
    inputs, bias = lstm[-2:-1], lstm[-1]
    if model.scales:
        with np.errstate(over="ignore", invalid="ignore"):
            inputs = inputs / np.float32(model.input_scale)
            bias = bias - np.float32(model.input_center) * inputs[0]
    arrays = (inputs, lstm[:-2], bias, output[:-1, None], output[-1:])
    return _require_finite(Arrays(*(np.ascontiguousarray(x, np.float32) for x in arrays)))


def to_params(arrays: Arrays, model: ModelConfig) -> Params:
    """The inverse of `from_params`, but for rounding where inputs are scaled.

    The arrays have the `shapes` of this network.  Raises `UserError` if not all is finite.
    """
    if model.scales:
        with np.errstate(over="ignore", invalid="ignore"):
            bias = arrays.bias + np.float32(model.input_center) * arrays.inputs[0]
            inputs = arrays.inputs * np.float32(model.input_scale)
        arrays = arrays._replace(inputs=inputs, bias=bias)
    inputs, recurrent, bias, output, output_bias = _require_finite(arrays)
    lstm = np.concatenate((recurrent, inputs, bias[None]))
    return unpack(Packed(lstm, np.append(output, output_bias)))


def _require_finite(arrays: Arrays) -> Arrays:
    for name, array in arrays._asdict().items():
        largest = float(np.abs(array).max())
        require(math.isfinite(largest), name, largest, "finite in float32, with inputs scaled")
    return arrays
