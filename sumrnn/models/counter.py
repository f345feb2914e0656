"""Weights with which the network counts, by construction: it can represent the task."""

import math

import numpy as np

from sumrnn.config import TaskConfig
from sumrnn.errors import require
from sumrnn.models import network
from sumrnn.models.lstm import GATES

OPEN = 30.0
"""Bias of a gate that is open: its sigmoid is 1 in float32 (from 17 on)."""
MARGIN = 10.0
"""About the logit of a sum half a digit from the threshold."""
CURVED = 0.25
"""Share of a half digit that the candidate's curvature may add up to."""
ROUNDING = 2.0**-23
"""Relative error of a sum or product in float32, with that of tanh."""


def counter(task: TaskConfig, cells: int = 1) -> network.Params:
    """Parameters that predict every series of a task right; float32, for digits as they are.

    All gates are open, so that the first cell's state is the sum of its candidates tanh(a (x - m)),
    where m = (threshold - 1/2) / length: without curvature it would be a (sum - threshold + 1/2),
    at least a / 2 from zero on the right side.  The output is that state's tanh, enlarged.  The
    other cells are silent.  With d the largest |x - m|, |tanh(y) - y| <= |y|^3 / 3 bounds the
    curvature's part by length (a d)^3 / 3; a is chosen so that this is a quarter of a / 2.
    Rounding adds at most about length x 2^-23 x the largest state, length a d, for which there is
    another half.

    Raises `UserError` where float32 may not suffice: length^2 (d + |m|) above 2^21.
    """
    m = (task.threshold - 0.5) / task.length
    d = max(abs(task.low - m), abs(task.high - m))
    rounded = task.length**2 * (d + abs(m)) * ROUNDING
    allowed = "short enough to be counted in float32, length^2 x digits up to some 2,000,000"
    require(rounded <= 0.25, "length", task.length, allowed)
    a = math.sqrt(3 * CURVED / 2 / (task.length * d**3))
    params: network.Params = {
        "lstm": {f"i{gate}": {"kernel": np.zeros((1, cells), np.float32)} for gate in GATES},
        "output": {"kernel": np.zeros((cells, 1), np.float32), "bias": np.zeros(1, np.float32)},
    }
    for gate in GATES:
        params["lstm"][f"h{gate}"] = {
            "kernel": np.zeros((cells, cells), np.float32),
            "bias": np.full(cells, 0.0 if gate == "g" else OPEN, np.float32),
        }
    params["lstm"]["ig"]["kernel"][0, 0] = a
    params["lstm"]["hg"]["bias"][0] = -a * m
    params["output"]["kernel"][0] = MARGIN / (a / 2)
    return params
