"""Training series that are drawn anew in every epoch, as a config may ask for."""

import chex
import jax
import jax.numpy as jnp

from sumrnn import task
from sumrnn.config import Config
from sumrnn.task import Split


def fresh(config: Config, key: chex.PRNGKey, *, steps: int, number: chex.Numeric) -> Split:
    """Draws new series for the steps of an epoch, [steps, batch size, ...], with a typed key.

    Of each batch `focus` have sums drawn uniformly within a reach of the threshold, which may
    depend on the epoch's number; the rest are drawn as all data are.
    """
    size, near_reach = config.train.batch_size, reach(config, number)
    near = round(config.train.focus * size)
    plain_key, sum_key, near_key = jax.random.split(key, 3)
    plain = task.draw_series(plain_key, steps * (size - near), config.task)
    parts = [plain.digits]
    if near:
        first, end = config.task.threshold - near_reach, config.task.threshold + near_reach
        sums = jax.random.randint(sum_key, (steps * near,), first, end, jnp.int32)
        log_pmfs = jnp.asarray(task.log_pmf_table(config.task))
        parts.append(task.draw_series_with_sums(near_key, sums, config.task, log_pmfs=log_pmfs))
    shaped = [part.reshape(steps, -1, config.task.length) for part in parts]
    digits = jnp.concatenate(shaped, axis=1)
    return Split(digits, task.labels(digits, config.task))


def reach(config: Config, number: chex.Numeric) -> chex.Numeric:
    """How far from the threshold the focused sums of an epoch lie at most: int, or int32 []."""
    train = config.train
    if train.focus_start is None:
        return train.focus_reach
    done = jnp.asarray(number, jnp.float32) / max(1, train.epochs - 1)
    narrowed = train.focus_start * (train.focus_reach / train.focus_start) ** done
    return jnp.round(narrowed).astype(jnp.int32)
