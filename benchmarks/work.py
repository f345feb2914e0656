"""What every program is given to do: the same digits, order and initial parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np

from sumrnn import fields
from sumrnn.config import MAX_ELEMENTS, Config, ModelConfig, Seed, TaskConfig, TrainConfig
from sumrnn.fields import Range

FIRST = 5
"""Steps whose losses are compared."""

Given = Mapping[str, np.ndarray]
"""What every program starts from, as in the file that `product.make` writes: digits
uint8 [size, length] and labels uint8 [size] in the order of the first epoch, and `WEIGHTS`."""
WEIGHTS = ("inputs", "recurrent", "bias", "output", "output_bias")
"""Initial parameters, float32, in the order and form of Keras: the four gates side by side."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Epochs of training; there is one series more for each of validation and test."""

    size: Annotated[int, Range(1, MAX_ELEMENTS)] = 7_200
    """Training series."""
    length: int = 30
    """Digits per series."""
    cells: int = 200
    batch_size: int = 50
    seed: Seed = 12

    def __post_init__(self) -> None:
        fields.check(self)
        self.config()

    def config(
        self,
        batch_shards: int = TrainConfig.batch_shards,
        recurrence: Literal["fused", "scan"] = "fused",
        epochs: int = 1,
    ) -> Config:
        """The config whose epoch is this work, but for the two further series."""
        task = TaskConfig(
            size=self.size + 2,
            length=self.length,
            threshold=TaskConfig.threshold * self.length // TaskConfig.length,
            test_fraction=1 / (self.size + 2),
            validation_fraction=1 / (self.size + 1),
        )
        train = TrainConfig(epochs, self.batch_size, batch_shards)
        return Config(task, ModelConfig(self.cells, recurrence=recurrence), train)

    @property
    def flops(self) -> int:
        """Additions and multiplications of an epoch's recurrent matrix products.

        A step has three, of four gates each: forward, and backward to the hidden state and the
        weights.
        """
        return 3 * 2 * self.size * self.length * self.cells * 4 * self.cells


def batches(digits: Any, labels: Any, size: int) -> Iterator[tuple[Any, Any]]:
    """Those of each step of an epoch, from arrays of any library."""
    for first in range(0, len(labels), size):
        yield digits[first : first + size], labels[first : first + size]
