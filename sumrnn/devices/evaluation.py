"""The exact evaluation of any weights, by the exact law of the sum.

It stands apart from `compiler`, so that training does not wait for SciPy's statistics.
"""

from typing import Any

import numpy as np

from sumrnn import task
from sumrnn.config import Config
from sumrnn.devices.compiler import compiled_functions
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.scores import exact
from sumrnn.train import evaluation


def evaluate(config: Config, params: network.Params) -> dict[str, Any]:
    """The accuracy and other scores of parameters by the exact law, with 95 % intervals.

    Parameters are float32 by the names of Flax, as in the `state` of `sumrnn.fit`; their evaluation
    is that of a run of this config, on one device.  Returns the dictionary of `exact.scores`.
    Raises `UserError` if the task's series are too long for exact evaluation.
    """
    size = f"short enough: at most {evaluation.MAX_PMF_TABLE} for (length + 1) x sums"
    require(evaluation.is_evaluated(config.task), "length", config.task.length, size)
    functions, log_pmfs = compiled_functions(config.canonical), task.log_pmf_table(config.task)
    weights = network.from_flax(params, config.model)

    def logits_for(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        data = functions.draw(log_pmfs, sums[0], np.uint32(number))
        logits = [functions.predict(weights, data, np.uint32(n)).logits for n in range(blocks)]
        return np.concatenate(logits)[None]

    (counts,) = evaluation.count_errors(config, 1, logits_for)
    return exact.scores(config.task, counts)
