"""The network that a finished run ended with."""

from typing import NamedTuple

from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.models.network import Params
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.record import Record


class Trained(NamedTuple):
    """A network, and the run that trained it."""

    record: Record
    params: Params
    """By the names of Flax."""


def load(folder: RunFolder) -> Trained:
    """Reads it from the last checkpoint.

    Raises `UserError` if there is no run, it has not finished, or that is missing or damaged.
    """
    if not folder.path.is_dir():
        raise UserError(f"{folder.path}: must be a run folder")
    record = folder.read()
    if record.status != "finished":
        how = "it diverged" if record.status == "diverged" else "--resume continues it"
        raise UserError(f"{folder.path}: is no finished run; {how}")
    last = folder.checkpoints.load(record.config, record.seed, record.epochs)
    return Trained(record, network.to_flax(last.state.params))
