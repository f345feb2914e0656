"""Where does one lucky seed fall among many?  The sheet's and the notebook's task."""

from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="reproduce",
    question="How does the exercise end, over 32 seeds of each task?",
    conditions={name: preset(name) for name in ("sheet", "notebook")},
    seeds="0:32",
    scores=(
        "accuracy",
        "skill",
        "balanced_accuracy",
        "matthews_correlation",
        "average_precision_minority",
        "exact_accuracy",
        "exact_balanced_accuracy",
    ),
    plots=("scores", "learning"),
    # The single run of the exercise's published solution: 0.992, and 181, 2, 14, 1803.
    references={
        "notebook": {
            "accuracy": 0.992,
            "balanced_accuracy": (181 / 183 + 1803 / 1817) / 2,
            "tn": 181,
            "fp": 2,
            "fn": 14,
            "tp": 1803,
        }
    },
)
