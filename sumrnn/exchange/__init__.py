"""Weights and networks for other programs, and from them."""

MAX_LENGTH = 10_000
"""Digits of a series that is answered."""
