"""Do networks count more digits than they were trained on, and what does each recipe change?

Of 50 cells, with which a run takes a fraction of the time.
"""

import dataclasses
from typing import Any

from sumrnn.config import Config
from sumrnn.presets import preset, untrained
from sumrnn.study.experiment import Experiment

RECIPES = ("sheet", "sheet-fresh", "sheet-solved", "sheet-holding")


def smaller(config: Config, **model: Any) -> Config:
    """The config with 50 cells, and other changes of its network."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, cells=50, **model))


EXPERIMENT = Experiment(
    name="digits",
    question="Do networks count more digits than they were trained on?",
    conditions={
        "counter": untrained(smaller(preset("sheet"), initializer="counter")),
        **{name: smaller(preset(name)) for name in RECIPES},
    },
    baselines=dict(zip(RECIPES[1:], RECIPES, strict=False)),
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "digits", "lengths", "cells", "errors"),
    probes=("digits", "lengths", "cells", "errors"),
)
