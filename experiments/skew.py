"""What does each score say as the classes grow uneven, and when does accuracy fall silent?"""

from sumrnn import task
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.study.experiment import Experiment

SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
"""Wanted shares of positives."""


def threshold(share: float) -> int:
    """The highest threshold that at least this share of the sums reaches, by the exact law."""
    law = task.sum_law(TaskConfig())
    reaching = law.probabilities[::-1].cumsum()[::-1]
    return int(law.sums[reaching >= share].max())


EXPERIMENT = Experiment(
    name="skew",
    question="From which class skew on does accuracy no longer tell a trained network from the "
    "constant answer?",
    conditions={
        f"positive-{share:g}": Config(
            task=TaskConfig(threshold=threshold(share)),
            # Smaller and shorter than the exercise, so that 56 runs take minutes.
            model=ModelConfig(cells=50),
            train=TrainConfig(epochs=30),
        )
        for share in SHARES
    },
    seeds="0:8",
    scores=(
        "accuracy",
        "gain",
        "balanced_accuracy",
        "matthews_correlation",
        "average_precision_minority",
    ),
    plots=("skew", "learning"),
)
