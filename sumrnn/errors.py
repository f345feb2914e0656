"""The one error for what a person can do something about."""

import contextlib
import re
from collections.abc import Iterator

MAX_SHOWN = 200
"""Characters of a value or name in a message."""


class UserError(Exception):
    """One line that says what is wrong and, where it is known, the way out.

    Args:
      message: the line.
      status: exit status of a process that ends because of it: 1 if something failed, 2 for
        misuse, 3 if training diverged, 128 + n if signal n stopped it.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def invalid(field: str, value: object, allowed: str) -> UserError:
    """The error for a value: its field, itself, and what is allowed."""
    return UserError(f"{_name(field)} = {_shown(value)}: must be {allowed}")


def require(ok: bool, field: str, value: object, allowed: str) -> None:
    """Raises the `invalid` error unless `ok`."""
    if not ok:
        raise invalid(field, value, allowed)


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


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """A context that needs libraries of an extra of the package, and says how to get them."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = f"python -m pip install 'sumrnn[{name}]' brings it"
        raise UserError(f"{error.name}: must be installed for this; {how}") from None
