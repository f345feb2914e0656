import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.config import (
    MAX_SEED,
    NAMES,
    PRESETS,
    Config,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    check_seeds,
    preset,
)
from sumrnn.errors import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_split_as_in_the_exercise(name: str) -> None:
    task = preset(name).task
    assert (task.train_size, task.validation_size, task.test_size) == (7_200, 800, 2_000)
    assert (task.length, task.low, task.threshold) == (30, 0, 100)
    assert task.high == {"sheet": 9, "notebook": 8}[name]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*PRESETS}))
def test_recipes_train_the_same_network_with_as_many_series(name: str) -> None:
    found, law = preset(name), preset(name.partition("-")[0])
    assert found.task == law.task
    assert found.model.cells == law.model.cells
    assert (found.train.epochs, found.train.batch_size) == (60, 50)
    assert bool(found.train.focus) == name.endswith("solved")
    digits = np.arange(law.task.low, law.task.high + 1)
    scaled = (digits - found.model.input_center) / found.model.input_scale
    assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1))


FOCUSED = TrainConfig(series="fresh", focus=0.5)
BAD_FOCUS = {
    "of repeated series": ("focus", {"series": "repeated"}, {}),
    "a share of 1": ("focus", {"focus": 1.0}, {}),
    "beyond the sums": ("focus_reach", {"focus_reach": 101}, {}),
    "beyond the sums above": ("focus_reach", {"focus_reach": 12}, {"threshold": 260}),
    "that widens": ("focus_start", {"focus_start": 3}, {}),
    "that starts beyond the sums": ("focus_start", {"focus_start": 101}, {}),
    "none, with a start": ("focus_start", {"focus": 0.0, "focus_start": 8}, {}),
    "none, with a reach": ("focus_reach", {"focus": 0.0, "focus_reach": 2}, {}),
    "of very long series": ("focus", {}, {"length": 2_000, "threshold": 9_000}),
}


@pytest.mark.parametrize("name", BAD_FOCUS)
def test_an_impossible_focus_is_refused(name: str) -> None:
    field, train, task = BAD_FOCUS[name]
    with pytest.raises(UserError, match=rf"^{field} = "):
        Config(TaskConfig(**task), train=dataclasses.replace(FOCUSED, **train))
    Config(train=dataclasses.replace(FOCUSED, focus_reach=100, focus_start=100))
    Config(TaskConfig(threshold=260), train=dataclasses.replace(FOCUSED, focus_reach=11))


def test_what_earlier_versions_had_is_passed_over_where_it_was_not_used() -> None:
    values = fields.to_dict(Config())
    values["train"] |= {"average": 0.0, "batch_growth": 1}
    assert fields.from_dict(Config, values) == Config()
    values["train"] |= {"average": 0.9}
    with pytest.raises(UserError, match=r"^average = 0\.9: must be left out"):
        fields.from_dict(Config, values)


def test_a_plan_counts_its_steps() -> None:
    plan = {"batch_size": 1, "decay": "cosine"}
    with pytest.raises(UserError, match=r"^epochs = 298262: must be at most 298261, so that"):
        Config(train=TrainConfig(298_262, **plan))  # type: ignore[arg-type]
    assert Config(train=TrainConfig(298_261, **plan)).train.planned  # type: ignore[arg-type]
    assert Config(train=TrainConfig(1_000_000, batch_size=1)).train.epochs == 1_000_000


NARROWING = {"series": "fresh", "focus": 0.5, "focus_start": 9}


@pytest.mark.parametrize("plan", [{"warmup": 0.1}, {"decay": "cosine"}, NARROWING])
def test_a_planned_program_depends_on_its_epochs(plan: dict[str, Any]) -> None:
    short, long = (Config(train=TrainConfig(epochs, **plan)) for epochs in (2, 3))
    assert short.program != long.program
    assert Config(train=TrainConfig(2)).program == Config(train=TrainConfig(3)).program


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
    assert check_seeds("seeds", np.arange(3, dtype=np.uint32)) == (0, 1, 2)
    assert all(type(seed) is int for seed in check_seeds("seeds", jnp.arange(3)))


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (TaskConfig, "size", -1),
        (TaskConfig, "size", 3),
        (TaskConfig, "size", 10**9),
        (TaskConfig, "size", 100.0),
        (TaskConfig, "size", True),
        (TaskConfig, "size", 2**31),
        (TaskConfig, "size", np.array([100])),
        (TaskConfig, "length", 0),
        (TaskConfig, "length", 500_000_000),
        (TaskConfig, "low", -1),
        (TaskConfig, "low", 10),
        (TaskConfig, "high", 256),
        (TaskConfig, "threshold", 271),
        (TaskConfig, "threshold", -1),
        (TaskConfig, "test_fraction", 0.0),
        (TaskConfig, "test_fraction", 1.0),
        (TaskConfig, "validation_fraction", float("nan")),
        (TaskConfig, "validation_fraction", "0.1"),
        (ModelConfig, "cells", 0),
        (ModelConfig, "initializer", "torch"),
        (ModelConfig, "initializer", ["keras"]),
        (ModelConfig, "recurrence", np.arange(2)),
        (TrainConfig, "epochs", 0),
        (TrainConfig, "epochs", 10**9),
        (TrainConfig, "batch_size", -50),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "learning_rate", float("inf")),
        (TrainConfig, "learning_rate", 1e-320),
        (TrainConfig, "learning_rate", 1e300),
        (TrainConfig, "learning_rate", np.array([0.1])),
        (TrainConfig, "beta1", 1.0),
        (TrainConfig, "beta1", 1 - 1e-12),
        (TrainConfig, "beta2", -0.1),
        (TrainConfig, "epsilon", 0.0),
        (TrainConfig, "epsilon", 1e-50),
        (Config, "task", None),
        (Config, "model", TaskConfig()),
        (Config, "data_seed", -1),
        (Config, "init_seed", MAX_SEED + 1),
        (Config, "shuffle_seed", 1.5),
    ],
)
def test_impossible_values_are_named(cls: type[Any], field: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        cls(**{field: value})
    message = str(caught.value)
    assert "\n" not in message
    # low > high may be told from either end.
    assert message.startswith(f"{field} = {value!r}: must be ") or (field, value) == ("low", 10)
    assert field in message


@pytest.mark.parametrize("cls", [TaskConfig, ModelConfig, TrainConfig])
@pytest.mark.parametrize(
    "value",
    [10**400, -(10**5000), [10**5000], "x" * 10**6, "\ud800\n\x85\u2028", np.zeros((50, 50))],
    ids=["long", "longest", "in a list", "text", "lines", "array"],
)
def test_any_value_is_shown_in_one_short_line(cls: type[Any], value: object) -> None:
    for field in cls.__dataclass_fields__:
        with pytest.raises(UserError) as caught:
            cls(**{field: value})
        message = str(caught.value)
        assert message.startswith(f"{field} = ")
        assert len(message) < 400
        assert message.isprintable()


def test_whole_numbers_become_floats() -> None:
    """As integers they would have to fit into int32."""
    train = TrainConfig(learning_rate=10**37, beta1=0)
    assert (type(train.learning_rate), type(train.beta1)) == (float, float)
    assert train == TrainConfig(learning_rate=1e37, beta1=0.0)


def test_the_exact_law_must_be_quick() -> None:
    TaskConfig(length=10_000, high=10)
    with pytest.raises(UserError, match=r"^length = 10000: must be short enough: at most 100000 "):
        TaskConfig(length=10_000, high=11)


def test_batch_must_fit_the_training_series() -> None:
    Config(train=TrainConfig(batch_size=7_200))
    with pytest.raises(UserError, match=r"batch_size = 7201: must be between 1 and 7200"):
        Config(train=TrainConfig(batch_size=7_201))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "^colour = 1: must be left out; the fields are task, "),
        ({"new\nline": 1}, r"^'new\\nline' = 1: must be left out"),
        ({3: 1}, "^3 = 1: must be left out"),  # type: ignore[dict-item]
        ({"task": 3}, "^task = 3: must be an object with the fields size, "),
        ({"model": None}, "^model = None: must be an object"),
        ({"task": {}}, "^size = None: must be given in task"),
        ({"data_seed": "1"}, "data_seed = '1': must be an integer"),
    ],
)
def test_foreign_json_is_refused(change: dict[str, Any], message: str) -> None:
    values = fields.to_dict(Config()) | change
    with pytest.raises(UserError, match=message):
        fields.from_dict(Config, values)


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
