"""How often any weights err, by the exact law of the sum."""

from typing import Any

import numpy as np

from sumrnn import task
from sumrnn.config import Config
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.scores import exact
from sumrnn.train import exam, loop


def evaluate(config: Config, params: network.Params) -> dict[str, Any]:
    """Accuracy and other scores by the law, with intervals; see `exact.scores`.

    Parameters are float32, as in `Result.state`; the exam is that of a run of this config, on one
    device.  Raises `UserError` if the task's table of laws is too large for one.
    """
    own, size = config.task, f"short enough: at most {exam.MOST_LAWS} for (length + 1) x sums"
    require(exam.has_exam(own), "length", own.length, size)
    run, laws = loop.compiled(config.program), task.log_laws(own)
    fused = config.model.recurrence == "fused"
    weights = network.pack(params) if fused else params

    def ask(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        drawn = run.draw(laws, sums[0], np.uint32(number))
        found = [run.answer(weights, drawn, np.uint32(n)).logits for n in range(blocks)]
        return np.concatenate(found)[None]

    (counts,) = exam.examine(config, 1, ask)
    return exact.scores(own, counts)
