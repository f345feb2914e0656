"""The optimizer, as the config asks for it."""

import optax

from sumrnn.config import Config


def make(config: Config) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1.

    The step size may rise and fall over the steps of the run, and gradients may be clipped before.
    """
    train = config.train
    made = optax.adam(rate(config), train.beta1, train.beta2, train.epsilon)
    if train.clip is not None:
        made = optax.chain(optax.clip_by_global_norm(train.clip), made)
    return made


def steps(config: Config) -> int:
    """The number of steps of a run."""
    return config.train.epochs * -(-config.task.train_size // config.train.batch_size)


def rate(config: Config) -> float | optax.Schedule:
    """The step size, of each step if it is planned: linear warm-up, then constant or a cosine."""
    train = config.train
    if not train.planned:
        return train.learning_rate
    rising = round(train.warmup * steps(config))
    after = steps(config) - rising
    rest = (
        optax.cosine_decay_schedule(train.learning_rate, after)
        if train.decay == "cosine"
        else optax.constant_schedule(train.learning_rate)
    )
    return optax.join_schedules(
        [optax.linear_schedule(0.0, train.learning_rate, rising), rest], [rising]
    )
