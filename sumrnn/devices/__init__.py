"""Devices: compilation, the placement of seeds and shards on them, and the machine they are of."""
