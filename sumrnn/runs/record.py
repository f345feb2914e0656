"""config.json: which run this is, what computed it, where it was continued, and how it ended."""

import dataclasses
import pathlib
from typing import Any, Literal

from sumrnn import fields
from sumrnn.config import Config, Name, Seed
from sumrnn.errors import UserError
from sumrnn.runs import origin
from sumrnn.runs.origin import Continued, Origin

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
    """After which `epoch` it went on with other versions, settings or another kind of device."""
    status: Status = "unfinished"
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """The SHA-256 of each file that proves how it ended, by name."""
    attempts: int = 0
    """Starts since its newest checkpoint; none once it has ended."""

    def __post_init__(self) -> None:
        fields.check(self)
        for made in self.origins:
            origin.check(made)

    @property
    def made(self) -> Origin:
        """What computed it last."""
        return self.origins[-1]

    @property
    def epochs(self) -> int:
        """How many the run has at its end."""
        return self.config.train.epochs

    @property
    def origins(self) -> list[Origin]:
        """What computed it at first, and wherever it was continued."""
        first = Origin(versions=self.versions, device=self.device, settings=self.settings)
        return [first, *self.continued]

    def check_same(self, file: pathlib.Path, config: Config, seed: int) -> None:
        """Raises `UserError` unless this is the run of this seed and config but for the epochs."""
        there, here = (
            _flat({"seed": s} | fields.to_dict(c))
            for s, c in ((self.seed, self.config), (seed, config))
        )
        for name in there:
            if (name != "epochs" or config.train.planned) and there[name] != here[name]:
                differs = f"its {name} is {there[name]!r}, not {here[name]!r}"
                raise UserError(f"{file}: is of another run; {differs}")


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= _flat(value) if isinstance(value, dict) else {name: value}
    return found
