"""Where training starts: weights that are drawn, or those of the network that counts; and noise."""

import math
from typing import cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sumrnn.config import Config, ModelConfig
from sumrnn.models import network
from sumrnn.models.counter import counter
from sumrnn.models.lstm import GATES
from sumrnn.models.network import Packed, SumLSTM, Weights


def init(key: chex.PRNGKey, config: Config) -> Weights:
    """The weights before the first step, drawn with a typed key as the config's initializer says.

    Keras and Flax both draw the output kernel Glorot-uniform and set biases to zero.  They differ
    in the LSTM (Keras: https://keras.io/api/layers/recurrent_layers/lstm/):

    * keras: the four gates are one matrix.  Input kernels uniform within sqrt(6 / (1 + 4 cells)),
      recurrent kernels the slices of one orthogonal cells x 4 cells matrix, forget bias 1.
    * flax: each gate has its own matrix.  Input kernels LeCun-normal, each recurrent kernel
      orthogonal, forget bias 0.
    * counter: nothing is drawn, see `counter`.

    Where the config has a `memory`, it gives the biases of input and forget gates.  Noise in
    proportion to each weight disturbs it where the config asks for that.  Raises `UserError` for a
    counter beyond float32.
    """
    model = config.model
    match model.initializer:
        case "keras":
            weights = _keras(key, model)
        case "flax":
            digits = jnp.zeros((1, 1), jnp.uint8)
            weights = network.from_flax(SumLSTM(model.cells).init(key, digits)["params"], model)
        case "counter":
            built = jax.tree.map(jnp.asarray, counter(config.task, model.cells))
            weights = network.from_flax(built, model)
    # The initializers split the key in three; what is folded from 3 on is none of theirs.
    if model.memory is not None:
        weights = _with_memory(jax.random.fold_in(key, 4), weights, model)
    if not model.noise:
        return weights
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.fold_in(key, 3), len(leaves))
    noisy: Weights = jax.tree.unflatten(
        structure,
        [
            leaf * (1 + model.noise * jax.random.normal(noise_key, leaf.shape))
            for leaf, noise_key in zip(leaves, keys, strict=True)
        ],
    )
    return noisy


def _with_memory(key: chex.PRNGKey, weights: Weights, config: ModelConfig) -> Weights:
    """The weights with biases of input and forget gates by which cells remember so many steps."""
    params, memory = network.to_flax(weights), config.memory
    steps = jax.random.uniform(key, (config.cells,), minval=1.0, maxval=cast(float, memory) - 1)
    lstm = dict(params["lstm"])
    for gate, bias in (("hi", -jnp.log(steps)), ("hf", jnp.log(steps))):
        lstm[gate] = {**lstm[gate], "bias": bias}
    return network.from_flax({**params, "lstm": lstm}, config)


def _keras(key: chex.PRNGKey, config: ModelConfig) -> Weights:
    cells, width = config.cells, len(GATES) * config.cells
    input_key, recurrent_key, output_key = jax.random.split(key, 3)
    limit = math.sqrt(6 / (1 + width))
    inputs = jax.random.uniform(input_key, (1, width), minval=-limit, maxval=limit)
    recurrent = nn.initializers.orthogonal()(recurrent_key, (cells, width), jnp.float32)
    bias = jnp.repeat(jnp.array([gate == "f" for gate in GATES], jnp.float32), cells)[None]
    output = nn.initializers.glorot_uniform()(output_key, (cells, 1), jnp.float32)[:, 0]
    packed = Packed(jnp.concatenate((recurrent, inputs, bias)), jnp.append(output, 0.0))
    return packed if config.recurrence == "fused" else network.to_flax(packed)
