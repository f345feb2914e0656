"""What `holding` leaves open: fresh series alone on the sheet's task, and the notebook's task."""

from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

EXPERIMENT = Experiment(
    name="recipes",
    question="Do fresh series alone make a network hold, and does the notebook's task fare alike?",
    conditions={name: preset(name) for name in ("sheet-fresh", "notebook-holding")},
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "lengths", "cells", "errors"),
    probes=("lengths", "cells", "errors"),
)
