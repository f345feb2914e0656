"""Where training starts: weights that are drawn, or those of the network that counts; and noise."""

import math
from typing import cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from sumrnn.config import Config, ModelConfig
from sumrnn.models import network
from sumrnn.models.counter import counter, uneven_counter
from sumrnn.models.lstm import GATES
from sumrnn.models.network import Packed, SumRNN, Weights


def init(key: chex.PRNGKey, config: Config) -> Weights:
    """The weights before the first step, drawn with a typed key as the config's initializer says.

    Keras and Flax both draw the output kernel Glorot-uniform and set biases to zero.  They differ
    in the LSTM (Keras: https://keras.io/api/layers/recurrent_layers/lstm/):

    * keras: the four gates are one matrix.  Input kernels uniform within sqrt(6 / (1 + 4 cells)),
      recurrent kernels the slices of one orthogonal cells x 4 cells matrix, forget bias 1.
    * flax: each gate has its own matrix.  Input kernels LeCun-normal, each recurrent kernel
      orthogonal, forget bias 0.
    * counter, uneven-counter: nothing is drawn, see `counter` and `uneven_counter`.

    Other cells than the LSTM have the initial weights that Flax gives them.  Where the config has a
    `memory` or a `forget_bias`, these are the biases of input and forget gates.  Noise in
    proportion to each weight disturbs it where the config asks for that.  Raises `UserError` for a
    counter beyond float32.
    """
    model = config.model
    match model.initializer if model.cell == "lstm" else "flax":
        case "keras":
            weights = _keras(key, model)
        case "flax":
            module, digits = SumRNN(model.cells, model.cell), jnp.zeros((1, 1), jnp.uint8)
            weights = network.from_flax(module.init(key, digits)["params"], model)
        case "counter":
            weights = _on_device(counter(config.task, model.cells), model)
        case "uneven-counter":
            weights = _on_device(uneven_counter(config.task, model), model)
    # The initializers split the key in three; what is folded from 3 on is none of theirs.
    if model.memory is not None or model.forget_bias is not None:
        weights = _with_biases(jax.random.fold_in(key, 4), weights, model)
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


def _on_device(params: network.Params, config: ModelConfig) -> Weights:
    """The weights of parameters that NumPy has built."""
    return network.from_flax(jax.tree.map(jnp.asarray, params), config)


def _with_biases(key: chex.PRNGKey, weights: Weights, config: ModelConfig) -> Weights:
    """The weights with the biases of forget gates, or of input gates too, that the config has."""
    params, shape = network.to_flax(weights), (config.cells,)
    lstm = dict(params["lstm"])
    if config.memory is None:
        biases = {"hf": jnp.full(shape, cast(float, config.forget_bias), jnp.float32)}
    else:
        steps = jax.random.uniform(key, shape, minval=1.0, maxval=config.memory - 1)
        biases = {"hi": -jnp.log(steps), "hf": jnp.log(steps)}
    for gate, bias in biases.items():
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
