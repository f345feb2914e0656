"""Is it optimisation or representation?  Training from weights that count, and beside them.

The counter has its count in every cell, with states and outputs of the size of a trained network's.
"""

import dataclasses
from typing import Any

from sumrnn.config import Config
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

NOISE = (0.0, 0.1)
"""Standard deviations of the noise in each weight, as shares of it."""
PROCEDURES = {
    "exercise": preset("sheet"),
    "solved": preset("sheet-solved"),
    "holding": preset("sheet-holding"),
}


def shortened(config: Config, **train: Any) -> Config:
    """The config with a third of the exercise's epochs."""
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, **{"epochs": 20, **train})
    )


def from_counter(config: Config, noise: float) -> Config:
    """The procedure from the counter's weights with noise, which take digits as they are."""
    model = dataclasses.replace(
        config.model,
        initializer="counter",
        noise=noise,
        memory=None,
        input_center=0.0,
        input_scale=1.0,
    )
    return dataclasses.replace(config, model=model)


EXERCISE = shortened(PROCEDURES["exercise"])
UNMOVED = shortened(EXERCISE, epochs=1, learning_rate=1e-30)

EXPERIMENT = Experiment(
    name="counter",
    question="Do procedures stay with weights that count, leave, or find back?",
    conditions={
        "drawn": EXERCISE,
        **{f"start-{noise:g}": from_counter(UNMOVED, noise) for noise in NOISE},
        **{
            f"{name}-{noise:g}": from_counter(shortened(config), noise)
            for name, config in PROCEDURES.items()
            for noise in NOISE
        },
    },
    baselines={f"{name}-0": "drawn" for name in PROCEDURES},
    seeds="0:4",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "learning"),
)
