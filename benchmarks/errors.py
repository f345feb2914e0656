"""How often trained networks err at the sums around their threshold:

python -m benchmarks.errors SERIES RUN...

draws so many series at each of the four sums nearest to it, for every run folder.
"""

from __future__ import annotations

import pathlib
import sys

import jax
import numpy as np

from benchmarks import table
from benchmarks.table import Column
from sumrnn.models import network
from sumrnn.runs.folder import RunFolder
from sumrnn.task import log_laws, with_sums

ROWS = 4_000
"""Series that are drawn and answered at a time."""


def errors(path: pathlib.Path, series: int) -> dict[str, object]:
    """Of the newest checkpoint of a run: wrong answers by sum."""
    folder = RunFolder(path)
    record = folder.read()
    config, laws = record.config, log_laws(record.config.task)
    epoch = folder.checkpoints.newest(config, record.seed)[0]
    params = folder.checkpoints.load(config, record.seed, epoch).state.params
    threshold = config.task.threshold

    @jax.jit
    def wrong(key: jax.Array, total: jax.Array) -> jax.Array:
        sums = jax.numpy.full(ROWS, total, np.int32)
        digits = with_sums(key, laws, sums, config.task)
        answers = network.logits(params, config.model, digits) > 0
        count: jax.Array = (answers != (total >= threshold)).sum()
        return count

    series = -(-series // ROWS) * ROWS
    found: dict[str, object] = {"run": path.name, "series": series}
    for total in range(threshold - 2, threshold + 2):
        keys = jax.random.split(jax.random.key(total), series // ROWS)
        found[f"{total - threshold:+d}"] = sum(int(wrong(key, np.int32(total))) for key in keys)
    return found


def main() -> None:
    """Prints the table."""
    rows = [errors(pathlib.Path(path), int(sys.argv[1])) for path in sys.argv[2:]]
    names = [name for name in rows[0] if name not in ("run", "series")]
    titles = [Column(f"wrong at threshold {name}", name, 0) for name in names]
    columns = [Column("run", "run"), Column("series at each", "series", 0), *titles]
    print(table.markdown(columns, rows), end="")


if __name__ == "__main__":
    main()
