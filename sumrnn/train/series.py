"""Training series that are drawn anew in every epoch, as a config may ask for."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sumrnn import task
from sumrnn.config import Config


class Batch(NamedTuple):
    """Training series of a step."""

    digits: chex.Array
    """uint8 [n, length]."""
    labels: chex.Array
    """uint8 [n]."""
    durations: chex.Array | None = None
    """uint32 [n, length]: how long each step lasts, see `lstm.last_hidden`; None: all last 1."""


def fresh(config: Config, key: chex.PRNGKey, *, steps: int, number: chex.Numeric) -> Batch:
    """Draws new series for the steps of an epoch, [steps, batch size, ...], with a typed key.

    Of each batch `focus` have sums drawn uniformly within a reach of the threshold, which may
    depend on the epoch's number; the rest are drawn as all data are.  From `min_digits` on, each
    number of digits is as likely as any other; the other steps are zeros among them.
    """
    size, near_reach = config.train.batch_size, reach(config, number)
    near = round(config.train.focus * size)
    plain_key, sum_key, near_key = jax.random.split(key, 3)
    counts = None
    if config.train.min_digits is not None:
        # The three keys above are those folded with 0, 1 and 2.
        count_key, *zero_keys = jax.random.split(jax.random.fold_in(key, 3), 4)
        shape, length = (steps, size), config.task.length
        counts = jax.random.randint(count_key, shape, config.train.min_digits, length + 1)
    plain = task.draw_series(plain_key, steps * (size - near), config.task)
    parts = [plain.digits]
    if near:
        first, end = config.task.threshold - near_reach, config.task.threshold + near_reach
        sums = jax.random.randint(sum_key, (steps * near,), first, end, jnp.int32)
        log_pmfs = jnp.asarray(task.log_pmf_table(config.task))
        near_counts = None if counts is None else counts[:, size - near :].ravel()
        parts.append(
            task.draw_series_with_sums(
                near_key, sums, config.task, log_pmfs=log_pmfs, counts=near_counts
            )
        )
    shaped = [part.reshape(steps, -1, config.task.length) for part in parts]
    digits, durations = jnp.concatenate(shaped, axis=1), None
    if counts is not None:
        digits, durations = _among_zeros(config, jnp.stack(zero_keys), digits, counts)
    return Batch(digits, task.labels(digits, config.task), durations)


def _among_zeros(
    config: Config,
    keys: chex.PRNGKey,
    digits: chex.Array,
    counts: chex.Array,
) -> tuple[chex.Array, chex.Array | None]:
    """Series [steps, n, length] with their last `counts` digits, [steps, n], among zeros.

    The durations of all steps come with them, if there are any: of zeros that follow one another
    only the last one lasts, when what a digit has moved is at rest.
    """
    span_key, place_key, hold_key = keys
    rows, counts, length = digits.reshape(-1, digits.shape[-1]), counts.ravel(), digits.shape[-1]
    shortest = jnp.maximum(counts, config.train.min_steps or length)
    spans = jax.random.randint(span_key, counts.shape, shortest, length + 1)
    series = task.spread(place_key, rows, counts, spans=spans, length=length)
    durations = None
    if config.train.lasting:
        uniform = jax.random.uniform(hold_key, rows.shape)
        holds = jnp.round(jnp.exp(uniform * math.log(config.train.max_hold)))
        zeros = series.are_inside & ~series.are_digits
        last = zeros & ~jnp.pad(zeros[:, 1:], ((0, 0), (0, 1)))
        durations = jnp.where(last, holds, series.are_inside).astype(jnp.uint32)
        durations = durations.reshape(digits.shape)
    return series.digits.reshape(digits.shape), durations


def reach(config: Config, number: chex.Numeric) -> chex.Numeric:
    """How far from the threshold the focused sums of an epoch lie at most: int, or int32 []."""
    train = config.train
    if train.focus_start is None:
        return train.focus_reach
    done = jnp.asarray(number, jnp.float32) / max(1, train.epochs - 1)
    narrowed = train.focus_start * (train.focus_reach / train.focus_start) ** done
    return jnp.round(narrowed).astype(jnp.int32)
