"""Where a network errs: its errors by sum, its confidence, and which series it misjudges.

All runs of a task are asked about the same series, so that they can be compared series by series.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import scipy.special

from sumrnn import task
from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.models.network import Params
from sumrnn.task import sum_law

REACH = 12
"""Sums on either side of the threshold that stand alone; those beyond have two rows together."""
SERIES = 400
"""Series for each row."""
FOLLOWED = 48
"""Series of each row that are followed from run to run; as bits of one number, exact in float64."""
BINS = 10
"""Equal parts of [0, 1] in which the confidence in a prediction may lie."""


def measure(config: Config, params: Params) -> Iterator[dict[str, Any]]:
    """Yields a row for each sum near the threshold, and one for all sums beyond on either side.

    Its columns are `first` and `last` sum, their `probability`, the number of `series` and of those
    that are `wrong`; `followed`, whose bit k says whether the k-th of the followed series is
    misjudged; and for each bin of confidence, the estimated probability of label 1, the number of
    series in it (`count_k`) and the sum of their confidences (`confidence_k`).
    """
    law, log_pmfs = sum_law(config.task), task.log_pmf_table(config.task)
    weights, threshold = network.from_flax(params, config.model), config.task.threshold
    draw = jax.jit(task.draw_series_with_sums, static_argnums=2)
    logits_for = jax.jit(network.logits, static_argnums=1)
    places = np.clip(law.sums - threshold, -REACH - 1, REACH)
    for place in np.unique(places):
        inside = places == place
        pmf = law.probabilities[inside] / law.probabilities[inside].sum()
        quantiles = (np.arange(SERIES) + 0.5) / SERIES
        drawn = law.sums[inside][np.searchsorted(np.cumsum(pmf)[:-1], quantiles, side="right")]
        key = jax.random.fold_in(jax.random.key(0), int(place) + REACH + 1)
        order_key, digit_key = jax.random.split(key)
        # In any order, so that those that are followed have all sums of the row.
        sums = jax.random.permutation(order_key, drawn.astype(np.int32))
        digits = draw(digit_key, sums, config.task, log_pmfs=log_pmfs)
        logits = np.asarray(logits_for(weights, config.model, digits), float)
        wrong = (logits > 0) != (place >= 0)
        row = {
            "first": int(law.sums[inside][0]),
            "last": int(law.sums[inside][-1]),
            "probability": math.fsum(law.probabilities[inside]),
            "series": SERIES,
            "wrong": int(wrong.sum()),
            "followed": int(wrong[:FOLLOWED] @ 2 ** np.arange(FOLLOWED)),
        }
        confidence = scipy.special.expit(logits)
        bins = np.minimum((BINS * confidence).astype(int), BINS - 1)
        for k in range(BINS):
            row |= {f"count_{k}": int((bins == k).sum())}
            row |= {f"confidence_{k}": float(confidence[bins == k].sum())}
        yield row
