"""How often trained networks err at the sums around their threshold:

python -m benchmarks.errors SERIES RUN...

draws so many series at each of the four sums nearest to it, for every run folder; the scores by
the law take sums further away as without an error.
"""

from __future__ import annotations

import pathlib
import sys

import jax
import numpy as np

from benchmarks import table
from benchmarks.table import Column
from sumrnn.config import TaskConfig
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.runs.folder import RunFolder
from sumrnn.task import log_laws, sum_law, with_sums

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
    wrong_at = {}
    for total in range(threshold - 2, threshold + 2):
        keys = jax.random.split(jax.random.key(total), series // ROWS)
        wrong_at[total] = sum(int(wrong(key, np.int32(total))) for key in keys)
    return row(path.name, config.task, wrong_at, series)


def row(name: str, task: TaskConfig, wrong: dict[int, int], series: int) -> dict[str, object]:
    """Of a run: wrong answers of so many by sum, and what they are by the exact law."""
    law, classes = sum_law(task), [0.0, 0.0]
    for total, count in wrong.items():
        share = law.probabilities[total - law.sums[0]] * count / series
        classes[total >= task.threshold] += share
    rates = (1 - law.positive_rate, law.positive_rate)
    balanced = 1 - sum(part / rate for part, rate in zip(classes, rates, strict=True)) / 2
    counts = {f"{total - task.threshold:+d}": count for total, count in wrong.items()}
    return {"run": name, "series": series, **counts, "error": sum(classes), "balanced": balanced}


def markdown(rows: list[dict[str, object]]) -> str:
    """The table."""
    names = [name for name in rows[0] if name[0] in "+-"]
    columns = [Column("run", "run"), Column("series at each", "series", 0)]
    columns += [Column(f"wrong at threshold {name}", name, 0) for name in names]
    columns += [Column("error by the law", "error", 5, is_share=True)]
    columns += [Column("balanced accuracy by the law", "balanced", 4, is_share=True)]
    return table.markdown(columns, rows)


def main() -> None:
    """Prints the table."""
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
        print("usage: python -m benchmarks.errors SERIES RUN...", file=sys.stderr)
        raise SystemExit(2)
    try:
        rows = [errors(pathlib.Path(path), int(sys.argv[1])) for path in sys.argv[2:]]
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(markdown(rows), end="")


if __name__ == "__main__":
    main()
