"""The origin of a run: its program, the versions of packages, the processor, and settings.

Together with config and seed they determine its bits on CPU.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
from typing import TypedDict

import jax
import numpy as np

from sumrnn import task
from sumrnn.config import Config
from sumrnn.devices import compiler, machine, mesh
from sumrnn.errors import UserError, require
from sumrnn.scores import strata
from sumrnn.scores.strata import Counts
from sumrnn.train import evaluation as evaluation_lib
from sumrnn.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Of the environment, that change numbers or what is compiled."""
OPTIONS = {
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
    "jax_optimization_level": "UNKNOWN",
    "jax_use_shardy_partitioner": True,
}
"""Settings of JAX that change what is compiled, and their usual values; those that change what is
traced show in the program's digest, and `compiler.pinned` has those that change numbers."""


class Origin(TypedDict):
    """What computed a run, as JSON holds it."""

    versions: dict[str, str]
    """Versions of Python and packages; `code` is `program_digest`, `exact` `evaluation_digest`."""
    device: dict[str, str]
    settings: dict[str, str]


class Continued(Origin):
    """What computed a run after an epoch, where it went on in another way."""

    epoch: int
    """The last epoch before."""


@functools.lru_cache(maxsize=256)
def program_digest(config: Config) -> str:
    """A digest of what a run computes: data, initial state, epoch and prediction.

    It is that of its StableHLO text without locations, as JAX lowers them before any device or
    processor is chosen, and of the compiler's options.  Comments, names and the number of devices
    leave it alone; constants, orders of summation and shapes do not.
    """
    functions = compiler.functions(config.canonical)
    digest = hashlib.sha256(repr(compiler.options(jax.default_backend())).encode())
    with compiler.pinned(), jax.disable_jit(False):
        begin = jax.jit(functions.begin).trace(jax.ShapeDtypeStruct((3,), np.uint32))
        data, state, shuffle = begin.out_info
        number = jax.ShapeDtypeStruct((), np.uint32)
        epoch = jax.jit(functions.epoch).trace(state, shuffle, data.train, number)
        predict = jax.jit(functions.predict).trace(state.params, data, number)
        for traced in (begin, epoch, predict):
            digest.update(traced.lower().as_text().encode())
    return digest.hexdigest()[:12]


@functools.cache
def evaluation_digest() -> str:
    """A digest of exact evaluation: the strata, how many series each one gets, and their digits.

    It is that of whole numbers, and of the lowered program that draws digits, for the exercise's
    task: those of another task follow from its config.
    """
    config = Config()
    groups = strata.task_strata(config.task)
    log_pmfs = np.nan_to_num(task.log_pmf_table(config.task))
    pilot = strata.pilot_allocation(groups, 10_000)
    wrong = pilot // 3 * (np.arange(len(pilot)) % 2)  # And strata without an error.
    refined = strata.refined_allocation(groups, Counts(pilot, wrong), 10_000)
    log_probabilities = np.log(np.concatenate((groups.probabilities, *groups.pmfs)))
    # Rounded, so that processors agree.
    rounded = (
        np.rint(1_000.0 * x).astype(np.int64)
        for x in (log_probabilities, np.maximum(log_pmfs, -1e3))
    )
    drawn = (evaluation_lib.SHARE, evaluation_lib.PER_STRATUM, evaluation_lib.MAX_PMF_TABLE)
    divided = (strata.EDGES, strata.MIN_DEVIATION, strata.SHARES, strata.PILOT)
    digest = hashlib.sha256(repr((drawn, divided)).encode())
    for array in (*groups.sums, pilot, refined, *strata.systematic_sums(groups, pilot), *rounded):
        digest.update(np.asarray(array, np.int64).tobytes())
    shapes = [(log_pmfs.shape, np.float32), ((config.task.size,), np.int32), ((), np.uint32)]
    with compiler.pinned(), jax.disable_jit(False):
        draw = jax.jit(compiler.functions(config.canonical).draw)
        traced = draw.trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
        digest.update(traced.lower().as_text().encode())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """The versions of Python, of exact evaluation, and of the packages that bits depend on."""
    packages = {name: _version(name) for name in PACKAGES}
    exact = {"exact": evaluation_digest()}
    return {"python": platform.python_version(), "sumrnn": __version__} | exact | packages


@functools.cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)  # Reads a file.


def device() -> dict[str, str]:
    """The first device, and the processor with its instruction sets (`vectors`), as NumPy has them.

    Processors of the same sets but of another `model` round otherwise too.
    """
    first = mesh.all_devices()[0]
    sets = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "machine": platform.machine(),
        "model": machine.processor_model(),
        "vectors": " ".join([*sets.get("baseline", []), *sets.get("found", [])]),
    }


def processor_kind(origin: Origin) -> str:
    """The kind of a processor in a line: its model, and the widest vectors that it has."""
    device = origin["device"]
    model = device.get("model") or device.get("machine", "")
    vectors = device.get("vectors", "").split(" ")
    return " ".join(x for x in (device["kind"], model, vectors[-1]) if x)


def settings() -> dict[str, str]:
    """Settings that are not as usual, by the names of `VARIABLES` and `OPTIONS`."""
    variables = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    options = {name: jax.config.values.get(name, usual) for name, usual in OPTIONS.items()}
    return variables | {name: str(x) for name, x in options.items() if x != OPTIONS[name]}


def current(config: Config) -> Origin:
    """The origin of a run of a config that begins now in this process."""
    code = {"code": program_digest(config.canonical)}
    return {"versions": code | versions(), "device": device(), "settings": settings()}


def check(origin: Origin) -> None:
    """Holds an origin from a file to what reports show of it; raises `UserError`."""
    for part, needed in (("versions", "jax"), ("device", "kind")):
        texts: dict[str, str] = origin[part]  # type: ignore[literal-required]
        lines = all(text.isprintable() for pair in texts.items() for text in pair)
        require(lines and needed in texts, part, texts, f"lines of text with {needed}")


def difference(before: Origin, now: Origin) -> str | None:
    """The first difference between two origins, in words; None if they are the same.

    An origin from before exact evaluation was recorded says nothing of it.
    """
    for part in ("versions", "device", "settings"):
        for name in sorted({*before[part], *now[part]} - ({"exact"} - {*before["versions"]})):
            old, new = before[part].get(name), now[part].get(name)
            if old != new:
                return f"was made with {name} {old or 'unset'}, this is {new or 'unset'}"
    return None


def on_device_of(origin: Origin, other: Origin) -> Origin:
    """An origin as it would be on the device of another one, for a comparison of all the rest.

    Programs are not compared between platforms, for which they are compiled otherwise.
    """
    same = origin["device"].get("platform") == other["device"].get("platform")
    code = (origin if same else other)["versions"].get("code")
    versions = origin["versions"] | ({"code": code} if code else {})
    return Origin(versions=versions, device=other["device"], settings=origin["settings"])


def check_same(file: object, before: Origin, now: Origin, *, anyway: bool) -> None:
    """Makes sure that a run which goes on here keeps its bits, unless it shall go on anyway.

    Raises `UserError` if the origin `before`, from the file, and `now`, of this process, differ.
    """
    if not anyway and (what := difference(before, now)):
        raise UserError(
            f"{file}: {what}, which may give other bits; choose another folder, go back, or "
            "--anyway continues and records it"
        )
