"""Whether a network counts other numbers of digits than it was trained on."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import sklearn.metrics as sk

from sumrnn import task
from sumrnn.config import MAX_LENGTH, MAX_SUMS, Config, TaskConfig
from sumrnn.models import network
from sumrnn.models.network import Params
from sumrnn.train.evaluation import is_evaluated

FACTORS = (1 / 2, 2 / 3, 5 / 6, 1, 1.1, 1.2, 1.5, 2, 3)
"""Digits of the series, as multiples of the trained length."""
SERIES = 2_000
"""Series of each class, for each number of digits."""
SCORES = ("balanced_accuracy", "moved_balanced_accuracy", "roc_auc")


def measure(config: Config, params: Params) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of `digits`, which have no zeros among them.

    Its `threshold` is the one whose `positive_rate` is nearest to that of the task, so that the
    classes stay as skewed.  Each class has as many series, drawn by its exact law.
    `balanced_accuracy` is that of the network as it is, and `moved_balanced_accuracy` that with the
    best bias of the output for these series, found on one half of them and judged on the other; the
    area under the ROC curve asks for no threshold at all.  Tasks without two classes, or too long
    to be evaluated, have no row.
    """
    draw = jax.jit(task.draw_series_with_sums, static_argnums=2)
    logits_for = jax.jit(network.logits, static_argnums=1)
    weights, labels = network.from_flax(params, config.model), np.repeat((0, 1), SERIES)
    for length in dict.fromkeys(max(1, round(x * config.task.length)) for x in FACTORS):
        changed = with_digits(config.task, length)
        if changed is None:
            continue
        law, random = task.sum_law(changed), np.random.default_rng(0)
        sums = []
        for side in (law.sums < changed.threshold, law.sums >= changed.threshold):
            pmf = law.probabilities[side] / law.probabilities[side].sum()
            sums.append(random.choice(law.sums[side], SERIES, p=pmf))
        series = draw(
            jax.random.key(0),
            np.concatenate(sums).astype(np.int32),
            changed,
            log_pmfs=task.log_pmf_table(changed),
        )
        logits = np.asarray(logits_for(weights, config.model, series))
        no, yes, cuts = sk.roc_curve(labels[::2], logits[::2], drop_intermediate=False)
        best = int(np.argmax(yes - no))
        predicted = logits[1::2] >= cuts[best : best + 2].mean()  # Between two logits.
        scores = (
            sk.balanced_accuracy_score(labels, logits > 0),
            sk.balanced_accuracy_score(labels[1::2], predicted),
            sk.roc_auc_score(labels, logits),
        )
        yield {
            "digits": changed.length,
            "threshold": changed.threshold,
            "positive_rate": law.positive_rate,
            **dict(zip(SCORES, map(float, scores), strict=True)),
        }


def with_digits(config: TaskConfig, length: int) -> TaskConfig | None:
    """The task with so many digits, and two classes that are about as skewed; None without such."""
    wanted, span = task.sum_law(config).positive_rate, length * (config.high - config.low)
    if not 0 < span <= MAX_SUMS or length > MAX_LENGTH or not 0 < wanted < 1:
        return None
    low, high = config.low, config.high
    every = TaskConfig(length=length, low=low, high=high, threshold=length * low)
    if not is_evaluated(every):
        return None
    law = task.sum_law(every)
    shares = law.probabilities[::-1].cumsum()[::-1]  # Of the sums from each one on.
    nearest = int(law.sums[1 + np.abs(shares[1:] - wanted).argmin()])
    threshold = config.threshold if length == config.length else nearest
    return dataclasses.replace(every, threshold=threshold)
