"""The network: an LSTM scanned over the digits, and one linear output on its last state."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sumrnn.config import ModelConfig
from sumrnn.models.lstm import GATES, last_hidden

Params = dict[str, dict[str, dict[str, chex.Array]]]
"""{"lstm": {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}, "output"}, each with a
kernel and, but for the "i*", a bias; float32."""


class SumLSTM(nn.Module):
    """Reads a series of digits, answers with the logit of P(sum >= threshold)."""

    cells: int

    @nn.compact
    def __call__(self, inputs: chex.Array) -> chex.Array:
        """Maps digits [batch, length], of any real dtype, to logits float32 [batch]."""
        inputs = inputs.astype(jnp.float32)[..., None]
        scan = nn.scan(
            nn.OptimizedLSTMCell,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        cell = scan(features=self.cells, name="lstm")
        zero = jnp.zeros((inputs.shape[0], self.cells))
        (_, hidden), _ = cell((zero, zero), inputs)
        return nn.Dense(1, kernel_init=nn.initializers.glorot_uniform(), name="output")(hidden)[
            ..., 0
        ]


class Packed(NamedTuple):
    """The same parameters as the fused recurrence multiplies with them; float32."""

    lstm: chex.Array
    """[cells + 2, 4 cells]; see `lstm.last_hidden`."""
    output: chex.Array
    """[cells + 1]: kernel, then bias."""


def pack(params: Params) -> Packed:
    """The parameters, or anything of their structure, as two arrays; there may be axes in front."""
    lstm, output = params["lstm"], cast("dict[str, chex.Array]", params["output"])
    module: Any = jnp if isinstance(output["bias"], jax.Array) else np

    def column(gate: str) -> chex.Array:
        bias = lstm[f"h{gate}"]["bias"][..., None, :]
        kernels = (lstm[f"h{gate}"]["kernel"], lstm[f"i{gate}"]["kernel"], bias)
        return module.concatenate(kernels, axis=-2)

    return Packed(
        module.concatenate([column(gate) for gate in GATES], axis=-1),
        module.concatenate((output["kernel"][..., 0], output["bias"]), axis=-1),
    )


def unpack(packed: Packed) -> Params:
    """What `pack` was given."""
    params: Params = {"lstm": {}}
    width = packed.lstm.shape[-1] // len(GATES)
    for number, gate in enumerate(GATES):
        column = packed.lstm[..., number * width : (number + 1) * width]
        params["lstm"][f"i{gate}"] = {"kernel": column[..., -2:-1, :]}
        params["lstm"][f"h{gate}"] = {"kernel": column[..., :-2, :], "bias": column[..., -1, :]}
    output = packed.output
    params["output"] = {"kernel": output[..., :-1, None], "bias": output[..., -1:]}
    return params


def logits(params: Params | Packed, config: ModelConfig, digits: chex.Array) -> chex.Array:
    """The network's answers float32 [batch] to digits uint8 [batch, length], in full float32.

    The sigmoid of one is the estimate of P(label = 1).  Parameters are float32; only the fused
    recurrence takes packed ones.
    """
    chex.assert_rank(digits, 2)
    chex.assert_type(jax.tree.leaves(params), jnp.float32)
    inputs = _inputs(config, digits)
    forward: Callable[..., chex.Array] = _fused if config.recurrence == "fused" else _scanned
    # GPU and TPU multiply float32 with fewer bits unless told otherwise.
    with jax.default_matmul_precision("float32"):
        out = forward(params, config, inputs)
    chex.assert_shape(out, digits.shape[:1])
    chex.assert_type(out, jnp.float32)
    return out


def logits_of_lengths(
    params: Params, config: ModelConfig, digits: chex.Array, lengths: chex.Array
) -> chex.Array:
    """The logits float32 [batch] of `logits`, but for rounding, to series of different lengths.

    Of digits uint8 [batch, longest] each series has the first `lengths`, int32 [batch], from 1: its
    state stays as it is after the last one, and the loop ends with the longest series.
    """
    cell = nn.OptimizedLSTMCell(config.cells)

    def step(t: chex.Numeric, state: tuple[Any, Any]) -> tuple[Any, Any]:
        x = _inputs(config, jax.lax.dynamic_index_in_dim(digits, t, axis=1))
        after, _ = cell.apply({"params": params["lstm"]}, state, x)
        goes_on = (t < lengths)[:, None]
        (c, h), (old_c, old_h) = after, state
        return jnp.where(goes_on, c, old_c), jnp.where(goes_on, h, old_h)

    zero = jnp.zeros((len(digits), config.cells))
    with jax.default_matmul_precision("float32"):
        _, hidden = jax.lax.fori_loop(0, lengths.max(), step, (zero, zero))
        out: chex.Array = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return out[:, 0]


def _inputs(config: ModelConfig, digits: chex.Array) -> chex.Array:
    """What the network reads: digits as float32, centred and scaled as the config says."""
    inputs = digits.astype(jnp.float32)
    return (inputs - config.input_center) / config.input_scale if config.scales else inputs


def _scanned(params: Params, config: ModelConfig, inputs: chex.Array) -> chex.Array:
    out: chex.Array = SumLSTM(config.cells).apply({"params": params}, inputs)
    return out


def _fused(params: Params | Packed, config: ModelConfig, inputs: chex.Array) -> chex.Array:
    """What `SumLSTM` computes, from its parameters, with the hand-written backward pass."""
    packed = params if isinstance(params, Packed) else pack(params)
    hidden = last_hidden(packed.lstm, inputs)
    return hidden @ packed.output[:-1] + packed.output[-1]


def init(key: chex.PRNGKey, config: ModelConfig) -> Params:
    """Initial parameters, drawn as Keras or as Flax does by default.

    Both draw the output kernel Glorot-uniform and set biases to zero.  They differ in
    the LSTM (Keras: https://keras.io/api/layers/recurrent_layers/lstm/):

    * keras: the four gates are one matrix.  Input kernels uniform within
      sqrt(6 / (1 + 4 cells)), recurrent kernels the slices of one orthogonal
      cells x 4 cells matrix, forget bias 1.
    * flax: each gate has its own matrix.  Input kernels LeCun-normal, each recurrent
      kernel orthogonal, forget bias 0.
    """
    params = draw(key, config)
    return unpack(params) if isinstance(params, Packed) else params


def draw(key: chex.PRNGKey, config: ModelConfig) -> Params | Packed:
    """The parameters of `init`, packed for the fused recurrence."""
    fused = config.recurrence == "fused"
    if config.initializer == "flax":
        params: Params = SumLSTM(config.cells).init(key, jnp.zeros((1, 1), jnp.uint8))["params"]
        return pack(params) if fused else params
    cells, width = config.cells, len(GATES) * config.cells
    input_key, recurrent_key, output_key = jax.random.split(key, 3)
    limit = math.sqrt(6 / (1 + width))
    inputs = jax.random.uniform(input_key, (1, width), minval=-limit, maxval=limit)
    recurrent = nn.initializers.orthogonal()(recurrent_key, (cells, width), jnp.float32)
    bias = jnp.repeat(jnp.array([gate == "f" for gate in GATES], jnp.float32), cells)[None]
    output = nn.initializers.glorot_uniform()(output_key, (cells, 1), jnp.float32)[:, 0]
    packed = Packed(jnp.concatenate((recurrent, inputs, bias)), jnp.append(output, 0.0))
    return packed if fused else unpack(packed)
