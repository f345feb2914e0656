import jax
import numpy as np
import pytest

from sumrnn.config import Config, ModelConfig, TaskConfig
from sumrnn.models import network
from sumrnn.models.counter import counter
from sumrnn.models.initializer import init
from sumrnn.probes import cells

TASK = TaskConfig(size=100, length=8, high=5, threshold=20)


def test_the_counter_has_the_sum_in_every_cell_and_a_zero_leaves_it() -> None:
    config = Config(TASK, ModelConfig(4))
    rows = list(cells.measure(config, counter(TASK, 4)))
    assert [row["step"] for row in rows] == list(range(1, 9))
    for row in rows:
        for name in ("cell_r2", "joint_r2", "best_r2"):
            assert row[name] == pytest.approx(1, abs=1e-3)
        assert row["joint_error"] < 0.1
        assert row["zero_shift"] == row["zero_spread"] == 0
        assert row["cells"] == pytest.approx(4)
        for k in range(cells.EXAMPLES):
            assert row[f"reading_{k}"] == pytest.approx(row[f"sum_{k}"], abs=0.3)


def test_of_a_network_that_forgets_only_the_last_digits_are_read() -> None:
    """With its forget gates shut a cell knows the last digit, a twelfth of the sum's variance."""
    config = Config(TASK, ModelConfig(4, forget_bias=-100.0))
    params = network.to_flax(init(jax.random.key(0), config))
    params = jax.tree.map(lambda x: x, params)
    for gate in "ifgo":  # Nor does it see the hidden state.
        params["lstm"][f"h{gate}"]["kernel"] = np.zeros((4, 4), np.float32)
    last = list(cells.measure(config, params))[-1]
    assert last["cell_r2"] == pytest.approx(1 / 8, abs=0.06)
    assert last["best_r2"] < 0.2
    assert last["zero_shift"] < 0


def test_a_task_whose_sum_never_varies_has_no_r2() -> None:
    task = TaskConfig(size=100, length=3, low=2, high=2, threshold=6)
    config = Config(task, ModelConfig(2))
    params = network.to_flax(init(jax.random.key(0), config))
    for row in cells.measure(config, params):
        assert row["cell_r2"] is None
        assert row["best_r2"] is None
