"""Does one command carry hundreds of seeds?  Two epochs of a small network."""

from sumrnn.config import Config, ModelConfig, TrainConfig
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="scale",
    question="Does one command carry hundreds of seeds?",
    conditions={"two-epochs": Config(model=ModelConfig(cells=50), train=TrainConfig(epochs=2))},
    seeds="0:256",
)
