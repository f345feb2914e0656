"""Declarations of experiments: those of the package, and files of a person's own."""

from __future__ import annotations

import importlib.machinery
import pathlib
import sys
import types
from typing import TYPE_CHECKING

from sumrnn.errors import UserError, invalid, require

if TYPE_CHECKING:
    from sumrnn.study.experiment import Experiment

EXPERIMENTS = next(
    path / "experiments"
    for path in pathlib.Path(__file__).parents[1:]  # Of the installed package, or a checkout.
    if (path / "experiments" / "reproduce.py").is_file()
)


def find(name: str) -> Experiment:
    """The declaration of one of the package's own experiments, or in a file NAME.py.

    Raises `UserError` if there is none.
    """
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.py"))
    file = pathlib.Path(name)
    if file.suffix == ".py":
        require(file.is_file(), "experiment", name, "a file that is there")
        path, name = file.absolute(), file.stem
    else:
        require(name in known, "experiment", name, f"one of {', '.join(known)}, or a file.py")
        path = EXPERIMENTS / f"{name}.py"
    from sumrnn.study.experiment import Experiment

    try:
        experiment = getattr(_module(path), "EXPERIMENT", None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except SystemExit as error:
        raise UserError(f"{path}: must not end the program (exit status {error.code!r})") from None
    except Exception as error:  # Whatever a person writes there.
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if not isinstance(experiment, Experiment):
        kind = "an Experiment (from sumrnn.study.experiment import Experiment)"
        raise UserError(f"{path}: {invalid('EXPERIMENT', experiment, kind)}")
    allowed = f"{name!r}, as its file is {name}.py"
    require(experiment.name == name, "EXPERIMENT.name", experiment.name, allowed)
    return experiment


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles a module's source as it is now: a compiled one that is kept may be of another."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module(path: pathlib.Path) -> types.ModuleType:
    """Runs a file as a module without a command line; it may import what lies beside it.

    Modules of the same names that are installed go first, and nothing is written there.
    """
    name = f"experiments.{path.stem}"
    module = sys.modules[name] = types.ModuleType(name)  # Where dataclasses look annotations up.
    module.__file__ = str(path)
    beside = str(path.resolve().parent)
    before = sys.argv, sys.path, sys.dont_write_bytecode
    sys.argv, sys.path, sys.dont_write_bytecode = [str(path)], [*sys.path, beside], True
    sources = (_SourceLoader, importlib.machinery.SOURCE_SUFFIXES)
    sys.path_importer_cache[beside] = importlib.machinery.FileFinder(beside, sources)
    try:
        _SourceLoader(name, str(path)).exec_module(module)
    finally:
        sys.argv, sys.path, sys.dont_write_bytecode = before
        del sys.path_importer_cache[beside]
    return module
