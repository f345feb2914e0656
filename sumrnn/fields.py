"""Fields of dataclasses: their types and ranges, checked by one loop; JSON there and back."""

import dataclasses
import math
import re
import typing
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from sumrnn.errors import invalid, require

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
    """Holds every field of a dataclass to its type and range.

    NumPy's numbers become Python's.  A whole number where a float belongs becomes one: as an
    integer it may not fit into int32.

    Raises `UserError` for a wrong type, NaN, an infinity, or a number that is out of range.
    """
    for name, hint in typing.get_type_hints(type(instance), include_extras=True).items():
        value = check_value(name, getattr(instance, name), hint)
        object.__setattr__(instance, name, float(value) if _base(hint) is float else value)


def _base(hint: Any) -> Any:
    """A type without its range."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Holds one value to a type and its range; raises `UserError`.

    Returns the value, a scalar of NumPy or JAX as a number of Python.
    """
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()
    base = _base(hint)
    choices = typing.get_args(base)
    if type(None) in choices:  # What may be left out.
        return None if value is None else check_value(name, value, choices[0])
    if base is int:
        require(type(value) is int, name, value, "an integer")
    elif base is float:
        require(_is_finite(value), name, value, "a finite number")
    elif typing.get_origin(base) is Literal:
        known = type(value) is str and value in choices
        require(known, name, value, " or ".join(map(repr, choices)))
    elif dataclasses.is_dataclass(base):
        require(type(value) is base, name, value, f"a {getattr(base, '__name__', '')}")
    else:
        _check_other(name, value, base)
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, (Range, Pattern)):
            part.require(name, value)
    return value


def _check_other(name: str, value: Any, hint: Any) -> None:
    """Holds texts and collections to their type."""
    import typeguard

    strategy = typeguard.CollectionCheckStrategy.ALL_ITEMS
    try:
        typeguard.check_type(value, hint, collection_check_strategy=strategy)
    except typeguard.TypeCheckError as error:
        kind = (typing.get_origin(hint) or hint).__name__
        raise invalid(name, value, f"a {kind} ({error})") from None
    if typing.get_origin(hint) is dict:  # Of names, it looks at the type alone.
        for key in value:
            check_value(name, key, typing.get_args(hint)[0])


def _is_finite(value: object) -> bool:
    """Whether this is an int or float, neither bool nor NumPy's, with a finite float value."""
    try:
        return type(value) in (int, float) and math.isfinite(typing.cast(float, value))
    except OverflowError:
        return False


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Any, field: str | None = None) -> T:
    """The inverse of `to_dict`; in messages the whole is called `field`, or like its class.

    Raises `UserError` if a field is missing, unknown or has an impossible value.
    """
    hints = typing.get_type_hints(cls)
    known = ", ".join(hints)
    allowed = f"an object with the fields {known}"
    require(type(values) is dict, field or cls.__name__, values, allowed)
    # What earlier versions had, and a run did not use, is passed over.
    unused = [name for name, value in getattr(cls, "GONE", ()) if values.get(name) == value]
    values = {name: value for name, value in values.items() if name not in unused}
    for name in values:
        require(name in hints, name, values[name], f"left out; the fields are {known}")
    for name in hints:
        require(name in values, name, None, f"given in {field or cls.__name__}")
    return cls(**{name: _from_json(hint, values[name], name) for name, hint in hints.items()})


def _from_json(hint: Any, value: Any, field: str) -> Any:
    """A value in the form of its type: JSON has no dataclasses and no tuples."""
    kind, inside = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value, field)
    if kind is tuple and type(value) is list:
        return tuple(value)
    if kind is dict and type(value) is dict and dataclasses.is_dataclass(inside[1]):
        return {name: _from_json(inside[1], part, field) for name, part in value.items()}
    return value
