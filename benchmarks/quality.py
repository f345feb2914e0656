"""Time to quality: when a network in training answers so well, and from then on."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import Column, Program, Row, Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.command import Arguments

LEVELS = (0.992, 0.999, 0.9999)
"""Of the accuracy by the exact law."""
EVERY = 2  # Epochs between two evaluations.
TABLE = "programs"

Point = tuple[int, float, float]
"""Series of training so far, seconds so far without evaluations, and error by the exact law."""


class Course:
    """How a training goes on, by a clock that starts with the process and stops for evaluations."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._away = float(os.environ[harness.BEGAN])

    def stop(self, series: int, error: Callable[[], float]) -> None:
        """Adds a point after so many series of training."""
        now = time.time()
        self.points.append((series, now - self._away, error()))
        self._away += time.time() - now

    def figures(self) -> Row:
        """The points, and the seconds until the last one."""
        return {"seconds": self.points[-1][1], "points": self.points}


def plan(arguments: Arguments) -> tuple[Row, Tables]:
    """The number of epochs, and the programs."""
    epochs = arguments.epochs or (3 if arguments.quick else 60)

    def program(label: str, preset: str, epochs: int = epochs) -> Program:
        command = harness.call("quality.train", preset=preset, epochs=epochs)
        return Program(f"sumrnn, {label}", command)

    programs = [
        program("the exercise's procedure", "notebook"),
        program("fresh", "notebook-fresh"),
        program("solved", "notebook-solved"),
        program("solved in a tenth", "notebook-solved", max(1, round(epochs / 10))),
        Program(
            "Keras on TensorFlow, the notebook",
            harness.call("quality.train_keras", epochs=epochs),
            ("keras", "tensorflow"),
        ),
    ]
    return {"epochs": epochs}, {TABLE: programs}


def train(preset: str, epochs: int) -> Row:
    """Trains a run of a preset with the seed of the round; returns the figures of its course."""
    import jax

    import sumrnn
    from sumrnn.models import network
    from sumrnn.presets import preset as config_of

    course, config = Course(), config_of(preset)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))

    def watch(moment: Any) -> None:
        def error() -> float:
            params = network.to_flax(jax.tree.map(lambda x: x[0], moment.fetch().params))
            return float(sumrnn.evaluate(config, params)["error"])

        if moment.epoch % EVERY == 0 or moment.epoch == epochs:
            course.stop(moment.epoch * config.task.train_size, error)

    sumrnn.use_cores()
    sumrnn.fit_many(config, [int(os.environ[harness.SEED])], watch=watch)
    return course.figures()


def train_keras(epochs: int) -> Row:
    """Trains the notebook's network with the seed of the round; returns what `train` does."""
    from benchmarks import notebook

    course, keras = Course(), notebook.load()
    keras.utils.set_random_seed(int(os.environ[harness.SEED]))

    def error() -> float:
        import sumrnn  # Its JAX, at the first evaluation.
        from sumrnn.exchange import arrays

        config = sumrnn.Config(sumrnn.PRESETS["notebook"])
        params = arrays.to_params(arrays.Arrays(*model.get_weights()), config.model)
        return float(sumrnn.evaluate(config, params)["error"])

    def watch(epoch: int, logs: object) -> None:
        if (epoch + 1) % EVERY == 0 or epoch + 1 == epochs:
            course.stop((epoch + 1) * series, error)

    x, _, y, _ = notebook.split()
    series = len(x) - len(x) // 10  # Of which Keras trains, without the validation's.
    model = notebook.network(keras)
    notebook.train(model, x, y, epochs, [keras.callbacks.LambdaCallback(on_epoch_end=watch)])
    return course.figures()


def reached(points: Sequence[Point], level: float) -> tuple[int, float] | None:
    """Series and seconds after which the accuracy is never again below a level; None if it is."""
    below = [k for k, (_, _, error) in enumerate(points) if 1 - error < level]
    first = below[-1] + 1 if below else 0
    return None if first == len(points) else (points[first][0], points[first][1])


def describe(courses: Sequence[Sequence[Point]], level: float) -> str:
    """When the runs reach a level, in words: the medians of those that do."""
    times = [point for points in courses if (point := reached(points, level))]
    if not times:
        return "never"
    series, seconds = (median(column) for column in zip(*times, strict=True))
    some = "" if len(times) == len(courses) else f" ({len(times)} of {len(courses)} runs)"
    return f"{seconds:.1f} s, {series:,.0f} series{some}"


def page(results: Row) -> str:
    """The table, with what it needs to be understood."""
    rows = [
        row | {str(x): describe([turn["points"] for turn in row["turns"]], x) for x in LEVELS}
        for row in results["tables"][TABLE]
    ]
    columns = (
        Column("program", "label"),
        Column("whole training, s", "seconds", ".1f", spread=True),
        *(Column(f"stays at {100 * level:.2f} % from", str(level)) for level in LEVELS),
    )
    return harness.page(
        results,
        "Time to quality",
        f"""The notebook's task: 7,200 training series in each of {results["epochs"]} epochs, or a
        tenth of these, 200 cells; every round has a seed of its own. Seconds from the start of
        Python, with imports and compilation, without the exact evaluations for which the clock
        stops every {EVERY} epochs: series drawn for given sums and weighted by the exact law.""",
        harness.table(columns, rows),
    )


def draw(results: Row) -> Figure:
    """Error against seconds of training, a line for each run."""
    from sumrnn.report import drawing

    figure, (ax,) = drawing.blank(width=9, height=4.6)
    for row, style in zip(results["tables"][TABLE], ("--", ":", "-", "-.", "-"), strict=False):
        others, ours = drawing.COLORS
        color = ours if row["label"].startswith("sumrnn") else others
        for number, turn in enumerate(row["turns"]):
            points = [(seconds, error) for _, seconds, error in turn["points"] if error > 0]
            label = None if number else row["label"]
            ax.plot(*zip(*points, strict=True), style, color=color, lw=1.4, label=label)
    for level in LEVELS:
        ax.axhline(1 - level, color=drawing.GREY, lw=0.8, zorder=0.5)
    ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="error by the exact law")
    ax.legend(frameon=False)
    return figure
