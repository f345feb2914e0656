"""A run on disk: a folder that owns its path, atomic files, and what records a run as it goes."""
