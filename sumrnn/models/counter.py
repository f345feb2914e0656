"""Weights with which the network counts, by construction: it can represent the task."""

import math

import numpy as np

from sumrnn.config import TaskConfig
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.models.lstm import GATES

OPEN = 20.0
"""Bias of a gate that is open: its sigmoid is 1 in float32 (from 17 on)."""
MARGIN = 10.0
"""About the logit of a sum half a digit from the threshold."""
CURVED = 0.25
"""Share of a digit that the candidates' curvature may take from a sum at the threshold."""
MAX_ROUNDED = 2**20
"""The largest (length + cells) / a for which rounding stays below a share of a digit."""


def counter(task: TaskConfig, cells: int = 1) -> network.Params:
    """Parameters that predict every series of a task right, also with any zeros among its digits.

    All gates are open and all cells alike.  A cell's state is the sum of tanh(a x), which a zero
    leaves as it is; the output compares its tanh with that of the threshold T.  As tanh(y) lies
    between y - y^3 / 3 and y, the state of a sum S is at most a S, and at least a S (1 - (a h)^2 /
    3) for digits up to h.  With a = sqrt(3 / (4 T)) / h that is at most a (T - 1) below the
    threshold and at least a (T - 1/4) from it on; the output's threshold lies between.  No larger
    than 1 / T, a keeps the state there below 1, where its tanh is steep.

    Parameters are float32, for digits as they are.  Raises `UserError` where float32 may not
    suffice: (length + cells) / a above 2^20.
    """
    threshold, high = max(1, task.threshold), max(1, task.high)
    a = min(math.sqrt(3 * CURVED / threshold) / high, 1 / threshold)
    allowed = "short enough to be counted in float32, (length + cells) x threshold up to 1,000,000"
    require((task.length + cells) / a <= MAX_ROUNDED, "length", task.length, allowed)
    params: network.Params = {"lstm": {}}
    for gate in GATES:
        params["lstm"][f"i{gate}"] = {
            "kernel": np.full((1, cells), a if gate == "g" else 0.0, np.float32)
        }
        params["lstm"][f"h{gate}"] = {
            "kernel": np.zeros((cells, cells), np.float32),
            "bias": np.full(cells, 0.0 if gate == "g" else OPEN, np.float32),
        }
    middle = a * (task.threshold - (1 + CURVED) / 2)
    kernel = MARGIN / (cells * a / 2 * (1 - math.tanh(middle) ** 2))
    params["output"] = {
        "kernel": np.full((cells, 1), kernel, np.float32),
        "bias": np.full(1, -cells * kernel * math.tanh(middle), np.float32),
    }
    return params
