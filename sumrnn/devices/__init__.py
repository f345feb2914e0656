"""Which device does what: compiled functions, and seeds and shards on a mesh."""
