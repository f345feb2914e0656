"""What the workers do with this package: its epochs, growth, checkpoints, and the shared file."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks.peers import Peer
from benchmarks.quality import Course
from benchmarks.work import FIRST, Given, Work, batches
from sumrnn import config as config_lib
from sumrnn import task
from sumrnn.config import Config
from sumrnn.devices import compiler, mesh
from sumrnn.devices.wave import Moment, Wave, fit_many, waves
from sumrnn.models import network
from sumrnn.models.lstm import GATES
from sumrnn.runs import origin, recorder
from sumrnn.runs.checkpoint import COLUMNS
from sumrnn.runs.folder import RunFolder
from sumrnn.scores import exact
from sumrnn.task import Split
from sumrnn.train import evaluation, predictions
from sumrnn.train import run as algorithm
from sumrnn.train.run import train_step


def here(work: Work) -> dict[str, Any]:
    """What computes: versions, the program's digest, the device, and settings."""
    return {**origin.here(work.config())}


def sumrnn(work: Work, given: Given, seeds: Sequence[int], **settings: Any) -> Peer:
    """One run or several, as `fit_many` computes them, an epoch at a time."""
    config, made = work.config(**settings), list[Wave]()

    def epoch() -> float:
        if not made:  # And compiled, as other libraries do it in their first epoch.
            program = mesh.prepare(config, len(seeds))
            made.extend(Wave(program, config, own) for own in waves(seeds, program.plan.wave))
        losses = [wave.step().metrics.loss for wave in made]
        return float(losses[0][0])

    return Peer(epoch, lambda: first_losses(config, begin(config, seeds[0]), given))


def begin(config: Config, seed: int) -> algorithm.Beginning:
    """A run before its first step."""
    begun: algorithm.Beginning = compiler.compiled(config).begin(
        algorithm.purpose_seeds(config, seed)
    )
    return begun


def first_losses(config: Config, begun: algorithm.Beginning, given: Given) -> list[float]:
    """Mean loss of each of the first batches, before its step."""
    step, state, found = jax.jit(train_step, static_argnums=0), begun.state, []
    steps = batches(given["digits"], given["labels"], config.train.batch_size)
    for batch in itertools.islice(steps, FIRST):
        state, (loss, _) = step(config, state, Split(*batch))
        found.append(float(loss) / len(batch[1]))
    return found


def make(work: Work, file: str) -> dict[str, Any]:
    """Writes the file that all workers start from; the first losses that they must find."""
    config = work.config()
    begun = begin(config, work.seed)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(begun.shuffle, 0), work.size))
    params: Any = network.to_flax(begun.state.params)
    lstm, output = params["lstm"], params["output"]
    parts = {
        "inputs": [lstm[f"i{gate}"]["kernel"] for gate in GATES],
        "recurrent": [lstm[f"h{gate}"]["kernel"] for gate in GATES],
        "bias": [lstm[f"h{gate}"]["bias"] for gate in GATES],
        "output": [output["kernel"]],
        "output_bias": [output["bias"]],
    }
    given = {name: np.concatenate(some, axis=-1) for name, some in parts.items()}
    given |= {name: np.asarray(x)[order] for name, x in begun.data.train._asdict().items()}
    np.savez(file, allow_pickle=False, **given)
    return {"losses": first_losses(config, begun, given)}


def fit(work: Work, seeds: int, epochs: int) -> dict[str, Any]:
    """Seconds of an epoch of all seeds together, the median of some after the first."""
    ends: dict[tuple[int, ...], list[float]] = {}

    def watch(moment: Moment) -> None:
        ends.setdefault(moment.seeds, []).append(time.perf_counter())

    fit_many(work.config(epochs=1 + epochs), range(work.seed, work.seed + seeds), watch=watch)
    return {"seconds": sum(median(np.diff(times).tolist()) for times in ends.values())}


def learn(preset: str, seed: int, epochs: int, every: int, began: float) -> dict[str, Any]:
    """A run of a preset; see `Course`."""
    config = config_lib.preset(preset)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))
    wave, course = Wave(mesh.prepare(config, 1), config, (seed,)), Course(began)

    def error() -> float:
        (counts,) = wave.examine()
        assert counts is not None
        return float(exact.scores(config.task, counts)["error"])

    while wave.epoch < epochs:
        wave.step()
        if wave.epoch % every == 0 or wave.epoch == epochs:
            course.stop(wave.epoch * config.task.train_size, error)
    return course.told()


def exam_error(preset: str, answer: Callable[[np.ndarray], np.ndarray]) -> float:
    """By an exam as `Wave` holds it, of what maps digits to logits."""
    config = config_lib.preset(preset)
    draw, laws = compiler.compiled(config.program).draw, task.log_laws(config.task)

    def logits_for(sums: np.ndarray, number: int, blocks: int) -> np.ndarray:
        drawn = draw(laws, sums[0], np.uint32(number))
        parts = [np.asarray(x.digits) for x in (drawn.validation, drawn.test, drawn.train)]
        return answer(np.concatenate(parts)[: blocks * predictions.blocks(config.task).rows])[None]

    (counts,) = evaluation.count_errors(config, 1, logits_for)
    return float(exact.scores(config.task, counts)["error"])


def cost(work: Work, repetitions: int) -> dict[str, Any]:
    """Median seconds of an epoch and of a checkpoint of one run, and MiB of a checkpoint."""
    config = work.config(epochs=1 + repetitions)
    wave, epochs, saves = Wave(mesh.prepare(config, 1), config, (work.seed,)), [], []
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(pathlib.Path(path, "run"))
        folder.begin(config, work.seed, "cost")
        for _ in range(config.train.epochs):
            began = time.perf_counter()
            moment = wave.step()
            trained = time.perf_counter()
            folder.append(dict.fromkeys(COLUMNS, 0.0))
            folder.save(jax.tree.map(lambda x: x[0], moment.fetch()))
            epochs.append(trained - began)
            saves.append(time.perf_counter() - trained)
        size = folder.checkpoints.file(wave.epoch).stat().st_size
    # Each one's first is not like the others.
    found = {"epoch": median(epochs[1:]), "checkpoint": median(saves[1:])}
    return found | {"mebibytes": size / 2**20, "share": recorder.SHARE}
