"""Can the exercise's network be trained to count without an error, with as many series?"""

from sumrnn.presets import PRESET_NAMES, preset
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="solve",
    question="Does the same network, trained with as many series, answer every one right?",
    # The exercise's own procedure is in reproduce.
    conditions={name: preset(name) for name in PRESET_NAMES if name.endswith(("fresh", "solved"))},
    seeds="0:16",
    scores=("exact_error", "exact_balanced_accuracy", "exact_matthews_correlation"),
    plots=("scores", "learning"),
)
