"""How much longer does `holding` keep the sum with more series?

Of 50 cells, with which a run takes a fraction of the time.
"""

import dataclasses

from sumrnn.config import Config
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

HOLDING = preset("sheet-holding")
EPOCHS = {"a-third": 20, "as-many": 60, "three-times": 180, "ten-times": 600}
"""By the number of series, relative to the exercise's."""


def trained_for(epochs: int) -> Config:
    """The recipe with so many epochs, over which its plan stretches."""
    return dataclasses.replace(
        HOLDING,
        model=dataclasses.replace(HOLDING.model, cells=50),
        train=dataclasses.replace(HOLDING.train, epochs=epochs),
    )


EXPERIMENT = Experiment(
    name="budget",
    question="How much longer does holding keep the sum with more series?",
    conditions={name: trained_for(epochs) for name, epochs in EPOCHS.items()},
    baselines={"as-many": "a-third", "three-times": "as-many", "ten-times": "three-times"},
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "lengths"),
    probes=("lengths",),
)
