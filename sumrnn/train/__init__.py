"""One run, pure: `run` is the algorithm, the others are what it calls, and its exact evaluation."""
