"""How long a network holds the sum: its exact scores among ever more zeros."""

from collections.abc import Iterator
from typing import Any

from sumrnn.config import MAX_LENGTH, Config
from sumrnn.devices.evaluation import evaluate
from sumrnn.models.network import Params

FACTORS = (1, 1.5, 2, 3, 5, 10, 20, 100 / 3)
"""Steps of the series, as multiples of the trained length."""
MAX_SIZE, MAX_STEPS = 4_000, 600_000
"""Series for each number of steps, and steps of all of them, at most: some 15 s for a run."""
SCORES = ("accuracy", "balanced_accuracy")


def measure(config: Config, params: Params) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of steps: `steps`, and each score with both its ends.

    The digits of a task's series stand, in their order, at random among zeros: the label and the
    law of the sum stay, only the hold is longer.  Ends are those of 95 % intervals, `NAME_low` and
    `NAME_high`; a score is None where the task leaves it undefined.
    """
    for steps in dict.fromkeys(round(factor * config.task.length) for factor in FACTORS):
        if steps > MAX_LENGTH:
            return
        size = min(MAX_SIZE, MAX_STEPS // steps)
        scores = evaluate(config, params, steps=steps, size=max(1, size))
        row: dict[str, Any] = {"steps": steps}
        for name in SCORES:
            ends = scores[f"{name}_interval"] or (None, None)
            row |= {name: scores[name], f"{name}_low": ends[0], f"{name}_high": ends[1]}
        yield row
