"""Weights and networks for other programs, and from them."""
