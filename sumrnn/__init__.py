"""Can a recurrent network count?  A reference testbed in JAX and Flax.

A run is a pure function: `fit(config, seed)`.

    import jax
    import sumrnn

    sumrnn.use_cores()                                  # every CPU core becomes a device
    run = sumrnn.fit(sumrnn.Config(), 12)               # 60 epochs of the exercise
    runs = sumrnn.fit_many(sumrnn.Config(), range(8))   # the same bits, a leading axis of seeds
    runs.history.val_accuracy                           # float32 [8, 60]; also state, data, logits

    sumrnn.evaluate(sumrnn.Config(), run.state.params)["accuracy"]       # by the exact law
    data = sumrnn.generate(jax.random.key(0), sumrnn.PRESETS["sheet"])   # digits and labels
    sumrnn.sum_law(sumrnn.PRESETS["sheet"]).positive_rate                # 0.98825..., exact
    sumrnn.load("runs/sheet-seed12").parts["test"].logits                # a run that was recorded

Everything that a person can mend is a `UserError` of one line.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

from sumrnn.config import Config, ModelConfig, TaskConfig, TrainConfig
from sumrnn.errors import UserError
from sumrnn.presets import PRESETS
from sumrnn.version import __version__

if TYPE_CHECKING:
    from sumrnn.devices.compiler import fit
    from sumrnn.devices.evaluation import evaluate
    from sumrnn.devices.mesh import use_cores
    from sumrnn.devices.wave import fit_many
    from sumrnn.runs.results import Run
    from sumrnn.task import generate, sum_law

__all__ = [
    "PRESETS",
    "Config",
    "ModelConfig",
    "TaskConfig",
    "TrainConfig",
    "UserError",
    "__version__",
    "evaluate",
    "fit",
    "fit_many",
    "generate",
    "load",
    "sum_law",
    "use_cores",
]
_LATE = {
    "fit": "sumrnn.devices.compiler",
    "fit_many": "sumrnn.devices.wave",
    "use_cores": "sumrnn.devices.mesh",
    "generate": "sumrnn.task",
    "sum_law": "sumrnn.task",
    "evaluate": "sumrnn.devices.evaluation",
}
"""Where the names are that bring JAX with them, which takes half a second to import."""


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'sumrnn' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return __all__


def load(path: str | os.PathLike[str]) -> Run:
    """Reads a finished run from its folder.

    Raises `UserError` if it is missing, unfinished or damaged.
    """
    from sumrnn.runs.folder import RunFolder

    return RunFolder(pathlib.Path(path)).load()
