"""Fields of dataclasses: their types and ranges, checked by one function; JSON there and back."""

import dataclasses
import re
import sys
import typing
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from sumrnn.errors import require

T = TypeVar("T")


class Range(NamedTuple):
    """The numbers that a field may have, both ends included."""

    low: float
    high: float
    why: str = ""

    def require(self, field: str, value: float) -> None:
        """Raises `UserError` unless the value lies in the range."""
        why = f" ({self.why})" if self.why else ""
        ok = self.low <= value <= self.high
        require(ok, field, value, f"between {self.low} and {self.high}{why}")


class Pattern(NamedTuple):
    """The texts that a field may have: those that a regular expression matches."""

    expression: str
    meaning: str

    def require(self, field: str, value: str) -> None:
        """Raises `UserError` unless the whole value matches."""
        require(re.fullmatch(self.expression, value) is not None, field, value, self.meaning)


def check(instance: Any) -> None:
    """Holds every field of a dataclass to its type and range, as `check_value` does.

    A field's value is replaced by the checked one.  Raises `UserError` for the first field whose
    value is impossible.
    """
    for name, hint in typing.get_type_hints(type(instance), include_extras=True).items():
        object.__setattr__(instance, name, check_value(name, getattr(instance, name), hint))


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Holds a value to its type and range, and all that is in it; raises `UserError`.

    Returns the value in the form of its type: a scalar of NumPy or JAX as a number of Python, a
    whole number where a float belongs as a float (as an integer it may not fit into int32), and
    from JSON a list as a tuple and an object as a dataclass.
    """
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()
    annotated = typing.get_origin(hint) is Annotated
    base, *limits = typing.get_args(hint) if annotated else (hint,)
    kind, inside = typing.get_origin(base), typing.get_args(base)
    if type(None) in inside:
        return None if value is None else check_value(name, value, inside[0])
    if base is float:
        finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
        require(finite, name, value, "a finite number")
        value = float(value)
    elif kind is Literal:
        known = type(value) is str and value in inside
        require(known, name, value, " or ".join(map(repr, inside)))
    elif kind is tuple:
        require(type(value) in (tuple, list), name, value, "a tuple")
        value = tuple(check_value(name, item, inside[0]) for item in value)
    elif kind is dict:
        require(type(value) is dict, name, value, "a dict")
        value = {
            check_value(name, key, inside[0]): check_value(name, item, inside[1])
            for key, item in value.items()
        }
    elif dataclasses.is_dataclass(base) or typing.is_typeddict(base):
        value = value if type(value) is base else from_dict(base, value, name)
    else:
        allowed = "an integer" if base is int else f"a {base.__name__}"
        require(type(value) is base, name, value, allowed)
    for limit in limits:
        if isinstance(limit, (Range, Pattern)):
            limit.require(name, value)
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Any, field: str | None = None) -> T:
    """The inverse of `to_dict`; in messages the whole is called `field`, or like its class.

    Raises `UserError` if a field is missing, unknown or has an impossible value.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    known = ", ".join(hints)
    allowed = f"an object with the fields {known}"
    require(type(values) is dict, field or cls.__name__, values, allowed)
    # What earlier versions had, and a run did not use, is passed over.
    unused = [name for name, value in getattr(cls, "GONE", ()) if values.get(name) == value]
    values = {name: value for name, value in values.items() if name not in unused}
    for name in values:
        require(name in hints, name, values[name], f"left out; the fields are {known}")
    added = getattr(cls, "ADDED", ())  # Of later versions than what is read.
    hints = {name: hint for name, hint in hints.items() if name in values or name not in added}
    for name in hints:
        require(name in values, name, None, f"given in {field or cls.__name__}")
    return cls(**{name: check_value(name, values[name], hint) for name, hint in hints.items()})
