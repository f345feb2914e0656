"""Which version this is; the package's metadata have it from here."""

__version__ = "0.1.0"
