import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.errors import UserError
from sumrnn.presets import PRESET_NAMES, PRESETS, preset
from sumrnn.seeds import check_seeds


@pytest.mark.parametrize("name", PRESETS)
def test_presets_split_as_in_the_exercise(name: str) -> None:
    task = preset(name).task
    assert (task.train_size, task.validation_size, task.test_size) == (7_200, 800, 2_000)
    assert (task.length, task.low, task.threshold) == (30, 0, 100)
    assert task.high == {"sheet": 9, "notebook": 8}[name]


@pytest.mark.parametrize("name", sorted({*PRESET_NAMES} - {*PRESETS}))
def test_recipes_train_the_same_network_with_as_many_series(name: str) -> None:
    config, plain = preset(name), preset(name.partition("-")[0])
    assert config.task == plain.task
    assert config.model.cells == plain.model.cells
    assert (config.train.epochs, config.train.batch_size) in ((60, 50), (60, 25))
    assert bool(config.train.focus) == name.endswith(("solved", "holding"))
    if config.train.min_digits is not None:
        assert not config.model.scales
        return
    digits = np.arange(plain.task.low, plain.task.high + 1)
    scaled = (digits - config.model.input_center) / config.model.input_scale
    assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1))


FRESH = {"series": "fresh"}
FOCUS = FRESH | {"focus": 0.5}
HOLDING = FOCUS | {"focus_reach": 5, "min_digits": 12}
PLAN = {"batch_size": 1, "decay": "cosine"}
POSSIBLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"batch_size": 7_200}),
    ({}, {"batch_size": 1, "epochs": 1_000_000}),
    ({}, PLAN | {"epochs": 298_261}),
    ({"length": 10_000, "high": 10}, {}),
    ({}, FOCUS | {"focus_reach": 100, "focus_start": 100}),
    ({"threshold": 260}, FOCUS | {"focus_reach": 11}),
    ({}, HOLDING | {"min_steps": 30, "max_hold": 1_000_000}),
    ({"low": 3}, {"series": "fresh", "min_digits": 1}),
]
IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "high = 9: must be between 10 and 255 (low is the lower end)": ({"low": 10}, {}),
    "threshold = 271: must be between 0 and 270 ": ({"threshold": 271}, {}),
    "threshold = 29: must be between 30 and 270 ": ({"low": 1, "threshold": 29}, {}),
    "size = 71582789: must be at most 2147483647 digits": ({"size": 71_582_789}, {}),
    "size = 3: must be large enough for every split": ({"size": 3}, {}),
    "batch_size = 7201: must be between 1 and 7200 ": ({}, {"batch_size": 7_201}),
    "epochs = 298262: must be at most 298261, so that": ({}, PLAN | {"epochs": 298_262}),
    "length = 10000: must be short enough: at most 100000 ": ({"length": 10_000, "high": 11}, {}),
    "min_digits = 12: must be None for repeated series": ({}, {"min_digits": 12}),
    "min_digits = 11: must be between 12 and 30": ({}, HOLDING | {"min_digits": 11}),
    "min_digits = 31: must be between 12 and 30 (with": ({}, HOLDING | {"min_digits": 31}),
    "min_digits = 31: must be between 1 and 30 (the": ({}, FRESH | {"min_digits": 31}),
    "min_steps = 31: must be between 1 and 30": ({}, HOLDING | {"min_steps": 31}),
    "min_steps = 9: must be None without min_digits": ({}, {"min_steps": 9}),
    "max_hold = 2: must be 1 without min_digits": ({}, {"max_hold": 2}),
    "focus = 0.5: must be 0 unless series are fresh": ({}, {"focus": 0.5}),
    "focus = 1.0: must be between 0 and 0.999": ({}, FOCUS | {"focus": 1.0}),
    "focus = 0.5: must be 0 for such long": ({"length": 2_000, "threshold": 9_000}, FOCUS),
    "focus_reach = 101: must be at most 100,": ({}, FOCUS | {"focus_reach": 101}),
    "focus_reach = 12: must be at most 11,": ({"threshold": 260}, FOCUS | {"focus_reach": 12}),
    "focus_start = 3: must be between 4 and 100 ": ({}, FOCUS | {"focus_start": 3}),
    "focus_start = 101: must be between 4 and 100 ": ({}, FOCUS | {"focus_start": 101}),
    "focus_start = 8: must be None without a focus": ({}, {"focus_start": 8}),
    "focus_reach = 2: must be 4 without a focus": ({}, {"focus_reach": 2}),
}


@pytest.mark.parametrize("message", IMPOSSIBLE)
def test_values_that_do_not_go_together_are_refused(message: str) -> None:
    task, train = IMPOSSIBLE[message]
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Config(TaskConfig(**task), train=TrainConfig(**train))


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        ({"memory": 2.0}, {}, "memory = 2.0: must be between 3 and"),
        ({"memory": 9.0, "initializer": "counter"}, {}, "memory = 9.0: must be None unless"),
        ({"recurrence": "scan"}, HOLDING | {"max_hold": 2}, "recurrence = 'scan': must be that of"),
        ({"cell": "gru"}, HOLDING | {"max_hold": 2}, "cell = 'gru': must be that of a fused LSTM"),
        ({"cell": "gru", "initializer": "counter"}, {}, "cell = 'gru': must be lstm for weights"),
        ({"cell": "gru", "weights": 64 * "0"}, {}, "cell = 'gru': must be lstm for weights"),
        ({"cell": "mgu", "forget_bias": 1.0}, {}, "forget_bias = 1.0: must be None unless"),
        ({"memory": 9.0, "forget_bias": 1.0}, {}, "forget_bias = 1.0: must be None with a memory"),
    ],
)
def test_networks_that_do_not_go_with_the_rest_are_refused(
    model: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Config(model=ModelConfig(**model), train=TrainConfig(**train))


def test_values_up_to_those_limits_are_possible() -> None:
    for task, train in POSSIBLE:
        Config(TaskConfig(**task), train=TrainConfig(**train))


def test_what_earlier_versions_had_is_passed_over_where_it_was_not_used() -> None:
    values = fields.to_dict(Config())
    values["train"] |= {"average": 0.0, "batch_growth": 1}
    assert fields.from_dict(Config, values) == Config()
    values["train"] |= {"average": 0.9}
    with pytest.raises(UserError, match=r"^average = 0\.9: must be left out"):
        fields.from_dict(Config, values)


def test_what_earlier_versions_lacked_has_its_default() -> None:
    values = fields.to_dict(Config())
    for section, name in (("model", "memory"), ("train", "min_digits"), ("train", "max_hold")):
        del values[section][name]
    assert fields.from_dict(Config, values) == Config()
    del values["train"]["focus"]
    with pytest.raises(UserError, match=r"^focus = None: must be given"):
        fields.from_dict(Config, values)


@pytest.mark.parametrize("plan", [{"warmup": 0.1}, {"decay": "cosine"}, FOCUS | {"focus_start": 9}])
def test_a_planned_program_depends_on_its_epochs(plan: dict[str, Any]) -> None:
    short, long = (Config(train=TrainConfig(epochs, **plan)) for epochs in (2, 3))
    assert short.canonical != long.canonical
    assert Config(train=TrainConfig(2)).canonical == Config(train=TrainConfig(3)).canonical


def test_defaults_are_the_exercise() -> None:
    config = Config()
    assert config.task == PRESETS["sheet"]
    assert config.model.cells == 200
    train = config.train
    assert (train.epochs, train.batch_size, train.learning_rate) == (60, 50, 1e-3)
    assert (train.beta1, train.beta2, train.epsilon) == (0.9, 0.999, 1e-8)


def test_scalars_of_numpy_and_jax_are_numbers() -> None:
    config = Config(train=TrainConfig(epochs=np.int64(3), learning_rate=np.float64(0.5)))
    assert config == Config(train=TrainConfig(epochs=3, learning_rate=0.5))
    assert type(config.train.epochs) is int
    assert type(config.train.learning_rate) is float
    # As integers these would have to fit into int32.
    train = TrainConfig(learning_rate=10**37, beta1=0)
    assert (type(train.learning_rate), type(train.beta1)) == (float, float)
    assert train == TrainConfig(learning_rate=1e37, beta1=0.0)
    assert check_seeds("seeds", np.arange(3, dtype=np.uint32)) == (0, 1, 2)
    assert all(type(seed) is int for seed in check_seeds("seeds", jnp.arange(3)))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([], r"^seeds = \[\]: must be at least one seed"),
        ([1, 2, 1], r"^seeds = \[1\]: must be given once each"),
        ([True], "^seeds = True: must be an integer"),
        ([2**32], "^seeds = 4294967296: must be between 0 and 4294967295"),
    ],
)
def test_impossible_seeds_are_refused(seeds: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_seeds("seeds", seeds)
