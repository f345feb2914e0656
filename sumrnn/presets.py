"""Configs by name: the tasks of the exercise, and recipes that train its network better."""

import dataclasses
import math

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.errors import require

PRESETS: dict[str, TaskConfig] = {
    "sheet": TaskConfig(),
    "notebook": TaskConfig(high=8),
}
"""The tasks by name: the exercise sheet's digits 0...9, and the 0...8 that the notebook's
`randint(0, 9)` really draws."""
RECIPES = ("fresh", "solved", "holding")
"""Recipes that train the exercise's network with as many series, but better.

fresh: no series twice, scaled inputs, clipped gradients, a planned step size; digits are
distributed as in the exercise.  solved: nearly all of each batch near the threshold besides,
nearer from epoch to epoch, which changes the distribution of the training series alone.
holding: fewer digits at random among zeros that last up to 10,000 steps, and cells that remember so
long at first, so that the network keeps the sum also in series much longer than those it has
read."""
PRESET_NAMES = (*PRESETS, *(f"{task}-{recipe}" for recipe in RECIPES for task in PRESETS))
"""The names of all configs that `preset` knows: a task, or a task with a recipe."""


def preset(name: str) -> Config:
    """The config of a name in `PRESET_NAMES`; raises `UserError` for any other name."""
    require(name in PRESET_NAMES, "preset", name, " or ".join(map(repr, PRESET_NAMES)))
    task_name, _, recipe = name.partition("-")
    task = PRESETS[task_name]
    if not recipe:
        return Config(task)
    train = TrainConfig(learning_rate=1.5e-3, warmup=0.05, decay="cosine", clip=1.0, series="fresh")
    if recipe == "holding":
        train = dataclasses.replace(train, batch_size=25, learning_rate=4e-3)
        train = dataclasses.replace(train, focus=0.95, focus_start=8, focus_reach=2)
        # As few digits as can have the sums near the threshold.
        digits = math.ceil((task.threshold + 8 - 1) / task.high)
        train = dataclasses.replace(train, min_digits=digits, min_steps=14, max_hold=10_000)
        return Config(task, ModelConfig(memory=10_000), train)
    width = task.high - task.low + 1
    model = ModelConfig(
        input_center=(task.low + task.high) / 2, input_scale=math.sqrt((width**2 - 1) / 12)
    )
    if recipe == "solved":
        train = dataclasses.replace(
            train, learning_rate=6e-3, focus=0.95, focus_start=8, focus_reach=1
        )
    return Config(task, model, train)


def untrained(config: Config) -> Config:
    """The config with one epoch of steps so small that the initial weights stay as they are."""
    return dataclasses.replace(config, train=TrainConfig(epochs=1, learning_rate=1e-30))
