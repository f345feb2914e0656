"""What does each ingredient of `solved` do, alone for the exercise's procedure, and within?"""

import dataclasses

from sumrnn.config import Config
from sumrnn.presets import preset
from sumrnn.study.experiment import Experiment

EXERCISE, SOLVED = (
    # A third of the epochs, so that the runs take an hour on two cores.
    dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=20))
    for config in (preset("sheet"), preset("sheet-solved"))
)
FOCUS = ("focus", "focus_reach", "focus_start")
INGREDIENTS = {
    "fresh": ("series",),
    "focus": ("series", *FOCUS),
    "scaled": ("input_center", "input_scale"),
    "schedule": ("learning_rate", "warmup", "decay"),
    "clip": ("clip",),
}
"""Fields by which `solved` differs from the exercise; only fresh series can have a focus."""
GONE = INGREDIENTS | {"fresh": ("series", *FOCUS), "focus": FOCUS}


def changed(config: Config, values: dict[str, object]) -> Config:
    """The config with other values of fields of its model and training."""
    sections = {}
    for name in ("model", "train"):
        own = getattr(config, name)
        sections[name] = dataclasses.replace(
            own, **{k: values[k] for k in values if k in vars(own)}
        )
    return dataclasses.replace(config, **sections)


def taken(source: Config, fields: tuple[str, ...]) -> dict[str, object]:
    """The values of fields of a model and training."""
    both = vars(source.model) | vars(source.train)
    return {field: both[field] for field in fields}


ADDED = {name: taken(SOLVED, fields) for name, fields in INGREDIENTS.items()}
LEFT_OUT = {name: taken(EXERCISE, fields) for name, fields in GONE.items()}
ALONE = {f"with-{name}": changed(EXERCISE, values) for name, values in ADDED.items()}
WITHIN = {f"solved-without-{name}": changed(SOLVED, values) for name, values in LEFT_OUT.items()}

EXPERIMENT = Experiment(
    name="ablation",
    question="Which ingredient helps alone, and which one can the recipe do without?",
    conditions={"exercise": EXERCISE, **ALONE, "solved": SOLVED, **WITHIN},
    baselines={
        **dict.fromkeys(ALONE, "exercise"),
        "with-focus": "with-fresh",
        **dict.fromkeys(WITHIN, "solved"),
    },
    seeds="0:8",
    scores=("exact_error", "exact_balanced_accuracy"),
    plots=("scores",),  # Nobody reads twelve learning curves in one picture.
)
