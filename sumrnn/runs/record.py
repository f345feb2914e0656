"""The record of a run, config.json: its seed and config, what computed it, and how it ended."""

import dataclasses
import pathlib
from typing import Any, Literal

from sumrnn import fields
from sumrnn.config import Config, Name
from sumrnn.errors import UserError
from sumrnn.runs import origin
from sumrnn.runs.origin import Continued, Origin
from sumrnn.seeds import Seed

FORMAT = 6
EARLIER = {5: {"attempts": 0}}
"""Formats that are read too, with the fields that they lack."""
Status = Literal["finished", "diverged", "unfinished"]


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of config.json."""

    name: Name
    """The preset, or the condition of an experiment."""
    seed: Seed
    config: Config
    versions: dict[str, str]
    device: dict[str, str]
    settings: dict[str, str]
    continued: tuple[Continued, ...] = ()
    """The origins of its later parts, if it went on with other versions, settings or devices."""
    status: Status = "unfinished"
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """The SHA-256 of each file that proves how it ended, by name."""
    attempts: int = 0
    """Starts since its newest checkpoint; none once it has ended."""

    def __post_init__(self) -> None:
        fields.check(self)
        for part in self.origins:
            origin.check(part)

    @property
    def last_origin(self) -> Origin:
        """What computed the last part of the run."""
        return self.origins[-1]

    @property
    def epochs(self) -> int:
        """The number of epochs that the run has at its end."""
        return self.config.train.epochs

    @property
    def origins(self) -> list[Origin]:
        """What computed the run at first, and each part that was continued otherwise."""
        first = Origin(versions=self.versions, device=self.device, settings=self.settings)
        return [first, *self.continued]

    def check_same(self, file: pathlib.Path, config: Config, seed: int) -> None:
        """Raises `UserError` unless this is the run of this seed and config but for the epochs."""
        recorded, wanted = (
            _flat({"seed": s} | fields.to_dict(c))
            for s, c in ((self.seed, self.config), (seed, config))
        )
        for name in recorded:
            if (name != "epochs" or config.train.planned) and recorded[name] != wanted[name]:
                differs = f"its {name} is {recorded[name]!r}, not {wanted[name]!r}"
                raise UserError(f"{file}: is of another run; {differs}")


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
