"""What every program is given to do: the same digits, order and initial parameters."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any, Literal

import numpy as np

from sumrnn import config as config_lib
from sumrnn.config import Config, ConfigError, ModelConfig, TaskConfig, TrainConfig

GATES = ("i", "f", "g", "o")
"""In the order of all three libraries; a copy, since `sumrnn.model` would import JAX."""
FIRST = 5
"""Steps whose losses are compared."""
TOLERANCE = 1e-4
"""Difference up to which two losses are the same, absolute or as a share of the larger."""

Params = dict[str, dict[str, dict[str, Any]]]
"""As `sumrnn.model.Params`."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Epochs of training; there is one series more for each of validation and test."""

    size: int = 7_200
    """Training series."""
    length: int = 30
    """Digits per series."""
    cells: int = 200
    batch_size: int = 50
    seed: int = 12

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError("size", self.size, "at least 1")
        config_lib.check_seed("seed", self.seed)
        self.config()

    def config(
        self,
        batch_shards: int | None = None,
        recurrence: Literal["fused", "scan"] = "fused",
        epochs: int = 1,
    ) -> Config:
        """The config whose epoch is this work, but for the two further series."""
        default = TaskConfig()
        task = TaskConfig(
            size=self.size + 2,
            length=self.length,
            threshold=default.threshold * self.length // default.length,
            test_fraction=1 / (self.size + 2),
            validation_fraction=1 / (self.size + 1),
        )
        train = TrainConfig(epochs=epochs, batch_size=self.batch_size)
        if batch_shards is not None:
            train = dataclasses.replace(train, batch_shards=batch_shards)
        return Config(task, ModelConfig(self.cells, recurrence=recurrence), train)

    @property
    def flops(self) -> int:
        """Additions and multiplications of an epoch's recurrent matrix products.

        A step has three: forward, backward to the hidden state, backward to the weights.
        """
        return 3 * 2 * self.size * self.length * self.cells * len(GATES) * self.cells


@dataclasses.dataclass(frozen=True)
class Given:
    """The content of the file that every worker starts from."""

    digits: np.ndarray
    """uint8 [size, length], in the order of the first epoch."""
    labels: np.ndarray
    """uint8 [size]."""
    params: Params
    """Initial parameters, float32."""

    def side_by_side(self, kind: Literal["i", "h"], name: str) -> np.ndarray:
        """A kernel or bias of the four gates, as one array along its last axis."""
        return np.concatenate(
            [self.params["lstm"][f"{kind}{gate}"][name] for gate in GATES], axis=-1
        )


def save(
    path: pathlib.Path, digits: np.ndarray, labels: np.ndarray, order: np.ndarray, params: Params
) -> None:
    """Writes the file; digits and labels as drawn, to be taken in this order."""
    flat = {
        f"{part}/{layer}/{name}": np.asarray(value)
        for part, layers in _deep(params).items()
        for layer, values in layers.items()
        for name, value in values.items()
    }
    np.savez(path, allow_pickle=False, digits=digits, labels=labels, order=order, **flat)


def load(path: pathlib.Path) -> Given:
    """Reads the file."""
    params: Params = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            if "/" in key:
                part, layer, name = key.split("/")
                params.setdefault(part, {}).setdefault(layer, {})[name] = arrays[key]
        order = arrays["order"]
        return Given(arrays["digits"][order], arrays["labels"][order], params)


def _deep(params: Any) -> Params:
    """The parameters with every part three levels deep; the output layer has two."""
    return {"lstm": params["lstm"], "output": {"dense": params["output"]}}


def same(reference: list[float], found: list[float]) -> bool:
    """Whether two programs' first losses agree; never if one is not a number."""
    return len(reference) == len(found) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for a, b in zip(reference, found, strict=True)
    )
