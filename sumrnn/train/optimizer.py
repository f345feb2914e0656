"""The optimizer, as the config asks for it."""

import jax.numpy as jnp
import optax

from sumrnn.config import Config


def make(config: Config) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1.

    The step size may rise and fall over the steps of the run, gradients may be clipped before, and
    a step may wait for the mean gradient of several batches.
    """
    train = config.train
    made = optax.adam(rate(config), train.beta1, train.beta2, train.epsilon)
    if train.clip is not None:
        made = optax.chain(optax.clip_by_global_norm(train.clip), made)
    if train.batch_growth > 1:
        ends = jnp.cumsum(jnp.asarray(steps(config)))
        made = optax.MultiSteps(
            made, lambda step: 1 + (step >= ends[:-1]).sum(dtype=jnp.int32)
        ).gradient_transformation()
    return made


def steps(config: Config) -> tuple[int, ...]:
    """Steps of one batch each, of two and so on to `batch_growth`."""
    train = config.train
    batches = train.epochs * -(-config.task.train_size // train.batch_size)
    sizes = range(1, train.batch_growth + 1)
    return tuple(round(batches / train.batch_growth / size) for size in sizes)


def rate(config: Config) -> float | optax.Schedule:
    """The step size, of each step if it is planned: linear warm-up, then constant or a cosine."""
    train = config.train
    if not train.planned:
        return train.learning_rate
    rising = round(train.warmup * sum(steps(config)))
    after = sum(steps(config)) - rising
    rest = (
        optax.cosine_decay_schedule(train.learning_rate, after)
        if train.decay == "cosine"
        else optax.constant_schedule(train.learning_rate)
    )
    return optax.join_schedules(
        [optax.linear_schedule(0.0, train.learning_rate, rising), rest], [rising]
    )
