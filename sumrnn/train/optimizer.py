"""The optimizer, as the config asks for it."""

import optax

from sumrnn.config import TrainConfig


def make(config: TrainConfig) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1."""
    return optax.adam(config.learning_rate, config.beta1, config.beta2, config.epsilon)
