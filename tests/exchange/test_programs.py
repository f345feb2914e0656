"""Model files answer as the run did, in processes that cannot import this package."""

import dataclasses
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special
from jax import export

import sumrnn
from sumrnn.devices.compiler import CPU_OPTIONS
from sumrnn.exchange import formats
from sumrnn.models import network as network_lib
from sumrnn.models.initializer import init
from tests.conftest import SECONDS, SMALL
from tests.exchange.conftest import Trained

ALONE = """
import json, sys
import numpy as np

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sumrnn", "flax", "optax"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
"""
STABLEHLO = f"""
import jax
from jax import export
call = export.deserialize(bytearray(open(sys.argv[1], "rb").read())).call
answer = jax.jit(call, compiler_options={CPU_OPTIONS!r})
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
answer = lambda digits: session.run(None, {"digits": digits})[0]
assert answer(np.zeros((0, 5), np.uint8)).shape == (0,)
"""
ANSWER = """
digits = np.load(sys.argv[2])
found = [np.asarray(answer(x)) for x in (digits, digits[:7, :3], digits[:1])]
np.savez(sys.argv[3], *found)
"""


def alone(code: str, model: bytes, digits: np.ndarray, folder: pathlib.Path) -> list[np.ndarray]:
    """What a program of its own answers: all, short ones, and one."""
    (folder / "model").write_bytes(model)
    np.save(folder / "digits.npy", digits)
    argv = [sys.executable, "-c", ALONE + code + ANSWER, "model", "digits.npy", "found.npz"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-2_000:]
    with np.load(folder / "found.npz") as found:
        return [found[name] for name in found.files]


SCALED = pytest.mark.parametrize("run", ["scaled"], indirect=True)
"""Its network reads other numbers than the digits."""


def shorter(network: Trained, digits: np.ndarray) -> np.ndarray:
    model = network.record.config.model
    weights = network_lib.from_flax(network.params, model)
    return np.asarray(network_lib.logits(weights, model, digits[:7, :3]))


@pytest.mark.slow
@SCALED
def test_stablehlo_gives_the_bits_of_the_run(
    run: pathlib.Path, network: Trained, tmp_path: pathlib.Path
) -> None:
    part = sumrnn.load(run).parts["test"]
    model = formats.write("stablehlo", network.params, network.record.config)
    every, short, one = alone(STABLEHLO, model, part.digits, tmp_path)
    # Exported programs of JAX 0.12 round some sums otherwise than its own.
    atol = 0 if jax.__version__.startswith("0.10.") else 1e-7
    np.testing.assert_allclose(every, part.logits, rtol=0, atol=atol)
    np.testing.assert_allclose(one, part.logits[:1], rtol=0, atol=atol)
    np.testing.assert_allclose(short, shorter(network, part.digits), rtol=1e-5, atol=1e-6)
    assert model == formats.write("stablehlo", network.params, network.record.config)
    assert str(pathlib.Path(sumrnn.__file__).parent).encode() not in model


def test_stablehlo_of_a_run_of_length_1_answers_its_own_series() -> None:
    """Of any batch from 1; the other lengths are refused, as length 1 is by other programs."""
    task = dataclasses.replace(SMALL.task, length=1, threshold=2)
    config = dataclasses.replace(SMALL, task=task)
    weights = jax.device_get(init(jax.random.key(0), config))
    params = network_lib.to_flax(weights)
    for length, others in ((1, (0, 2)), (5, (0, 1))):
        kind = dataclasses.replace(config, task=dataclasses.replace(task, length=length))
        call = export.deserialize(bytearray(formats.write("stablehlo", params, kind))).call
        for batch in (1, 3):
            digits = np.full((batch, length), 2, np.uint8)
            expected = network_lib.logits(weights, config.model, digits)
            np.testing.assert_allclose(call(digits), expected, rtol=1e-5, atol=1e-6)
        for shape in ((0, length), *((2, other) for other in others)):
            with pytest.raises(ValueError, match=r"[Ss]hape"):
                call(np.zeros(shape, np.uint8))


@SCALED
def test_onnx_gives_the_probabilities_of_the_run(
    run: pathlib.Path, network: Trained, tmp_path: pathlib.Path
) -> None:
    part = sumrnn.load(run).parts["test"]
    model = formats.write("onnx", network.params, network.record.config)
    every, short, one = alone(ONNX, model, part.digits, tmp_path)
    expected = scipy.special.expit(part.logits.astype(float))
    np.testing.assert_allclose(every, expected, atol=1e-6)
    np.testing.assert_allclose(one, expected[:1], atol=1e-6)
    logits = shorter(network, part.digits).astype(float)
    np.testing.assert_allclose(short, scipy.special.expit(logits), atol=1e-6)
    assert model == formats.write("onnx", network.params, network.record.config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stablehlo", "onnx"])
def test_a_counter_still_counts(name: str, tmp_path: pathlib.Path) -> None:
    """Of the exercise's size: the answer to series around the threshold."""
    from sumrnn.models.counter import counter
    from sumrnn.presets import preset

    config = preset("sheet")
    model: Any = formats.write(name, counter(config.task, 200), config)
    digits = np.full((40, 30), 3, np.uint8)
    digits[:, :10] += np.arange(40, dtype=np.uint8)[:, None] // 10
    digits[:, 10] = np.arange(40) % 10
    code = STABLEHLO if name == "stablehlo" else ONNX
    found = alone(code, model, digits, tmp_path)[0]
    threshold = 0 if name == "stablehlo" else 0.5
    np.testing.assert_array_equal(found > threshold, digits.sum(axis=1, dtype=int) >= 100)
