"""Which cells keep the sum beyond the lengths of training, where these vary?

The procedure of `solved` with a third of its series, of which each has at least 12 digits, as they
are, at random among zeros, in 14 to 30 steps.  The simple cell with tanh has a smaller step size.
"""

import dataclasses
from typing import Any

from sumrnn.config import Config
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

SOLVED = preset("sheet-solved")
STEP_SIZES = {"simple": 1e-3}
CELLS = ("lstm", "gru", "mgu", "simple", "simple-relu", "linear")


def config_of(cell: Any) -> Config:
    """The procedure with other cells, and series of other lengths."""
    rate = STEP_SIZES.get(cell, SOLVED.train.learning_rate)
    train = dataclasses.replace(SOLVED.train, epochs=20, learning_rate=rate)
    return dataclasses.replace(
        SOLVED,
        model=dataclasses.replace(SOLVED.model, cell=cell, input_center=0.0, input_scale=1.0),
        train=dataclasses.replace(train, min_digits=12, min_steps=14),
    )


EXPERIMENT = Experiment(
    name="extrapolation",
    question="Which cells keep the sum beyond the lengths of training, where these vary?",
    conditions={cell: config_of(cell) for cell in CELLS},
    baselines=dict.fromkeys(CELLS[1:], "lstm"),
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "lengths"),
    probes=("lengths",),
)
