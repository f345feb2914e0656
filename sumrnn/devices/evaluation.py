"""The exact evaluation of any weights, by the exact law of the sum.

It stands apart from `compiler`, so that training does not wait for SciPy's statistics.
"""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from sumrnn import task
from sumrnn.config import MAX_LENGTH, Config
from sumrnn.devices import compiler
from sumrnn.errors import require
from sumrnn.fields import Range
from sumrnn.models import network
from sumrnn.scores import exact
from sumrnn.train import evaluation, predictions


def evaluate(
    config: Config, params: network.Params, *, steps: int | None = None, size: int | None = None
) -> dict[str, Any]:
    """The accuracy and other scores of parameters by the exact law, with 95 % intervals.

    Args:
      config: of the run that the parameters are of; it is computed on one device.
      params: float32, by the names of Flax, as in the `state` of `sumrnn.fit`.
      steps: of series whose digits stand at random among zeros, from the task's length to 10,000;
        the law of their sum is the same.  None: the task's own series.
      size: the number of series, about; None: as many as a run of the config is evaluated with.

    Returns:
      The dictionary of `exact.scores`.

    Raises:
      UserError: if the task's series are too long for exact evaluation, or `steps` or `size` is
        impossible.
    """
    limit = f"short enough: at most {evaluation.MAX_PMF_TABLE} for (length + 1) x sums"
    require(evaluation.is_evaluated(config.task), "length", config.task.length, limit)
    Range(1, 10**9).require("size", 1 if size is None else size)
    if steps is not None:
        limits = Range(config.task.length, MAX_LENGTH, "from the task's digits on")
        limits.require("steps", steps)
    weights, log_pmfs = network.from_flax(params, config.model), task.log_pmf_table(config.task)
    rows = predictions.blocks(config.task).rows

    def logits_alone(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        functions = compiler.compiled_functions(config.canonical)
        data = functions.draw(log_pmfs, sums[0], np.uint32(number))
        logits = [functions.predict(weights, data, np.uint32(n)).logits for n in range(blocks)]
        return np.concatenate(logits)[None]

    def logits_among_zeros(steps: int, sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        logits_of = _compiled_among_zeros(config.canonical, steps)
        keys = (np.array([number, n], np.uint32) for n in range(blocks))
        parts = sums[0, : blocks * rows].reshape(blocks, rows)
        logits = [logits_of(weights, log_pmfs, *x) for x in zip(parts, keys, strict=True)]
        return np.concatenate(logits)[None]

    logits_for = logits_alone if steps is None else functools.partial(logits_among_zeros, steps)
    (counts,) = evaluation.count_errors(config, 1, logits_for, size=size)
    return exact.scores(config.task, counts)


@functools.lru_cache(maxsize=64)
def _compiled_among_zeros(config: Config, steps: int) -> Callable[..., chex.Array]:
    """The logits of the series of `evaluation.draw_among_zeros`, and its arguments after steps."""

    def logits(
        weights: network.Weights, log_pmfs: chex.Array, sums: chex.Array, numbers: chex.Array
    ) -> chex.Array:
        with compiler.pinned():
            digits = evaluation.draw_among_zeros(config, steps, log_pmfs, sums, numbers=numbers)
            return network.logits(weights, config.model, digits)

    options = compiler.options(jax.default_backend())[-1]
    compiled: Callable[..., chex.Array] = jax.jit(logits, compiler_options=options)
    return compiled
