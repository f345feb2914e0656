"""Arbitrary configs and command lines: accepted and trainable, or refused in one line.

The short runs draw the same cases every time, and look into few that are accepted; the slow ones
draw others, many more of them, and look into each.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
import tempfile
import typing
from collections import Counter
from typing import Any, Literal, NamedTuple

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.devices import machine, mesh
from sumrnn.errors import UserError
from sumrnn.fields import Pattern, Range
from sumrnn.models import network
from sumrnn.train import run as algorithm
from sumrnn.train.series import Batch
from tests.conftest import SMALL, call

Values = dict[str, Any]
SECTIONS = ("task", "model", "train")
DEFAULTS = fields.to_dict(Config())
LEAVES = {name: section for section in SECTIONS for name in DEFAULTS[section]} | {
    name: "" for name in DEFAULTS if name not in SECTIONS
}
"""Every field that is a value, and the section it is in."""

CONFLICTS = {
    "size": {"batch_size", "epochs"},
    "batch_size": {"epochs"},
    **{name: {"epochs"} for name in ("warmup", "decay", "focus_start")},
    "length": {"size", "threshold", "focus", "focus_reach", "focus_start"},
    "low": {"high", "threshold", "length", "focus", "focus_reach", "focus_start"},
    "high": {"threshold", "length", "focus", "focus_reach", "focus_start"},
    "threshold": {"focus_reach", "focus_start"},
    "series": {"focus"},
    "focus_reach": {"focus_start"},
    "initializer": {"input_center", "input_scale"},
    "weights": {"noise"},
    "focus": {"focus_reach", "focus_start"},
    "test_fraction": {"size", "batch_size", "epochs"},
    "validation_fraction": {"size", "batch_size", "epochs"},
}
"""Which fields may be named when one is changed; and itself."""
MEMORY = {"size", "length", "cells", "batch_size", "batch_shards"}
TOO_LARGE = (2.0**40, 2.0**33)
"""Bytes that are needed, and those that there are."""


def hint_of(field: str) -> Any:
    """The type of a field, with the range or pattern that stands beside it."""
    cls: Any = {"task": TaskConfig, "model": ModelConfig, "train": TrainConfig}.get(LEAVES[field])
    return typing.get_type_hints(cls or Config, include_extras=True)[field]


def limits_of(hint: Any) -> Any:
    """The range or pattern in a type."""
    return next(limit for limit in hint.__metadata__ if isinstance(limit, (Range, Pattern)))


# --- values -------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
"""Of all characters, also lone surrogates, control characters and NUL."""
NUMBER = st.floats() | st.integers() | st.integers(0, 300) | st.just(10**400)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FOREIGN = st.sampled_from(
    [np.int32(3), np.float32(0.5), np.float64(0.5), np.bool_(True), np.arange(3), (), b"keras"]
)
"""What no JSON file brings, but a program."""
ANYTHING = JSON | NUMBER | FOREIGN


def inside(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type: the ends of its range, usual ones, and any."""
    parts = typing.get_args(hint)
    if type(None) in parts:
        return st.none() | inside(parts[0])
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(parts)
    if hint is int:
        return st.integers(0, 300)
    limits = limits_of(hint)
    if isinstance(limits, Pattern):
        return st.from_regex(limits.expression, fullmatch=True)
    low, high, _ = limits
    if parts[0] is int:
        usual, every = st.integers(low, min(low + 9, high)), st.integers(low, high)
    else:
        usual, every = st.floats(low, max(low, min(1, high))), st.floats(low, high)
    return st.sampled_from([low, high]) | usual | usual | every


@st.composite
def possible(draw: st.DrawFn) -> Values:
    """Values of a possible config: every field is drawn, within the limits that others set."""
    values = {
        section: {name: draw(inside(hint_of(name))) for name in DEFAULTS[section]}
        for section in SECTIONS
    }
    task, model, train = (values[section] for section in SECTIONS)
    length, low = draw(st.integers(1, 6)), task["low"]
    task |= {"length": length, "size": draw(st.integers(20, 80))}
    task |= {"high": draw(st.integers(low, 255))}
    lowest, highest = length * low, length * task["high"]
    task |= {"threshold": draw(st.integers(lowest, highest))}
    task |= {name: draw(st.floats(0.05, 0.4)) for name in ("test_fraction", "validation_fraction")}
    if model["weights"]:
        model["noise"] = 0.0
    if model["initializer"] == "counter":
        model |= {"input_center": 0.0, "input_scale": 1.0}
    built = model["initializer"] in ("counter", "uneven-counter")
    if built or model["weights"]:
        model["cell"] = "lstm"
    if built or model["weights"] or model["cell"] != "lstm":
        model |= {"memory": None, "forget_bias": None}
    if model["memory"] is not None:
        model["forget_bias"] = None
    reach = min(task["threshold"] - lowest, highest - task["threshold"] + 1)
    train["batch_size"] = draw(st.integers(1, 6))
    if train["series"] == "fresh" and reach > 0 and train["focus"]:
        train["focus_reach"] = draw(st.integers(1, reach))
        train["focus_start"] = draw(st.none() | st.integers(train["focus_reach"], reach))
    else:
        train |= {"focus": 0.0, "focus_reach": 4, "focus_start": None}
    zeros = {"min_digits": None, "min_steps": None, "max_hold": 1}
    near = task["threshold"] + (train["focus_start"] or train["focus_reach"]) - 1
    fewest = max(1, -(-near // max(1, task["high"]))) if train["focus"] else 1
    if train["series"] == "fresh" and fewest <= length and train["min_digits"] is not None:
        zeros["min_digits"] = draw(st.integers(fewest, length))
        zeros["min_steps"] = draw(st.none() | st.integers(1, length))
        if (model["recurrence"], model["cell"]) == ("fused", "lstm"):
            zeros["max_hold"] = train["max_hold"]
    train |= zeros
    seeds = {name: draw(inside(hint_of(name))) for name in DEFAULTS if name not in SECTIONS}
    return values | seeds


class Case(NamedTuple):
    """What `from_dict` is given."""

    values: Values
    changed: frozenset[str]
    """Names of the fields that may be impossible."""


def put(values: Values, field: str, value: Any) -> Values:
    """The values with one more, or one of them changed."""
    section = LEAVES.get(field, "")
    if not section:
        return values | {field: value}
    if not isinstance(values[section], dict):  # Changed as a whole before.
        return values
    return values | {section: values[section] | {field: value}}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A small config or any possible one, with some fields or sections changed, or unknown ones."""
    values = draw(st.just(fields.to_dict(SMALL)) | possible())
    known = st.sampled_from([*LEAVES])
    names = known | known | st.sampled_from(SECTIONS) | TEXT
    changed = draw(st.just([]) | st.lists(names, max_size=3))
    for field in changed:
        valid = field in LEAVES and draw(st.booleans())
        values = put(values, field, draw(inside(hint_of(field)) if valid else ANYTHING))
    return Case(values, frozenset(changed))


# --- outcomes -----------------------------------------------------------------------------


def check_message(error: Exception, allowed: set[str]) -> None:
    """Asserts that it is one short line that begins with one of the names."""
    message = str(error)
    assert message.isprintable()
    assert len(message) < 1_000
    starts = {start for name in allowed for start in (f"{name} = ", f"{name!r} = ")}
    assert message.startswith(tuple(starts)), message
    assert ": must be " in message


def may_be_named(case: Case) -> set[str]:
    """Fields that were changed, and those that they can be in conflict with."""
    found = set(case.changed)
    for field in case.changed:
        found |= CONFLICTS.get(field, set())
        if field in SECTIONS:
            value = case.values[field]
            found |= set(DEFAULTS[field]) | (set(value) if isinstance(value, dict) else set())
    return found


QUICK = {"xla_backend_optimization_level": 0}
"""The compiler's: the same program, sooner."""


def take(config: Config, begun: algorithm.Beginning) -> Any:
    """A step on the first batch."""
    rows = slice(config.train.batch_size)
    train = begun.data.train
    batch = Batch(train.digits[rows], train.labels[rows])
    return algorithm.train_step(config, begun.state, batch)[:2]


def is_small(config: Config) -> bool:
    """Whether compiling and running a step takes about a second."""
    task, cells, batch = config.task, config.model.cells, config.train.batch_size
    work = batch * task.length * cells * (cells + 10)
    return (
        task.size * task.length <= 10**6
        and work <= 10**7
        and cells <= 64
        and (config.train.batch_shards <= 16)
    )


@functools.lru_cache(maxsize=128)
def compiled_step(config: Config) -> Any:
    """The compiled function from seeds to the data and what a step on the first batch gives."""

    def step(seeds: Any) -> Any:
        begun = algorithm.begin(config, seeds)
        return begun.data, take(config, begun)

    return jax.jit(step).lower(algorithm.purpose_seeds(config, 0)).compile(compiler_options=QUICK)


def check_step(config: Config, trains: bool) -> str:
    """Checks the shapes of a step; of a small config that `trains`, all that comes out of one."""
    seeds = algorithm.purpose_seeds(config, 3)
    begun = jax.eval_shape(functools.partial(algorithm.begin, config), seeds)
    data, before = begun.data, begun.state
    after, (loss, hits) = jax.eval_shape(functools.partial(take, config), begun)
    task, cells = config.task, config.model.cells
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    sizes = (task.train_size, task.validation_size, task.test_size)
    for part, size in zip(data, sizes, strict=True):
        chex.assert_shape(part.digits, (size, task.length))
        chex.assert_shape(part.labels, (size,))
        chex.assert_type(list(part), np.uint8)
    params = jax.eval_shape(network.to_flax, after.params)
    if config.model.cell == "lstm":
        chex.assert_shape(params["lstm"]["hi"]["kernel"], (cells, cells))
    chex.assert_shape([loss, hits], ())
    if not (trains and is_small(config)):
        return "accepted, shapes only"

    # A step has nothing to do with seeds and epochs.
    once = dataclasses.replace(config.train, epochs=1)
    compiled = compiled_step(dataclasses.replace(config.unpinned, train=once))
    data, (after, (loss, hits)) = jax.device_get(compiled(seeds))
    for part in data:
        assert part.digits.min() >= task.low
        assert part.digits.max() <= task.high
        assert set(np.unique(part.labels)) <= {0, 1}
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    assert 0 <= hits <= config.train.batch_size
    assert np.isfinite(loss)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(after))
    if config.train.learning_rate <= 1:
        chex.assert_tree_all_finite(after)
    return "accepted, trained a step"


def outcome(case: Case, shapes: bool = True, trains: bool = True) -> str:
    """What becomes of a config; anything but what is allowed raises."""
    try:
        config = fields.from_dict(Config, case.values)
    except UserError as error:
        check_message(error, may_be_named(case))
        return "refused"
    assert fields.from_dict(Config, json.loads(json.dumps(fields.to_dict(config)))) == config
    check_message(machine.too_large(config, *TOO_LARGE), MEMORY)
    try:
        return check_step(config, trains) if shapes else "accepted"
    except UserError as error:  # Of weights that cannot be built for this task.
        check_message(error, {"length", "threshold"})
        return "refused"


def settings(cases: int) -> hypothesis.settings:
    """So many cases, the same every time unless there are many."""
    return hypothesis.settings(
        max_examples=cases,
        derandomize=cases < 500,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        # A failing case is shown as it was found: making it smaller would compile for minutes.
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )


SLOW = (pytest.mark.slow, pytest.mark.timeout(1_800))


@pytest.mark.parametrize(
    ("count", "shapes", "steps"),
    [(40, 2, 1), pytest.param(1_000, math.inf, math.inf, marks=SLOW)],
)
def test_every_config_trains_or_is_refused(count: int, shapes: float, steps: float) -> None:
    """The first accepted ones have their shapes checked, and the first of these train a step."""
    counts: Counter[str] = Counter()

    @settings(count)
    @hypothesis.given(cases())
    def check(case: Case) -> None:
        trained = counts["accepted, trained a step"]
        looked = trained + counts["accepted, shapes only"] < shapes
        counts[outcome(case, looked, trained < steps)] += 1

    check()
    print(dict(counts))
    assert counts.total() >= count
    assert counts["refused"] >= count / 6
    assert counts.total() - counts["refused"] >= count / 6
    assert counts["accepted, trained a step"] >= min(steps, count / 15)


@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_of_ranges_train(end: int) -> None:
    values = fields.to_dict(SMALL)
    for name in ("learning_rate", "epsilon", "beta1", "beta2"):
        values = put(values, name, limits_of(hint_of(name))[end])
    assert outcome(Case(values, frozenset())) == "accepted, trained a step"


# --- command lines ------------------------------------------------------------------------


class Started(BaseException):
    """Raised in the place of what begins when a command line is accepted."""


FOLDERS = ["", "a\0b", "\ud800", "\udcff", "a\nb", "x" * 300, "new/" + "x" * 300, "x/" * 2_000]
"""Names that a file system or a library may not take."""
WORDS = [
    *("", "-", "--", "---", "-h", "--help", "=", "--=", "tiny", "reproduce", "sheet", "file"),
    *("empty", "file/run", "None", "nan", "-1", "0", "1e400", "0:3", "3,5", "0:9999999999"),
    *("9" * 5_000, "🙂", "²", "a:1", *FOLDERS),
]
WORD = st.sampled_from(WORDS) | st.floats().map(str) | st.integers().map(str) | TEXT
VALID = {
    "train": [
        *("--preset=notebook", "--seed=12", "--out=new", "--out=new/er", "--out=🙂", "--size=100"),
        *("--size=60000000", "--length=12", "--length=10000", "--threshold=100", "--cells=8"),
        *("--cells=16384", "--epochs=2", "--batch-size=5", "--learning-rate=1e38"),
        *("--recurrence=scan", "--data-seed=None", "--overwrite", "--anyway"),
    ],
    "experiment": ["--seeds=0:3", "--out=empty", "--devices=2", "--per-device=99", "--anyway"],
    "analyze": ["--folder=empty"],
}
"""Options with possible values, and flags."""
OPTIONS = {
    name: sorted({word.partition("=")[0] for word in words}) for name, words in VALID.items()
}
OPTIONS["train"] += [f"--{name.replace('_', '-')}" for name in LEAVES]
EXAMPLES = {"train": ["--cells", "16384"], "experiment": ["tiny"], "analyze": ["empty"]}
"""Which are always tried; the first one is too large for memory."""
POSITIONAL = {"train": [[]], "experiment": [["tiny"], ["skew"]], "analyze": [["empty"], ["file"]]}


@st.composite
def command_lines(draw: st.DrawFn, script: str) -> list[str]:
    """Options, repeated or not, with possible and impossible values, among other words."""
    words = [*draw(st.sampled_from(POSITIONAL[script]))]
    words += draw(st.lists(st.sampled_from(VALID[script]), max_size=3))
    wild = st.tuples(st.sampled_from(OPTIONS[script]), WORD, st.booleans())
    for option, value, joined in draw(st.just([]) | st.lists(wild, max_size=2)):
        words += [f"{option}={value}"] if joined else [option, value]
    for other in draw(st.just([]) | st.just([]) | st.lists(WORD, max_size=2)):
        words.insert(draw(st.integers(0, len(words))), other)
    # Nothing outside the test's own folder is to be touched.
    return [re.sub(r"(^|=)/+", r"\1", word.replace("..", "__")) for word in words]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training, and some memory."""

    def prepare(config: Config, seeds: int, per_device: int | None = None) -> None:
        task, cells = config.task, config.model.cells
        if task.size * task.length > 10**7 or cells > 10**4:
            raise machine.too_large(config, *TOO_LARGE)
        raise Started

    monkeypatch.setattr(mesh, "prepare", prepare)


@pytest.mark.parametrize("cases", [20, pytest.param(2_000, marks=SLOW)])
@pytest.mark.parametrize("name", ["train", "experiment", "analyze"])
@pytest.mark.usefixtures("no_work")
def test_every_command_line_starts_work_or_is_refused(
    name: str, cases: int, tmp_path: pathlib.Path
) -> None:
    counts: Counter[str] = Counter()

    @settings(cases)
    @hypothesis.example(EXAMPLES[name])
    @hypothesis.given(command_lines(name))
    def check(argv: list[str]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as there:
            folder = pathlib.Path(there)
            (folder / "file").write_text("mine")
            (folder / "empty").mkdir()
            try:
                status, out, errors = call(name, *argv, cwd=folder)
            except Started:
                counts["started"] += 1
                return
            if status == 0:
                assert out.startswith("usage: ")
                counts["helped"] += 1
                return
            assert (status, out) == (2, ""), errors
            start = f"{name}.py: error: "
            assert errors.startswith(start)
            assert errors.endswith("\n")
            assert errors[:-1].isprintable()
            assert len(start) + 1 < len(errors) < 3_000
            assert {path.name for path in folder.rglob("*")} == {"empty", "file"}
            assert (folder / "file").read_text() == "mine"
            counts["refused"] += 1
            counts["refused for its memory"] += "small enough for memory" in errors

    check()
    print(name, dict(counts))
    works = name != "analyze"
    assert counts["refused"] >= cases / 4
    assert counts["started"] >= cases / 10 * works
    assert counts["refused for its memory"] >= (name == "train")
