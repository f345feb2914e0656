"""Which device does what: seeds and shards on a mesh, one process or several."""
