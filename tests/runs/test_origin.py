"""A run names its program: what computes the numbers, not the files that say so."""

import dataclasses
import functools
import inspect
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import jax
import pytest

from sumrnn import task
from sumrnn.config import Config, ModelConfig
from sumrnn.devices import compiler, machine
from sumrnn.errors import UserError
from sumrnn.models import network
from sumrnn.runs import origin
from sumrnn.train import predictions
from sumrnn.train import run as algorithm
from tests.conftest import ROOT, SECONDS, SMALL


def digest(config: Config = SMALL) -> str:
    compiler.functions.cache_clear()
    origin.program_digest.cache_clear()
    return origin.program_digest(config)


@functools.cache
def before() -> str:
    """The digest of the code as it is."""
    return digest()


def edited(module: object, function: str, old: str, new: str, patch: pytest.MonkeyPatch) -> None:
    """Puts a function in place whose source is another."""
    source = inspect.getsource(getattr(module, function))
    assert old in source
    scope = dict(vars(module))
    exec(compile(source.replace(old, new), "edited", "exec"), scope)
    patch.setattr(module, function, scope[function])
    for user in (algorithm, predictions, network):  # Those that imported it by name.
        if hasattr(user, function):
            patch.setattr(user, function, scope[function])


LEFT_ALONE = [
    (algorithm, "train_step", "shard_loss", "renamed"),
    (algorithm, "epoch", "hits", "correct_answers"),
    (algorithm, "begin", "Draws the data", "Makes\n    the data"),  # And later lines.
]
CHANGES = {
    "a constant": (predictions, "losses", "labels.astype", "0.999 * labels.astype"),
    "a constant of the data": (
        algorithm,
        "seed_keys",
        "(roots, jnp.arange(3, ",
        "(roots, 1 + jnp.arange(3, ",
    ),
    "an order of summation": (
        algorithm,
        "train_step",
        "functools.reduce(jnp.add, x)",
        "functools.reduce(jnp.add, x[::-1])",
    ),
    "the prediction": (network, "logits", "hidden @ weights", "1.5 * hidden @ weights"),
    "the optimizer": (
        algorithm,
        "train_step",
        "optax.apply_updates(state.params, updates)",
        "optax.apply_updates(optax.apply_updates(state.params, updates), updates)",
    ),
}


def test_words_leave_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = before()
    for edit in LEFT_ALONE:
        edited(*edit, monkeypatch)
    assert digest() == usual


@pytest.mark.parametrize("kind", CHANGES)
def test_numbers_change_the_program(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = before()
    edited(*CHANGES[kind], monkeypatch)
    assert digest() != usual


def test_settings_and_defaults_change_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = dataclasses.replace(SMALL.train, learning_rate=2e-3)
    programs = {before(), digest(dataclasses.replace(SMALL, train=rate))}
    for model in (ModelConfig(8, "flax"), ModelConfig(8, recurrence="scan")):
        programs.add(digest(dataclasses.replace(SMALL, model=model)))
    monkeypatch.setattr(predictions, "MIN_ROWS", 7)
    programs.add(digest())
    monkeypatch.setitem(compiler.CPU_OPTIONS, "xla_cpu_prefer_vector_width", 256)
    programs.add(digest())
    assert len(programs) == 6


def test_seeds_and_epochs_do_not() -> None:
    longer = dataclasses.replace(SMALL.train, epochs=9)
    assert digest(dataclasses.replace(SMALL, data_seed=3, train=longer)) == before()


ALONE = """
import tests.conftest
from sumrnn.devices import mesh
from sumrnn.runs import origin
mesh.use_cores(3)
assert len(mesh.all_devices()) == 3
print(origin.program_digest(tests.conftest.SMALL))
"""


def test_it_is_the_same_in_other_processes_and_for_other_devices() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.strip() == before()


def test_the_processor_is_recorded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = origin.device()
    assert found["platform"] == "cpu"
    assert found["model"]
    assert found["vectors"]
    amd = "vendor_id: AuthenticAMD\ncpu family\t: 25\nmodel\t: 17\n\nmodel\t: 9\n"
    known = {
        amd: "AuthenticAMD family 25 model 17",
        "CPU implementer\t: 0x41\nCPU part\t: 0xd40\n": "implementer 0x41 part 0xd40",
        "unknown": platform.machine(),
    }
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    for text, told in known.items():
        machine.CPUINFO.write_text(text)
        machine.cpuinfo.cache_clear()
        assert origin.device()["model"] == told
    machine.cpuinfo.cache_clear()


EVALUATION = {
    "other strata": ("sumrnn.scores.strata.EDGES", (*range(10), 20)),
    "another spread": ("sumrnn.scores.strata.MIN_DEVIATION", 0.0031),
    "other shares": ("sumrnn.scores.strata.SHARES", {"accuracy": 0.5, "balanced accuracy": 0.1}),
    "fewer series at least": ("sumrnn.train.evaluation.PER_STRATUM", 9),
    "another pilot": ("sumrnn.scores.strata.PILOT", 0.5),
    "more series": ("sumrnn.train.evaluation.SHARE", 0.2),
    "another key": ("sumrnn.train.evaluation.PURPOSE", 4),
    "another distribution": ("sumrnn.task.log_pmf_table", lambda config: 0.9 * LOG_PMFS),
}
LOG_PMFS = task.log_pmf_table(Config().task)


def test_what_draws_and_weighs_the_exact_evaluation_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests = {}
    for change, (name, value) in EVALUATION.items():
        with monkeypatch.context() as other:
            other.setattr(name, value)
            compiler.functions.cache_clear()
            origin.evaluation_digest.cache_clear()
            digests[change] = origin.evaluation_digest()
    compiler.functions.cache_clear()
    origin.evaluation_digest.cache_clear()
    digests["none"] = origin.evaluation_digest()
    origin.evaluation_digest.cache_clear()
    with jax.enable_x64(True):  # Whatever the environment says.
        assert origin.evaluation_digest() == digests["none"]
    assert len(set(digests.values())) == len(digests), digests


def test_what_was_made_before_the_exact_evaluation_was_recorded_goes_on() -> None:
    now = origin.current(SMALL)
    versions = {k: v for k, v in now["versions"].items() if k != "exact"}
    old, other = ({**now, "versions": v} for v in (versions, versions | {"exact": "0" * 12}))
    assert origin.difference(old, now) is None
    assert "was made with exact 000000000000, this is " in str(origin.difference(other, now))


def test_settings_that_are_not_usual_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin.settings() == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        found = origin.settings()
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    flags = {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}
    assert found == flags | {"jax_disable_most_optimizations": "True"}
    # Of those that there were in JAX 0.10 two are gone in 0.12.
    assert len(set(origin.OPTIONS) - set(jax.config.values)) <= 2


@pytest.mark.parametrize(
    ("part", "name", "old"),
    [
        ("versions", "code", "[0-9a-f]{12}"),
        ("versions", "jax", re.escape(jax.__version__)),
        ("versions", "new", "unset"),
        ("device", "platform", "cpu"),
        ("device", "model", ".*"),
        ("device", "vectors", ".*"),
        ("settings", "XLA_FLAGS", "unset"),
    ],
)
def test_the_first_difference_is_named(part: str, name: str, old: str) -> None:
    made = origin.current(SMALL)
    origin.check_same("config", made, origin.current(SMALL), anyway=False)
    other: Any = {**made, part: {**made[part], name: "another"}}
    told = f"config: was made with {name} {old}, this is another, which may give other bits; "
    with pytest.raises(UserError, match=f"^{told}.*--anyway continues and records it$"):
        origin.check_same("config", made, other, anyway=False)
    origin.check_same("config", made, other, anyway=True)
