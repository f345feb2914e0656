"""The error for everything that a person can mend, and how its one line is made."""

import importlib
import re

MAX_SHOWN = 200
"""The largest number of characters of a value or name in a message."""


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
    """The error for an impossible value: "field = value: must be allowed"."""
    return UserError(f"{_name(field)} = {_shown(value)}: must be {allowed}")


def require(ok: bool, field: str, value: object, allowed: str) -> None:
    """Raises the `UserError` of `invalid` for a field's value unless `ok`."""
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


def cause(error: Exception) -> str:
    """A library's error in one line: its class, and the first line of its message."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return ": ".join((name, *str(error).strip().splitlines()[:1]))


def need(module: str, extra: str) -> None:
    """Imports a module that an extra of this package brings.

    Raises `UserError`, which says how to install it, if it is missing or does not load.
    """
    install = f"'sumrnn[{extra}]'"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        advice = f"python -m pip install {install} brings it"
        raise UserError(f"{error.name}: must be installed for this; {advice}") from None
    except Exception as error:  # Of a library that it needs in turn, or of the system.
        advice = f"python -m pip install --force-reinstall {install} may help"
        raise UserError(f"sumrnn[{extra}]: must load for this ({cause(error)}); {advice}") from None
