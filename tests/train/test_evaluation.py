import dataclasses
import itertools

import jax
import numpy as np
import pytest

from sumrnn.config import Config, TaskConfig
from sumrnn.devices import mesh
from sumrnn.devices.evaluation import evaluate
from sumrnn.devices.wave import Wave
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.models.counter import counter
from sumrnn.scores import exact
from sumrnn.scores import strata as strata_lib
from sumrnn.train import evaluation
from tests.conftest import SMALL

SEEDS = (3, 4)


def longer(config: Config, epochs: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))


def waved(config: Config, epochs: int) -> Wave:
    """Runs after an epoch, of a config with so many."""
    config = longer(config, epochs)
    wave = Wave(mesh.prepare(config, len(SEEDS)), config, SEEDS)
    wave.step()
    return wave


def test_the_error_rates_are_those_of_all_series_there_are() -> None:
    """Of five digits from 0 to 3: the 1,024 series can be answered one by one."""
    wave = waved(SMALL, epochs=400)
    found, task = wave.count_errors(), SMALL.task
    every = np.array(list(itertools.product(range(4), repeat=5)), np.uint8)
    sums, strata = every.sum(axis=1), strata_lib.task_strata(task)
    state = wave.result().state
    for i, counts in enumerate(found):
        assert counts is not None
        weights = jax.tree.map(lambda x, i=i: x[i], state.params)
        logits = np.asarray(network.logits(weights, SMALL.model, every))
        wrong = (logits > 0) != (sums >= task.threshold)
        assert counts.series.sum() >= evaluation.SHARE * 400 * task.train_size
        for stratum, series, errors in zip(strata.sums, *counts, strict=True):
            rate = wrong[np.isin(sums, stratum)].mean()
            assert abs(errors - rate * series) <= 5 * np.sqrt(rate * (1 - rate) * series) + 1e-9


def test_error_rates_among_zeros_are_those_of_all_series_and_places_there_are() -> None:
    """Of five digits from 0 to 3 in seven steps: 21 times 1,024 series."""
    task, params = SMALL.task, waved(SMALL, epochs=400).result().state.params
    params = jax.tree.map(lambda x: x[0], network.to_flax(params))
    every = np.array(list(itertools.product(range(4), repeat=5)), np.uint8)
    wrong = 0
    for places in itertools.combinations(range(7), 5):
        spread = np.zeros((len(every), 7), np.uint8)
        spread[:, places] = every
        weights = network.from_flax(params, SMALL.model)
        logits = np.asarray(network.logits(weights, SMALL.model, spread))
        wrong += ((logits > 0) != (every.sum(axis=1) >= task.threshold)).sum()
    found = evaluate(SMALL, params, steps=7, size=20_000)
    assert found["series"] >= 20_000
    low, high = found["error_interval"]
    assert 0 < low <= wrong / (21 * 1_024) <= high


def test_steps_that_cannot_hold_the_digits_are_refused() -> None:
    for steps in (4, 10_001):
        with pytest.raises(UserError, match=f"^steps = {steps}: must be between 5 and 10000"):
            evaluate(SMALL, counter(SMALL.task), steps=steps)


def test_an_evaluation_is_the_same_wherever_the_run_is() -> None:
    together = waved(SMALL, epochs=20).count_errors()
    config = longer(SMALL, 20)
    alone = Wave(mesh.prepare(config, 1), config, SEEDS[1:2])
    alone.step()
    for ours, theirs in zip(alone.count_errors()[0] or (), together[1] or (), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_any_weights_are_evaluated_as_those_of_a_run() -> None:
    wave = waved(SMALL, epochs=20)
    state = wave.result().state
    config = longer(SMALL, 20)
    for i, counts in enumerate(wave.count_errors()):
        assert counts is not None
        weights = jax.tree.map(lambda x, i=i: x[i], state.params)
        params = network.to_flax(weights)
        assert evaluate(config, params) == exact.scores(config.task, counts)
    perfect = evaluate(config, counter(config.task, config.model.cells))
    assert (perfect["accuracy"], perfect["matthews_correlation"]) == (1, 1)
    long = TaskConfig(size=100, length=2_000, threshold=2_000)
    with pytest.raises(UserError, match=r"^length = 2000: must be short enough"):
        evaluate(dataclasses.replace(config, task=long), params)


@pytest.mark.parametrize(("length", "has"), [(30, True), (1_000, True), (2_000, False)])
def test_long_tasks_are_not_evaluated(length: int, has: bool) -> None:
    assert evaluation.is_evaluated(TaskConfig(size=100, length=length, threshold=length)) == has
