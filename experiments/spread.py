"""How much of the spread between runs comes from the digits, the initial weights, the order?

A crossed design: the conditions pin the seeds of the data and of the initial parameters, so
that the run's own seed is left to the order of the training series.
"""

from sumrnn.config import Config, ModelConfig, TrainConfig
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

LEVELS = 3

EXPERIMENT = Experiment(
    name="spread",
    question="Which of its three random sources makes one run better than another?",
    conditions={
        f"data{data}-init{init}": Config(
            task=preset("notebook").task,
            model=ModelConfig(cells=50),
            train=TrainConfig(epochs=30),
            data_seed=data,
            init_seed=init,
        )
        for data in range(LEVELS)
        for init in range(LEVELS)
    },
    seeds=f"0:{LEVELS}",
    scores=(
        "accuracy",
        "balanced_accuracy",
        "matthews_correlation",
        "exact_accuracy",
        "exact_balanced_accuracy",
        "exact_matthews_correlation",
    ),
    plots=("variance",),
)
