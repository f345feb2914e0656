"""The network that reads digits, and its cells by name."""
