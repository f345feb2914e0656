"""Does a network that has read 30 steps keep the sum over 1,000?"""

from sumrnn.config import Config, ModelConfig, TrainConfig
from sumrnn.presets import PRESETS, preset
from sumrnn.study.experiment import Experiment

AS_THEY_ARE = TrainConfig(epochs=1, learning_rate=1e-30)
"""A step size that moves no weight."""

EXPERIMENT = Experiment(
    name="holding",
    question="Is the sum kept over more steps than any series of the training had?",
    conditions={
        "counter": Config(PRESETS["sheet"], ModelConfig(initializer="counter"), AS_THEY_ARE),
        "sheet": preset("sheet"),
        "sheet-solved": preset("sheet-solved"),
        "sheet-holding": preset("sheet-holding"),
        "notebook-holding": preset("notebook-holding"),
    },
    baselines={"sheet-holding": "sheet-solved"},
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "learning", "lengths"),
    probes=("lengths",),
)
