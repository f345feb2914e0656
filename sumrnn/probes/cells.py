"""What the cells hold: the running sum, read from a network's states by linear regression.

On probes of this kind: G. Alain and Y. Bengio, Understanding intermediate layers using linear
classifier probes, arXiv 1610.01644.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sumrnn import task
from sumrnn.config import Config
from sumrnn.models import network
from sumrnn.models.network import Params

SIZE = 1_200
"""Series, of which the first half fits the regressions and the other half judges them."""
PENALTY = 1.0
"""Of the squared coefficients of standardized states."""
SCORES = ("joint_error", "cell_error", "hidden_error", "zero_shift", "best_r2", "cells")
"""Columns of which a report has the values of the last step."""
EXAMPLES = 6
"""Series whose course is kept."""


def measure(config: Config, params: Params) -> Iterator[dict[str, Any]]:
    """Yields a row for each step of the task's series, numbered from 1.

    Its columns are R^2 and root mean squared error, in digits, of the running sum on held-out
    series: of a regression of that step alone on the cell state (`cell_r2`, `cell_error`) and on
    the hidden state (`hidden_r2`, `hidden_error`), and of one regression on the cell states of all
    steps (`joint_r2`, `joint_error`); by that one, how far one zero more moves the reading on
    average and how much that differs (`zero_shift`, `zero_spread`, in digits); the largest squared
    correlation of a single cell (`best_r2`); and how many cells take part in the reading,
    (sum v)^2 / sum v^2 of the variances v that they add to it (`cells`).  Then come, for each of
    some held-out series k, running sum and reading (`sum_k`, `reading_k`) and the state of the cell
    that is most like a counter over all steps (`best_k`).

    A value is None where the running sum does not vary.
    """
    digits = np.asarray(task.draw_series(jax.random.key(0), SIZE, config.task).digits)
    sums = digits.T.cumsum(axis=0).astype(float)  # [steps, SIZE]
    found = jax.jit(network.states, static_argnums=1)(params, config.model, digits)
    cell, hidden, cell_after = (np.asarray(x, float) for x in found)  # [steps, SIZE, cells]
    fit, test = slice(None, SIZE // 2), slice(SIZE // 2, None)
    joint = _regression(np.concatenate(cell[:, fit]), np.concatenate(sums[:, fit]))
    cells = cell[:, test].reshape(-1, cell.shape[-1])
    best = int(np.argmax(_correlations(cells, sums[:, test].ravel())))
    scaler, ridge = joint[0], joint[-1]
    added = ridge.coef_**2 * (cells.std(axis=0) / scaler.scale_) ** 2
    for step, (c, h, zero, s) in enumerate(zip(cell, hidden, cell_after, sums, strict=True)):
        reading, after = joint.predict(c[test]), joint.predict(zero[test])
        row: dict[str, Any] = {"step": step + 1}
        for name, states in (("cell", c), ("hidden", h)):
            alone = _regression(states[fit], s[fit]).predict(states[test])
            row |= _fit(name, alone, s[test])
        row |= _fit("joint", reading, s[test])
        row |= {"zero_shift": (after - reading).mean(), "zero_spread": (after - reading).std()}
        row["best_r2"] = float(_correlations(c[test], s[test]).max()) if s.std() else None
        row["cells"] = added.sum() ** 2 / (added**2).sum() if added.any() else None
        for k in range(EXAMPLES):
            values = (s[test][k], reading[k], c[test][k, best])
            names = (f"sum_{k}", f"reading_{k}", f"best_{k}")
            row |= dict(zip(names, map(float, values), strict=True))
        yield row


def _regression(states: np.ndarray, sums: np.ndarray) -> Any:
    """The ridge regression of sums [n] on standardized states [n, cells]."""
    return make_pipeline(StandardScaler(), Ridge(PENALTY)).fit(states, sums)


def _fit(name: str, reading: np.ndarray, sums: np.ndarray) -> dict[str, float | None]:
    squared = ((reading - sums) ** 2).mean()
    r2 = float(1 - squared / sums.var()) if sums.var() else None
    return {f"{name}_r2": r2, f"{name}_error": float(np.sqrt(squared))}


def _correlations(cells: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The squared correlation of each cell [n, cells] with sums [n]; 0 of a cell that rests."""
    cells, sums = cells - np.mean(cells, axis=0), sums - np.mean(sums)
    scale = (cells**2).sum(axis=0) * (sums**2).sum()
    squares = (sums @ cells) ** 2
    shares: np.ndarray = np.divide(squares, scale, out=np.zeros_like(squares), where=scale > 0)
    return shares
