"""Is it optimisation or representation?  Training from weights that count, and from usual ones.

`alike`: all cells of the counter are alike and its input kernel is small; `uneven`: its cells
differ, with weights nearer to a trained network's size, and noise of a tenth of each.
"""

import dataclasses
from typing import Any

from sumrnn.config import Config
from sumrnn.presets import preset, untrained
from sumrnn.study.experiment import Experiment

PROCEDURES = {
    name: dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=20))
    for name, config in (
        ("exercise", preset("sheet")),
        ("solved", preset("sheet-solved")),
        ("holding", preset("sheet-holding")),
    )
}
"""With a third of their series."""


def alike_start(config: Config) -> Config:
    """The procedure from the counter, which takes digits as they are."""
    return _started(config, initializer="counter", input_center=0.0, input_scale=1.0)


def uneven_start(config: Config) -> Config:
    """The procedure from the uneven counter, with noise."""
    return _started(config, initializer="uneven-counter", noise=0.1)


def _started(config: Config, **model: Any) -> Config:
    model |= {"memory": None}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


EXPERIMENT = Experiment(
    name="counter",
    question="Do procedures stay with weights that count, leave, or find back?",
    conditions={
        "uneven": untrained(uneven_start(PROCEDURES["exercise"])),
        **{f"{name}-drawn": config for name, config in PROCEDURES.items()},
        **{f"{name}-alike": alike_start(config) for name, config in PROCEDURES.items()},
        **{f"{name}-uneven": uneven_start(config) for name, config in PROCEDURES.items()},
    },
    baselines={
        f"{name}-{start}": f"{name}-drawn" for name in PROCEDURES for start in ("alike", "uneven")
    },
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores", "learning", "lengths"),
    probes=("lengths",),
)
