"""The network: an LSTM scanned over the digits, and one linear output on its last state."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sumrnn.config import ModelConfig
from sumrnn.models import lstm as recurrence
from sumrnn.models.lstm import GATES

Params = dict[str, dict[str, dict[str, chex.Array]]]
"""{"lstm": {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}, "output"}, each with a
kernel and, but for the "i*", a bias; float32."""


class SumLSTM(nn.Module):
    """Reads a series of digits, answers with the logit of P(sum >= threshold)."""

    cells: int

    @nn.compact
    def __call__(self, digits: chex.Array) -> chex.Array:
        """Maps digits uint8 [batch, length] to logits float32 [batch]."""
        inputs = digits.astype(jnp.float32)[..., None]
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


def logits(params: Params, config: ModelConfig, digits: chex.Array) -> chex.Array:
    """The network's answers float32 [batch] to digits uint8 [batch, length], in full float32.

    The sigmoid of one is the estimate of P(label = 1).  Parameters are float32.
    """
    chex.assert_rank(digits, 2)
    chex.assert_type(jax.tree.leaves(params), jnp.float32)
    forward = _fused if config.recurrence == "fused" else _scanned
    # GPU and TPU multiply float32 with fewer bits unless told otherwise.
    with jax.default_matmul_precision("float32"):
        out = forward(params, config, digits)
    chex.assert_shape(out, digits.shape[:1])
    chex.assert_type(out, jnp.float32)
    return out


def _scanned(params: Params, config: ModelConfig, digits: chex.Array) -> chex.Array:
    out: chex.Array = SumLSTM(config.cells).apply({"params": params}, digits)
    return out


def _fused(params: Params, config: ModelConfig, digits: chex.Array) -> chex.Array:
    """What `SumLSTM` computes, from its parameters, with the hand-written backward pass."""
    lstm, output = params["lstm"], params["output"]

    weights = recurrence.Weights(
        inputs=tuple(lstm[f"i{gate}"]["kernel"][0] for gate in GATES),
        recurrent=tuple(lstm[f"h{gate}"]["kernel"] for gate in GATES),
        bias=tuple(lstm[f"h{gate}"]["bias"] for gate in GATES),
    )
    hidden = recurrence.last_hidden(weights, digits.astype(weights.bias[0].dtype))
    return (hidden @ output["kernel"])[..., 0] + output["bias"]


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
    flax_key, input_key, recurrent_key = jax.random.split(key, 3)
    digits = jnp.zeros((1, 1), jnp.uint8)
    params: Params = SumLSTM(config.cells).init(flax_key, digits)["params"]
    if config.initializer == "flax":
        return params
    cells, width = config.cells, len(GATES) * config.cells
    limit = math.sqrt(6 / (1 + width))
    kernels_x = jax.random.uniform(input_key, (1, width), minval=-limit, maxval=limit)
    kernels_h = nn.initializers.orthogonal()(recurrent_key, (cells, width), jnp.float32)
    lstm = params["lstm"]
    for gate, x, h in zip(
        GATES, jnp.split(kernels_x, 4, axis=1), jnp.split(kernels_h, 4, axis=1), strict=True
    ):
        bias = jnp.full(cells, float(gate == "f"), jnp.float32)
        lstm = {**lstm, f"i{gate}": {"kernel": x}, f"h{gate}": {"kernel": h, "bias": bias}}
    return {**params, "lstm": lstm}
