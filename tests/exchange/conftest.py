"""A network that every test of this folder writes and reads."""

import dataclasses
import pathlib

import pytest

from sumrnn.config import Config
from sumrnn.runs import trained
from sumrnn.runs.trained import Trained
from tests.conftest import SMALL, finish

SCALED = dataclasses.replace(
    SMALL, model=dataclasses.replace(SMALL.model, input_center=1.5, input_scale=1.25)
)
CONFIGS: dict[str, Config] = {"raw": SMALL, "scaled": SCALED}


@pytest.fixture(scope="session", params=list(CONFIGS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a finished run, of digits as they are, and of scaled ones; do not change it."""
    path = tmp_path_factory.mktemp("exchange") / request.param
    finish(path, CONFIGS[request.param])
    return path


@pytest.fixture(scope="session")
def network(run: pathlib.Path) -> Trained:
    """What it ended with."""
    from sumrnn.runs.folder import RunFolder

    return trained.load(RunFolder(run))
