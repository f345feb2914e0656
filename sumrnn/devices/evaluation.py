"""How often any weights err, by the exact law of the sum.

Apart from `compiler`, so that training does not wait for the statistics.
"""

from typing import Any

import numpy as np

from sumrnn import task
from sumrnn.config import Config
from sumrnn.devices.compiler import compiled
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.scores import exact
from sumrnn.train import evaluation


def evaluate(config: Config, params: network.Params) -> dict[str, Any]:
    """Accuracy and other scores by the law, with intervals; see `exact.scores`.

    Parameters are float32, as in `Result.state`; the exam is that of a run of this config, on one
    device.  Raises `UserError` if the task's table of laws is too large for one.
    """
    size = f"short enough: at most {evaluation.MAX_PMF_TABLE} for (length + 1) x sums"
    require(evaluation.is_evaluated(config.task), "length", config.task.length, size)
    programs, laws = compiled(config.canonical), task.log_pmf_table(config.task)
    weights = network.from_flax(params, config.model)

    def logits_for(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        drawn = programs.draw(laws, sums[0], np.uint32(number))
        parts = [programs.predict(weights, drawn, np.uint32(n)).logits for n in range(blocks)]
        return np.concatenate(parts)[None]

    (counts,) = evaluation.count_errors(config, 1, logits_for)
    return exact.scores(config.task, counts)
