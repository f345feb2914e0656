"""What a run is: frozen dataclasses, validated on construction, JSON there and back.

A run is a pure function of (`Config`, seed).  Every impossible value raises
`ConfigError`, whose one line names the field, its value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

MAX_SEED = 2**32 - 1
MAX_SEEDS = 1_000_000
MAX_ELEMENTS = 2**31 - 1  # JAX indexes with int32 unless told otherwise.
MAX_SHARDS = 1_024
MAX_DIGIT = 255  # Digits are stored as uint8.
MAX_LENGTH = 10_000
MAX_SUMS = 100_000
"""Of length x (high - low): the exact law of the sum takes about a second for so many sums,
and time that grows with their square."""
MAX_CELLS = 16_384
MAX_EPOCHS = 1_000_000
RATE_RANGE = (1e-37, 1e38)
"""What float32 holds in full precision."""
EPSILON_RANGE = (1e-15, 1e38)
"""Below it, gradients whose squares vanish in float32 are divided by almost nothing."""
MAX_BETA = 0.999999
"""In float32 the rounding of 1 - beta is still small against it."""
MAX_SHOWN = 200
"""Characters of a value or name in a message."""

T = TypeVar("T")


class ConfigError(ValueError):
    """One line: the field, its value and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{_name(field)} = {_shown(value)}: must be {allowed}")


def _shown(value: object) -> str:
    """`repr` in one line of at most `MAX_SHOWN` characters, whatever the value."""
    try:
        text = repr(value)
    except Exception:  # An integer of too many digits, too deep a list, a foreign object.
        return f"<{type(value).__name__} that cannot be shown>"
    line = "".join(c if c.isprintable() else " " for c in text)
    half = (MAX_SHOWN - 3) // 2
    return line if len(line) <= MAX_SHOWN else f"{line[:half]}...{line[-half:]}"


def _name(field: str) -> str:
    """A field's name; what cannot be one, as the key of foreign JSON may be, as a value."""
    short = isinstance(field, str) and len(field) <= MAX_SHOWN
    return field if short and re.fullmatch(r"[\w.-]+", field) else _shown(field)


def _require(ok: bool, field: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(field, value, allowed)


def _require_range(field: str, value: float, low: float, high: float, why: str = "") -> None:
    _require(low <= value <= high, field, value, f"between {low} and {high}{why}")


def check_seed(field: str, seed: int) -> None:
    """Raises `ConfigError` unless `seed` is an integer that a 32-bit key can hold."""
    _require(type(seed) is int, field, seed, "an integer")
    _require_range(field, seed, 0, MAX_SEED)


def check_seeds(field: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Raises `ConfigError` unless there are seeds, all possible and all different."""
    _require(len(seeds) > 0, field, list(seeds), "at least one seed")
    for seed in seeds:
        check_seed(field, seed)
    repeated = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
    _require(not repeated, field, repeated, "given once each")
    return tuple(seeds)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,20}", text))


def parse_seeds(field: str, text: str) -> tuple[int, ...]:
    """Seeds from a list such as "0:32" (0 to 31) or "3,5,8:12".

    Raises:
      ConfigError: if it is malformed, empty, or repeats a seed.
    """
    allowed = "seeds and ranges first:end (without the end) with commas between, such as 3,5,8:12"
    seeds: list[int] = []
    for part in text.split(","):
        ends = part.strip().split(":")
        _require(len(ends) <= 2 and all(map(_is_number, ends)), field, text, allowed)
        first, end = int(ends[0]), int(ends[-1]) + (len(ends) == 1)
        _require(end <= MAX_SEED + 1, field, text, f"of seeds up to {MAX_SEED}")
        _require(first < end, field, text, f"of ranges that hold a seed (not {part.strip()!r})")
        many = len(seeds) + end - first
        _require(many <= MAX_SEEDS, field, text, f"at most {MAX_SEEDS} seeds")
        seeds += range(first, end)
    return check_seeds(field, seeds)


def _check_types(instance: Any) -> None:
    """Refuses what a JSON file may bring: wrong types, NaN and infinities.

    A whole number where a float belongs becomes one: as an integer it may not fit into int32.
    """
    for name, hint in typing.get_type_hints(type(instance)).items():
        value = getattr(instance, name)
        if hint is int:
            _require(type(value) is int, name, value, "an integer")
        elif hint is float:
            _require(_is_finite(value), name, value, "a finite number")
            object.__setattr__(instance, name, float(value))
        elif typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            known = type(value) is str and value in choices
            _require(known, name, value, " or ".join(map(repr, choices)))
        elif dataclasses.is_dataclass(hint):
            kind = getattr(hint, "__name__", "")
            _require(type(value) is hint, name, value, f"a {kind}")


def _is_finite(value: object) -> bool:
    """Whether this is an int or float, neither bool nor NumPy's, with a finite float value."""
    try:
        return type(value) in (int, float) and math.isfinite(typing.cast(float, value))
    except OverflowError:
        return False


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The data: series of random digits, labelled by whether their sum reaches a threshold."""

    size: int = 10_000
    """Number of series: training, validation and test together."""
    length: int = 30
    """Digits per series."""
    low: int = 0
    """Lowest digit, inclusive."""
    high: int = 9
    """Highest digit, inclusive."""
    threshold: int = 100
    """Label 1 if the sum of the digits is at least this."""
    test_fraction: float = 0.2
    """Share of all series held out for the test."""
    validation_fraction: float = 0.1
    """Share of the remaining series, the last ones, held out for validation."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name, most in (("size", MAX_ELEMENTS), ("length", MAX_LENGTH)):
            number = getattr(self, name)
            _require(number >= 1, name, number, "at least 1")
            _require(number <= most, name, number, f"at most {most}")
        elements = self.size * self.length
        limit = f"at most {MAX_ELEMENTS} digits in all (size x length is {elements})"
        _require(elements <= MAX_ELEMENTS, "size", self.size, limit)
        _require_range("low", self.low, 0, MAX_DIGIT)
        _require_range("high", self.high, self.low, MAX_DIGIT, " (low is the lower end)")
        lowest, highest = self.length * self.low, self.length * self.high
        sums = highest - lowest
        limit = f"at most {MAX_SUMS} for length x (high - low), which is {sums}"
        _require(sums <= MAX_SUMS, "length", self.length, f"short enough: {limit}")
        reachable = " (the sums a series can have)"
        _require_range("threshold", self.threshold, lowest, highest, reachable)
        for name in ("test_fraction", "validation_fraction"):
            fraction = getattr(self, name)
            _require(0 < fraction < 1, name, fraction, "between 0 and 1, both exclusive")
        sizes = (self.train_size, self.validation_size, self.test_size)
        _require(
            min(sizes) >= 1,
            "size",
            self.size,
            f"large enough for every split (now {sizes[0]} training, {sizes[1]} validation "
            f"and {sizes[2]} test series)",
        )

    @property
    def test_size(self) -> int:
        """Number of test series."""
        return round(self.size * self.test_fraction)

    @property
    def validation_size(self) -> int:
        """Number of validation series."""
        return round((self.size - self.test_size) * self.validation_fraction)

    @property
    def train_size(self) -> int:
        """Number of series that the network is fitted to."""
        return self.size - self.test_size - self.validation_size


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: LSTM cells, then one linear output."""

    cells: int = 200
    """LSTM cells."""
    initializer: Literal["keras", "flax"] = "keras"
    """keras: the four gates are one matrix; flax: each gate has its own."""
    recurrence: Literal["fused", "scan"] = "fused"
    """fused: hand-written backward pass; scan: nn.scan over Flax's cell, the reference."""

    def __post_init__(self) -> None:
        _check_types(self)
        _require_range("cells", self.cells, 1, MAX_CELLS)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The procedure: epochs of shuffled mini-batches, Adam on the binary cross-entropy."""

    epochs: int = 60
    """Passes over the training series."""
    batch_size: int = 50
    """Series per step; the last step of an epoch takes what is left."""
    batch_shards: int = 2
    """Parts of each batch whose gradients are summed; each may have a device of its own."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    beta1: float = 0.9
    """Adam's decay of the gradient's mean, per step."""
    beta2: float = 0.999
    """Adam's decay of the gradient's square, per step."""
    epsilon: float = 1e-8
    """Adam's constant in the denominator."""

    def __post_init__(self) -> None:
        _check_types(self)
        _require_range("epochs", self.epochs, 1, MAX_EPOCHS)
        _require_range("batch_size", self.batch_size, 1, MAX_ELEMENTS)
        _require_range("batch_shards", self.batch_shards, 1, MAX_SHARDS)
        why = " (Adam computes in float32)"
        _require_range("learning_rate", self.learning_rate, *RATE_RANGE, why)
        _require_range("epsilon", self.epsilon, *EPSILON_RANGE, why)
        for name in ("beta1", "beta2"):
            _require_range(name, getattr(self, name), 0, MAX_BETA, why)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that, with a seed, determines a run."""

    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    data_seed: int | None = None
    """Seed of the digits; None: the run's seed."""
    init_seed: int | None = None
    """Seed of the initial parameters; None: the run's seed."""
    shuffle_seed: int | None = None
    """Seed of the order of the training series; None: the run's seed."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("data_seed", "init_seed", "shuffle_seed"):
            if (seed := getattr(self, name)) is not None:
                check_seed(name, seed)
        _require_range(
            "batch_size",
            self.train.batch_size,
            1,
            self.task.train_size,
            " (the number of training series)",
        )


PRESETS: dict[str, TaskConfig] = {
    "sheet": TaskConfig(),
    "notebook": TaskConfig(high=8),
}
"""The exercise sheet's digits 0...9, and the 0...8 that `randint(0, 9)` really draws."""


def preset(name: str) -> TaskConfig:
    """The task that `name` stands for.

    Raises:
      ConfigError: if there is no such preset.
    """
    _require(name in PRESETS, "preset", name, " or ".join(map(repr, PRESETS)))
    return PRESETS[name]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Any, field: str | None = None) -> T:
    """The inverse of `to_dict`.

    Args:
      cls: the dataclass to make.
      values: its fields by name.
      field: what the whole is called in messages; None: the name of the class.

    Raises:
      ConfigError: if a field is missing, unknown or has an impossible value.
    """
    hints = typing.get_type_hints(cls)
    known = ", ".join(hints)
    allowed = f"an object with the fields {known}"
    _require(type(values) is dict, field or cls.__name__, values, allowed)
    for name in values:
        _require(name in hints, name, values[name], f"left out; the fields are {known}")
    for name in hints:
        _require(name in values, name, None, f"given in {field or cls.__name__}")
    nested = {}
    for name, hint in hints.items():
        is_config = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        nested[name] = from_dict(hint, values[name], name) if is_config else values[name]
    return cls(**nested)
