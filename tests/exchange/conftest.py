"""A network that every test of this folder writes and reads."""

import dataclasses
import pathlib
from typing import NamedTuple

import pytest

from sumrnn.config import Config
from sumrnn.models.network import Params
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.record import Record
from tests.conftest import SMALL, finish

SCALED = dataclasses.replace(
    SMALL, model=dataclasses.replace(SMALL.model, input_center=1.5, input_scale=1.25)
)
CONFIGS: dict[str, Config] = {"raw": SMALL, "scaled": SCALED}


class Trained(NamedTuple):
    """A network, and the run that trained it."""

    record: Record
    params: Params


@pytest.fixture(scope="session", params=list(CONFIGS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a finished run, of digits as they are, and of scaled ones; do not change it."""
    path = tmp_path_factory.mktemp("exchange") / request.param
    finish(path, CONFIGS[request.param])
    return path


@pytest.fixture(scope="session")
def network(run: pathlib.Path) -> Trained:
    """What it ended with."""
    return Trained(*RunFolder(run).network())
