"""How fast it is on every machine that was measured, side by side: python -m benchmarks.machines"""

from __future__ import annotations

import json
import pathlib
from statistics import median
from typing import Any

from benchmarks import table
from benchmarks.table import Column

RESULTS = pathlib.Path(__file__).parent / "results"
PEERS = {"keras-tensorflow": "Keras/TF", "keras-jax": "Keras/JAX", "pytorch": "PyTorch"}

COLUMNS = (
    Column("machine", "machine"),
    Column("GFLOP/s", "speed", 0),
    Column("what", "what"),
    Column("s per epoch", "seconds", 2),
    *(Column(title, name, 2) for name, title in PEERS.items()),
    Column("share of matrix speed", "share", 0, is_share=True),
    Column("start, s", "start", 1),
)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Of one machine's speed.json: one run, and a batch of seeds, against the peers.

    Against a peer it is the median over the rounds of its seconds over ours.
    """
    programs = {row["name"]: row for row in found["rows"] if row["installed"]}
    lines = []
    for name, what in {"sumrnn": "one run", "seeds": "a batch, per seed"}.items():
        ours = programs[name]
        line = {"what": what, "seconds": ours["median"], "share": ours["share_of_matrix_speed"]}
        for peer in programs.keys() & PEERS.keys():
            pairs = zip(programs[peer]["seconds"], ours["seconds"], strict=True)
            line[peer] = median(theirs / own for theirs, own in pairs)
        lines.append(line | {"start": ours["start_seconds"], "machine": ""})
    first = f"{found['machine']['cores']} cores, {found['machine']['processor']}"
    lines[0] |= {"machine": first, "speed": found["matrix"]["flops_per_second"] / 1e9}
    return lines


def markdown() -> str:
    """The table of all results."""
    files = sorted(RESULTS.glob("*/speed.json"))
    lines = [row for file in files for row in rows(json.loads(file.read_text(encoding="utf-8")))]
    return table.markdown(COLUMNS, lines)


if __name__ == "__main__":
    print(markdown(), end="")
