"""The network that reads digits, and weights of it that count."""
