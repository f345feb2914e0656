"""Trains one network to say whether digits sum to at least a threshold, and reports on it."""

from __future__ import annotations

import dataclasses
import pathlib
from concurrent import futures
from typing import TYPE_CHECKING, Annotated

from sumrnn import fields
from sumrnn.cli import analyze, command, console, progress, signals
from sumrnn.cli.command import Text
from sumrnn.config import Config
from sumrnn.errors import UserError, need, require
from sumrnn.fields import Range
from sumrnn.presets import PRESETS, preset
from sumrnn.seeds import Seed

if TYPE_CHECKING:
    from sumrnn.devices.mesh import CompiledFunctions
    from sumrnn.models.network import Params
    from sumrnn.runs.record import Status
    from sumrnn.runs.recorder import Spec


@dataclasses.dataclass(frozen=True)
class Basis:
    """The options on which the defaults of the others depend."""

    preset: Text | None = None
    seed: int = 0
    out: Text | None = None
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class Arguments:
    """One run."""

    preset: str = "sheet"
    """What to start from: sheet (digits 0 to 9) or notebook (0 to 8), the exercise's procedure;
    sheet-fresh or notebook-fresh, new series in every epoch; sheet-solved or notebook-solved, most
    of them near the threshold; sheet-holding or notebook-holding, digits among zeros, for longer
    series than those of training.  Other options change it."""
    seed: Seed = 0
    """Seed of the run, 0 to 4294967295: digits, initial parameters, order."""
    out: Text | None = None
    """Run folder to write; None: runs/PRESET-seedSEED."""
    resume: bool = False
    """Continue the run that is in the run folder, with its options; start it if there is none.
    Given more epochs, a finished one gives up its report and goes on."""
    init_from: Text | None = None
    """File of weights to start from, of Keras (.keras, .weights.h5) or PyTorch (.safetensors), of
    which only .keras says of what network they are; None: initial ones."""
    overwrite: bool = False
    """Replace the run that is in the run folder."""
    anyway: bool = False
    """Continue also with other versions or on another kind of processor, which changes bits."""
    tensorboard: bool = False
    """Write the history for TensorBoard too; needs sumrnn[tensorboard]."""
    checkpoint_every: Annotated[int, Range(1, 10**9)] | None = None
    """Epochs between checkpoints, which change no number; None: as many as cost 1 % of the time."""
    config: Config = dataclasses.field(default_factory=Config)


def main(argv: list[str]) -> None:
    """Trains, writes the run folder, and prints the summary of its report."""
    out, default = defaults(command.parse_known(Basis, argv))
    arguments = command.parse(Arguments, argv, __doc__ or "", default)
    fields.check(arguments)
    require(not (arguments.resume and arguments.overwrite), "overwrite", True, "without --resume")
    params, arguments = weights(arguments)
    if arguments.tensorboard:
        need("tensorboardX", "tensorboard")

    # Late, so that --help and errors are quick.
    from sumrnn.devices import mesh
    from sumrnn.runs import origin
    from sumrnn.runs.folder import RunFolder, Survey
    from sumrnn.runs.recorder import Spec
    from sumrnn.train import run as algorithm

    mesh.use_cores()
    folder, config, seed = RunFolder(out), arguments.config, arguments.seed
    survey = Survey("unfinished", 0, [])
    if arguments.resume:
        survey = folder.survey(config, seed, arguments.anyway)
    else:
        folder.check_free(arguments.overwrite)
    if survey.epoch == 0:
        algorithm.check_weights(config, params)
    stamp, status = folder.stamp(), survey.status
    if status == "unfinished":  # Whether memory holds it, before anything is made.
        with progress.waiting("compiling"), futures.ThreadPoolExecutor(1) as aside:
            # Kept for later; the compiler leaves it a core.
            aside.submit(origin.current, config)
            compiled = mesh.prepare(config, 1)
    with folder.lock():
        if folder.stamp() != stamp:
            raise UserError(f"{folder.path}: another process was at work there")
        for line in survey.wrong:
            console.warn(f"{line}; continuing after epoch {survey.epoch}")
        if status == "unfinished":
            spec = Spec(folder, arguments.preset, config, seed)
            status = train(spec, survey.epoch, compiled, arguments, params)
        if status == "diverged":
            raise UserError(folder.divergence(), status=3)
        analyze.report(out, arguments.tensorboard)


def defaults(basis: Basis) -> tuple[pathlib.Path, Arguments]:
    """The run folder, and the default of every option: those of the run there, if it goes on."""
    name = "sheet" if basis.preset is None else basis.preset
    default = Arguments(preset=name, config=preset(name))
    out = command.folder("out", f"runs/{name}-seed{basis.seed}" if basis.out is None else basis.out)
    if not basis.resume:
        return out, default
    from sumrnn.runs.folder import RunFolder

    folder = RunFolder(out)
    if not folder.is_run():
        return out, default
    record = folder.read()
    config = record.config
    if basis.preset is not None:
        same = basis.preset == record.name or {basis.preset, record.name} <= {*PRESETS}
        require(same, "preset", name, f"{record.name}, with which the run in {out} began")
        config = dataclasses.replace(config, task=preset(name).task)
    return out, Arguments(preset=record.name, seed=record.seed, config=config)


def weights(arguments: Arguments) -> tuple[Params | None, Arguments]:
    """The parameters that `--init-from` names, if it does, and the options with their digest."""
    if arguments.init_from is None:
        return None, arguments
    from sumrnn.exchange import formats

    model = arguments.config.model
    path = command.folder("init_from", arguments.init_from)
    params, digest = formats.read("init_from", path, model)
    same = model.weights in (None, digest)
    require(same, "weights", model.weights, f"{digest}, as {path} has it, or left out")
    config = dataclasses.replace(arguments.config, model=dataclasses.replace(model, weights=digest))
    return params, dataclasses.replace(arguments, config=config)


def train(
    spec: Spec, epoch: int, compiled: CompiledFunctions, arguments: Arguments, params: Params | None
) -> Status:
    """Trains the network to its end, from the checkpoint after an epoch unless that is 0.

    Raises `UserError` if the folder cannot be written, or a signal asked for an early end; all that
    is done is in the folder.
    """
    from sumrnn.runs import recorder

    def work(stop: signals.Stop) -> Status:
        view = signals.until_closed(stop, show)
        ended = recorder.train(
            [spec],
            epoch,
            compiled,
            stop=stop,
            every=arguments.checkpoint_every,
            params=params,
            watch=lambda seeds, number, row: view(row),
        )
        if ended.lost:
            raise ended.lost[spec.seed]
        if (status := ended.status[spec.seed]) == "unfinished":
            again = console.command_line("--resume", "--out", str(spec.folder.path))
            done = f"after epoch {ended.epoch} of {spec.config.train.epochs}; {again} continues"
            raise signals.stopped(stop.number, done)
        return status

    with progress.of_run(spec.config.train.epochs) as show:
        return signals.attend(work)
