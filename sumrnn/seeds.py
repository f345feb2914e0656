"""Seeds of runs: which there are, and lists of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from sumrnn import fields
from sumrnn.errors import require
from sumrnn.fields import Range

MAX_SEED = 2**32 - 1
Seed = Annotated[int, Range(0, MAX_SEED)]


def check_seeds(field: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds as Python's integers, each in [0, 2^32).

    Raises `UserError`, which names `field`, if there are none, one is impossible, or one is
    repeated.
    """
    require(len(seeds) > 0, field, list(seeds), "at least one seed")
    checked: tuple[int, ...] = fields.check_value(field, tuple(seeds), tuple[Seed, ...])
    repeated = sorted(seed for seed, count in Counter(checked).items() if count > 1)
    require(not repeated, field, repeated, "given once each")
    return checked
