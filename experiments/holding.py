"""Is the sum kept over more steps than the training had, and what do the cells hold?"""

import dataclasses

from sumrnn.config import ModelConfig
from sumrnn.presets import preset, untrained
from sumrnn.study.experiment import Experiment

COUNTER = dataclasses.replace(preset("sheet"), model=ModelConfig(initializer="counter"))

EXPERIMENT = Experiment(
    name="holding",
    question="Is the sum kept over more steps than the training had, and what do the cells hold?",
    conditions={
        "counter": untrained(COUNTER),
        "untrained": untrained(preset("sheet")),
        "untrained-holding": untrained(preset("sheet-holding")),
        **{name: preset(name) for name in ("sheet", "sheet-solved", "sheet-holding")},
    },
    baselines={"sheet-holding": "sheet-solved"},
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "learning", "lengths", "cells", "errors"),
    probes=("lengths", "cells", "errors"),
)
