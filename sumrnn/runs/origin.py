"""What computed a run: its program, the versions of packages, the processor, and settings.

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
from sumrnn.devices import compiler, mesh, processor
from sumrnn.errors import UserError, require
from sumrnn.scores import strata
from sumrnn.scores.strata import Counts
from sumrnn.train import exam
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
    """What JSON can hold of it."""

    versions: dict[str, str]
    """Of Python and packages; `code` is the program's digest, `exact` that of exact evaluation."""
    device: dict[str, str]
    settings: dict[str, str]


class Continued(Origin):
    """Where a run went on in another way."""

    epoch: int
    """After which."""


@functools.lru_cache(maxsize=256)
def program(config: Config) -> str:
    """A digest of what is computed: data, initial state, epoch and prediction of a config.

    It is that of their StableHLO text without locations, as JAX lowers them before any device or
    processor is chosen, and of the compiler's options.  Comments, names and the number of devices
    leave it alone; constants, orders of summation and shapes do not.
    """
    parts = compiler.parts(config.program)
    found = hashlib.sha256(repr(compiler.options(jax.default_backend())).encode())
    with compiler.pinned(), jax.disable_jit(False):
        begin = jax.jit(parts.begin).trace(jax.ShapeDtypeStruct((3,), np.uint32))
        data, state, shuffle = begin.out_info
        number = jax.ShapeDtypeStruct((), np.uint32)
        epoch = jax.jit(parts.epoch).trace(state, shuffle, data.train, number)
        answer = jax.jit(parts.answer).trace(state.params, data, number)
        for traced in (begin, epoch, answer):
            found.update(traced.lower().as_text().encode())
    return found.hexdigest()[:12]


@functools.cache
def evaluation() -> str:
    """A digest of exact evaluation: the strata, how many series each one gets, and their digits.

    It is that of whole numbers, and of the lowered program that draws digits, for the exercise's
    task: those of another task follow from its config.
    """
    config = Config()
    layout, laws = strata.strata(config.task), np.nan_to_num(task.log_laws(config.task))
    first = strata.pilot(layout, 10_000)
    wrong = first // 3 * (np.arange(len(first)) % 2)  # And strata without an error.
    more = strata.refined(layout, Counts(first, wrong), 10_000)
    probabilities = np.log(np.concatenate((layout.masses, *layout.laws)))
    # Rounded, so that processors agree.
    rounded = (
        np.rint(1_000.0 * x).astype(np.int64) for x in (probabilities, np.maximum(laws, -1e3))
    )
    drawn = (exam.SHARE, exam.PER_STRATUM, exam.MOST_LAWS)
    divided = (strata.EDGES, strata.LEAST, strata.SHARES, strata.PILOT)
    found = hashlib.sha256(repr((drawn, divided)).encode())
    for array in (*layout.sums, first, more, *strata.sums(layout, first), *rounded):
        found.update(np.asarray(array, np.int64).tobytes())
    shapes = [(laws.shape, np.float32), ((config.task.size,), np.int32), ((), np.uint32)]
    with compiler.pinned(), jax.disable_jit(False):
        draw = jax.jit(compiler.parts(config.program).draw)
        traced = draw.trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
        found.update(traced.lower().as_text().encode())
    return found.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions of Python, of exact evaluation, and of the packages that bits depend on."""
    own = {"python": platform.python_version(), "sumrnn": __version__, "exact": evaluation()}
    return own | {name: _version(name) for name in PACKAGES}


@functools.cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)  # Reads a file.


def device() -> dict[str, str]:
    """What computes: `vectors` are the processor's instruction sets, as NumPy finds them.

    Processors of the same sets but of another `model` round otherwise too.
    """
    first = mesh.available()[0]
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "machine": platform.machine(),
        "model": processor.model(),
        "vectors": " ".join([*found.get("baseline", []), *found.get("found", [])]),
    }


def kind(made: Origin) -> str:
    """The kind of processor in a few words: its model, and the widest vectors that it has."""
    found = made["device"]
    model = found.get("model") or found.get("machine", "")
    vectors = found.get("vectors", "").split(" ")
    return " ".join(x for x in (found["kind"], model, vectors[-1]) if x)


def settings() -> dict[str, str]:
    """What is not as usual, by the names of `VARIABLES` and `OPTIONS`."""
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    options = {name: jax.config.values.get(name, usual) for name, usual in OPTIONS.items()}
    return found | {name: str(x) for name, x in options.items() if x != OPTIONS[name]}


def here(config: Config) -> Origin:
    """The origin of a run of a config that begins now."""
    code = {"code": program(config.program)}
    return {"versions": code | versions(), "device": device(), "settings": settings()}


def check(made: Origin) -> None:
    """Holds an origin that was read to what reports show of it; raises `UserError`."""
    for part, needed in (("versions", "jax"), ("device", "kind")):
        texts: dict[str, str] = made[part]  # type: ignore[literal-required]
        lines = all(text.isprintable() for pair in texts.items() for text in pair)
        require(lines and needed in texts, part, texts, f"lines of text with {needed}")


def difference(made: Origin, now: Origin) -> str | None:
    """The first thing in which two origins differ, in words; None if they are the same.

    What was made before exact evaluation was recorded says nothing of it.
    """
    for part in ("versions", "device", "settings"):
        for name in sorted({*made[part], *now[part]} - ({"exact"} - {*made["versions"]})):
            there, here = made[part].get(name), now[part].get(name)
            if there != here:
                return f"was made with {name} {there or 'unset'}, this is {here or 'unset'}"
    return None


def moved(made: Origin, here: Origin) -> Origin:
    """An origin as it would be on the device of another one.

    For another platform the program is compiled otherwise: it is not compared.
    """
    same = made["device"].get("platform") == here["device"].get("platform")
    code = made["versions"].get("code") if same else here["versions"].get("code")
    versions = made["versions"] | ({"code": code} if code else {})
    return Origin(versions=versions, device=here["device"], settings=made["settings"])


def check_same(file: object, made: Origin, now: Origin, anyway: bool) -> None:
    """Makes sure that what is continued here keeps its bits, unless somebody wants it anyway.

    Raises `UserError` if `made`, read from the file, and `now`, of this process, differ.
    """
    if not anyway and (what := difference(made, now)):
        raise UserError(
            f"{file}: {what}, which may give other bits; choose another folder, go back, or "
            "--anyway continues and records it"
        )
