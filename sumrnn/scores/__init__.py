"""Scores of one run's predictions, also by the exact law, and statistics over many runs."""
