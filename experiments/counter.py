"""Is it optimisation or representation?  Training from weights that count, and beside them."""

import dataclasses

from sumrnn.config import Config, ModelConfig, TrainConfig
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

NOISE = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
"""Standard deviations of what is added to each weight; the counter's input kernel is 0.008."""
AS_THEY_ARE = 1e-30
"""A step size that moves no weight."""


def condition(noise: float, rate: float = TrainConfig.learning_rate) -> Config:
    """The exercise's procedure from the counter's weights with noise."""
    model = ModelConfig(initializer="counter", noise=noise)
    epochs = 20 if rate > AS_THEY_ARE else 1
    return Config(preset("sheet").task, model, TrainConfig(epochs=epochs, learning_rate=rate))


EXERCISE = preset("sheet")

EXPERIMENT = Experiment(
    name="counter",
    question="Does the exercise's procedure stay with weights that count, leave, or find back?",
    conditions={
        "drawn": dataclasses.replace(
            EXERCISE, train=dataclasses.replace(EXERCISE.train, epochs=20)
        ),
        **{f"start-{noise:g}": condition(noise, AS_THEY_ARE) for noise in NOISE},
        **{f"trained-{noise:g}": condition(noise) for noise in NOISE},
    },
    seeds="0:4",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "learning"),
)
