"""Weights with which the network counts, by construction: it can represent the task.

Forget gates are open, and the gates do not look at digits or states, so that the state of a cell is
a sum of tanh(a x), which zeros leave as it is; the output compares the states' tanh with those of
the threshold.
"""

import math

import numpy as np

from sumrnn.config import MAX_PMF_TABLE, ModelConfig, TaskConfig
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.models.lstm import GATES
from sumrnn.task import log_pmf_table

OPEN = 20.0
"""Bias of a gate that is open: its sigmoid is 1 in float32 (from 17 on)."""
MARGIN = 10.0
"""About the logit of a sum half a digit from the threshold."""
CURVED = 0.25
"""Share of a digit that the candidates' curvature may take from a sum at the threshold."""
MAX_ROUNDED = 2**20
"""The largest (length + cells) / a for which rounding stays below a share of a digit."""
MAX_INPUT = 0.36
"""The largest a x of a digit x in a counter of uneven cells."""
MIN_WEIGHT = 1e-30
"""The smallest share of the likeliest sum's probability that float32 tells from 0 with all bits."""
MAX_OPENNESS = 0.9
"""The largest value of the input gates of a counter of uneven cells."""


def counter(task: TaskConfig, cells: int = 1) -> network.Params:
    """Parameters that predict every series of a task right, also with any zeros among its digits.

    All gates are open and all cells alike.  As tanh(y) lies between y - y^3 / 3 and y, the state of
    a sum S is at most a S, and at least a S (1 - (a h)^2 / 3) for digits up to h.  With a =
    sqrt(3 / (4 T)) / h that is at most a (T - 1) below the threshold T and at least a (T - 1/4)
    from it on; the output's threshold lies between.  No larger than 1 / T, a keeps the state there
    below 1, where its tanh is steep.

    Parameters are float32, for digits as they are.  Raises `UserError` where float32 may not
    suffice: (length + cells) / a above 2^20.
    """
    threshold, high = max(1, task.threshold), max(1, task.high)
    a = min(math.sqrt(3 * CURVED / threshold) / high, 1 / threshold)
    steps, limit = task.length + cells, math.floor(MAX_ROUNDED * a)
    allowed = f"short enough to count in float32: length + cells ({steps}) at most {limit} here"
    require(steps <= limit, "length", task.length, allowed)
    middle = a * (task.threshold - (1 + CURVED) / 2)
    kernel = MARGIN / (cells * a / 2 * (1 - math.tanh(middle) ** 2))
    output = np.full(cells, kernel)
    return _params(np.full(cells, a), output, -cells * kernel * math.tanh(middle))


def uneven_counter(task: TaskConfig, config: ModelConfig) -> network.Params:
    """Parameters nearer to a trained network's size, which predict most series right.

    The a of the cells are spread evenly between -0.36 / h and 0.36 / h for digits up to h, and the
    output's kernel is in proportion to them; input gates let in a constant with which a state at
    the threshold is about 1 at most, and output gates a half.  So large an a bends tanh(a x), which
    the output's threshold allows for by the digits that series with this sum have on average; a sum
    of rarer digits may be answered wrong.  A logit grows by about 1 per digit near the threshold,
    so that the output's bias is about minus the threshold: it is the furthest from a trained one's.

    Parameters are float32, for digits centred and scaled as the model's config says.  Raises
    `UserError` where the table of `task.log_pmf_table` would be large or the threshold is too rare.
    """
    limit = f"short enough for an uneven counter: (length + 1) x sums up to {MAX_PMF_TABLE}"
    require(task.pmf_table_size <= MAX_PMF_TABLE, "length", task.length, limit)
    a = np.linspace(1, -1, config.cells) * MAX_INPUT / max(1, task.high)
    let_in = min(MAX_OPENNESS, 1 / (abs(a[0]) * max(1, task.threshold)))
    digits, excess = np.arange(task.low, task.high + 1), task.threshold - task.length * task.low
    rest = excess - np.arange(len(digits))  # What all digits but one add to the lowest sum.
    logs = log_pmf_table(task)[-2]
    weights = np.where(rest >= 0, np.exp(logs[np.maximum(rest, 0)] - logs.max()), 0.0)
    limit = "a sum less rare, of at least 1e-30 times the probability of the likeliest"
    require(weights.max() > MIN_WEIGHT, "threshold", task.threshold, limit)
    average = weights @ np.tanh(np.outer(digits, a)) / weights.sum()
    states = np.tanh(let_in * task.length * average)
    kernel = a / (0.5 * let_in * (1 - states**2) * a @ a)
    return _params(
        a * config.input_scale,
        kernel,
        0.5 - 0.5 * states @ kernel,
        candidate_bias=a * config.input_center,
        input_bias=math.log(let_in / (1 - let_in)),
        output_bias=0.0,
    )


def _params(
    a: np.ndarray,
    kernel: np.ndarray,
    bias: float,
    *,
    candidate_bias: np.ndarray | float = 0.0,
    input_bias: float = OPEN,
    output_bias: float = OPEN,
) -> network.Params:
    """Parameters with these kernels of candidates and output, and these biases."""
    cells, biases = len(a), (input_bias, OPEN, candidate_bias, output_bias)
    params: network.Params = {"lstm": {}}
    for gate, gate_bias in zip(GATES, biases, strict=True):
        inputs = a if gate == "g" else np.zeros(cells)
        params["lstm"][f"i{gate}"] = {"kernel": inputs[None].astype(np.float32)}
        params["lstm"][f"h{gate}"] = {
            "kernel": np.zeros((cells, cells), np.float32),
            "bias": np.broadcast_to(gate_bias, cells).astype(np.float32),
        }
    params["output"] = {
        "kernel": kernel[:, None].astype(np.float32),
        "bias": np.full(1, bias, np.float32),
    }
    return params
