"""Which ingredient of `holding` lets the network keep the sum?  With a third of its series."""

import dataclasses
from typing import Any

from sumrnn.config import Config
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

PRESET = preset("sheet-holding")
HOLDING = dataclasses.replace(PRESET, train=dataclasses.replace(PRESET.train, epochs=20))
"""The recipe with a third of its series."""


def with_train(**values: Any) -> Config:
    """The recipe with other values of its training."""
    return dataclasses.replace(HOLDING, train=dataclasses.replace(HOLDING.train, **values))


def with_model(**values: Any) -> Config:
    """The recipe with other values of its network."""
    return dataclasses.replace(HOLDING, model=dataclasses.replace(HOLDING.model, **values))


CHANGED = {
    "without-holds": with_train(max_hold=1),
    "without-lengths": with_train(min_steps=None),
    "without-zeros": with_train(min_digits=None, min_steps=None, max_hold=1),
    "without-memory": with_model(memory=None),
}

EXPERIMENT = Experiment(
    name="ingredients",
    question="Which ingredient of holding lets the network keep the sum?",
    conditions={"holding": HOLDING, **CHANGED},
    baselines=dict.fromkeys(CHANGED, "holding"),
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "lengths"),
    probes=("lengths",),
)
