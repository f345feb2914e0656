"""One condition of the experiment tiny, with one seed: what it costs to start a run."""

import dataclasses

from sumrnn.cli import experiment

EXPERIMENT = dataclasses.replace(
    experiment.find("tiny").only("cells-8"),
    name="one",
    question="What does a start cost?",
    seeds="0:1",
)
