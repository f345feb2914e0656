"""Does everything work?  Three conditions of a tiny network."""

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="tiny",
    question="Does everything work?",
    conditions={
        f"cells-{cells}": Config(
            task=TaskConfig(size=500, length=6, high=4, threshold=12),
            model=ModelConfig(cells=cells),
            train=TrainConfig(epochs=3, learning_rate=1e-2),
        )
        for cells in (2, 4, 8)
    },
    seeds="0:5",
)
