"""Where training starts: drawn parameters, or those of the network that counts; and noise."""

import chex
import jax
import jax.numpy as jnp

from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.models.counter import counter


def initial(key: chex.PRNGKey, config: Config) -> network.Params | network.Packed:
    """The parameters before the first step, packed for the fused recurrence; typed key.

    To each, noise of a normal law is added where the config asks for it.  Raises `UserError` for a
    counter beyond float32.
    """
    model = config.model
    if model.initializer == "counter":
        built = jax.tree.map(jnp.asarray, counter(config.task, model.cells))
        params = network.pack(built) if model.recurrence == "fused" else built
    else:
        params = network.draw(key, model)
    if not model.noise:
        return params
    leaves, structure = jax.tree.flatten(params)
    # `network.draw` splits the key; a folded one is none of its.
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    noisy = [
        leaf + model.noise * jax.random.normal(own, leaf.shape)
        for leaf, own in zip(leaves, keys, strict=True)
    ]
    found: network.Params | network.Packed = jax.tree.unflatten(structure, noisy)
    return found
