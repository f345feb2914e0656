"""Weights there and back, against Keras and PyTorch themselves, and what is refused."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import tracemalloc
import unittest.mock
import zipfile
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest
import scipy.special

from sumrnn.config import Config, ModelConfig
from sumrnn.devices import compiler
from sumrnn.errors import UserError
from sumrnn.exchange import arrays, formats
from sumrnn.models import network as network_lib
from sumrnn.train import run as algorithm
from sumrnn.train.series import Batch
from tests.conftest import SMALL, flip
from tests.exchange.conftest import Trained

FILES = {".keras": "keras", ".weights.h5": "weights.h5", ".safetensors": "torch"}
RAW = pytest.mark.parametrize("run", ["raw"], indirect=True)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras")


def logits(params: network_lib.Params, model: ModelConfig, digits: np.ndarray) -> np.ndarray:
    weights = network_lib.from_flax(params, model)
    return np.asarray(network_lib.logits(weights, model, digits), float)


def series(config: Config, size: int, seed: int = 0) -> Batch:
    task = config.task
    drawn = np.random.default_rng(seed).integers(task.low, task.high + 1, (size, task.length))
    return Batch(drawn.astype(np.uint8), (drawn.sum(axis=1) >= task.threshold).astype(np.uint8))


def save(folder: pathlib.Path, name: str, network: Trained) -> pathlib.Path:
    path = folder / f"it{formats.FORMATS[name].ending}"
    path.write_bytes(formats.write(name, network.params, network.record.config))
    return path


def members(path: pathlib.Path) -> dict[str, bytes]:
    """The files in a .keras file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: pathlib.Path, files: dict[str, Any], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def refusal(path: pathlib.Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(UserError) as error:
        formats.read("init_from", path, SMALL.model)
    message = str(error.value)
    assert message.isprintable()
    assert message.startswith((f"{path}: ", "init_from = "))
    return message


@pytest.mark.parametrize("name", FILES.values())
def test_weights_come_back_in_the_same_bits_unless_inputs_are_scaled(
    name: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    path, model = save(tmp_path, name, network), network.record.config.model
    params, digest = formats.read("init_from", path, model)
    assert len(digest) == 64
    chex.assert_trees_all_equal(params["output"], network.params["output"])
    if model.scales:  # What is in the inputs' weights and the bias rounds there.
        chex.assert_trees_all_close(params, network.params, rtol=1e-6, atol=1e-6)
        raw = dataclasses.replace(model, input_center=0.0, input_scale=1.0)
        params, _ = formats.read("init_from", path, raw)
        digits = series(SMALL, 50).digits
        expected = logits(network.params, model, digits)
        np.testing.assert_allclose(logits(params, raw, digits), expected, rtol=1e-5, atol=1e-5)
    else:
        chex.assert_trees_all_equal(params, network.params)
    assert path.read_bytes() == save(tmp_path, name, network).read_bytes()


Peer = tuple[Callable[[np.ndarray], np.ndarray], Callable[[Batch], float], Callable[[], object]]
"""A network of another library: its probabilities, a step of Adam, and how it is saved again."""


def in_keras(keras: Any, path: pathlib.Path, config: Config) -> Peer:
    model, train = keras.models.load_model(path), config.train
    adam = keras.optimizers.Adam(train.learning_rate, train.beta1, train.beta2, train.epsilon)
    model.compile(optimizer=adam, loss="binary_crossentropy")

    def inputs(digits: np.ndarray) -> np.ndarray:
        return digits[..., None].astype(np.float32)

    def fit(batch: Batch) -> float:
        return float(model.train_on_batch(inputs(batch.digits), batch.labels.astype(np.float32)))

    return lambda digits: np.asarray(model(inputs(digits)))[:, 0], fit, lambda: model.save(path)


def in_torch(torch: Any, path: pathlib.Path, config: Config) -> Peer:
    safetensors = importlib.import_module("safetensors.torch")

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(1, config.model.cells, batch_first=True)
            self.output = torch.nn.Linear(config.model.cells, 1)

        def forward(self, digits: np.ndarray) -> Any:
            inputs = torch.tensor(digits[..., None].astype(np.float32))
            return self.output(self.lstm(inputs)[0][:, -1])[:, 0]

    net, train = Net(), config.train
    net.load_state_dict(safetensors.load_file(path))
    net.lstm.bias_ih_l0.requires_grad_(False)  # Which would be a second bias of the same gates.
    trained = [x for x in net.parameters() if x.requires_grad]
    betas = (train.beta1, train.beta2)
    adam = torch.optim.Adam(trained, train.learning_rate, betas, train.epsilon)

    def fit(batch: Batch) -> float:
        adam.zero_grad()
        labels = torch.tensor(batch.labels.astype(np.float32))
        loss = torch.nn.BCEWithLogitsLoss()(net(batch.digits), labels)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return (
        lambda digits: np.asarray(torch.sigmoid(net(digits)).detach()),
        fit,
        lambda: safetensors.save_file(net.state_dict(), path),
    )


@pytest.mark.slow
@pytest.mark.parametrize("library", ["keras", "torch"])
def test_training_goes_the_same_way_in_another_library(
    library: str, tmp_path: pathlib.Path
) -> None:
    """From the same weights, on the same batches."""
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip(library)
    config = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, batch_shards=1))
    state = compiler.compiled_functions(config).begin(algorithm.purpose_seeds(config, 3)).state
    start = jax.device_get(network_lib.to_flax(state.params))
    path = tmp_path / f"start{formats.FORMATS[library].ending}"
    path.write_bytes(formats.write(library, start, config))
    probabilities, fit, save_again = {"keras": in_keras, "torch": in_torch}[library](
        module, path, config
    )
    digits = series(config, 200).digits
    expected = scipy.special.expit(logits(start, config.model, digits))
    np.testing.assert_allclose(probabilities(digits), expected, atol=1e-6)
    step = jax.jit(functools.partial(algorithm.train_step, config))
    for number in range(50):
        batch = series(config, 48, seed=1 + number)
        state, (loss, _), _ = step(state, batch)
        assert fit(batch) == pytest.approx(float(loss) / 48, abs=1e-4)
    save_again()
    ended: Any = jax.device_get(network_lib.to_flax(state.params))
    theirs, _ = formats.read("init_from", path, config.model)
    chex.assert_trees_all_close(theirs, ended, rtol=0, atol=1e-3)
    moved = ended["lstm"]["hi"]["kernel"] - start["lstm"]["hi"]["kernel"]
    assert np.abs(moved).max() > 0.01


@pytest.mark.slow
def test_files_that_keras_writes_are_read(keras: Any, tmp_path: pathlib.Path) -> None:
    """Of a Sequential and of a functional network, before and after it was trained."""
    layers, inputs = keras.layers, keras.Input((None, 1))
    functional = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.LSTM(8)(inputs)))
    # What acts in training alone may be anything.
    training = {"dropout": 0.2, "kernel_regularizer": "l2", "seed": 3, "trainable": False}
    named = layers.LSTM(8, name="cells", **training)
    initial = keras.Sequential([inputs, named, layers.Dense(1, activation="sigmoid", name="out")])
    sequential = keras.Sequential([layers.LSTM(8), layers.Dense(1, activation="sigmoid")])
    batch = series(SMALL, 20)
    x = batch.digits[..., None].astype(np.float32)
    sequential.compile(optimizer="adam", loss="binary_crossentropy")
    sequential.fit(x, batch.labels, verbose=0)
    for model in (functional, initial, sequential):
        expected = np.asarray(model(x))[:, 0]
        for ending in (".keras", ".weights.h5"):
            path = tmp_path / f"theirs{ending}"
            model.save(path) if ending == ".keras" else model.save_weights(path)
            params, _ = formats.read("init_from", path, SMALL.model)
            probabilities = scipy.special.expit(logits(params, SMALL.model, batch.digits))
            np.testing.assert_allclose(probabilities, expected, atol=1e-6)


IN_H5 = "layers/lstm/cell/vars"


@pytest.mark.parametrize(
    ("ending", "cell", "settings", "words"),
    [
        (".keras", "LSTM", {"units": 9}, "LSTM.units = 9: must be 8"),
        (".weights.h5", "LSTM", {"units": 9}, "'float32 [1, 36]': must be float32 [1, 32] for 8"),
        (".keras", "GRU", {}, "layers = 'InputLayer, GRU, Dense': must be InputLayer, LSTM"),
        (".weights.h5", "GRU", {}, "layers = 'dense, gru': must be dense, lstm"),
        (".keras", "LSTM", {"activation": "relu"}, "LSTM.activation = 'relu': must be 'tanh'"),
        (".weights.h5", "LSTM", {"use_bias": False}, "'0, 1': must be 0, 1, 2: kernel, recurrent"),
        (".keras", "LSTM", {"dtype": "mixed_float16"}, "LSTM.dtype = 'mixed_float16': must be 'fl"),
        (".keras", "theirs", {}, "'LSTM', 'theirs>LSTM'): must be Keras's own"),
    ],
)
def test_other_layers_are_refused_with_what_they_have(
    ending: str, cell: str, settings: Any, words: str, keras: Any, tmp_path: pathlib.Path
) -> None:
    layers = keras.layers
    theirs = type("LSTM", (layers.LSTM,), {})
    keras.saving.register_keras_serializable("theirs")(theirs)
    kind = theirs if cell == "theirs" else getattr(layers, cell)
    dense = layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((None, 1)), kind(**{"units": 8} | settings), dense])
    path = tmp_path / f"it{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("class", "'Theirs', 'Theirs'): must be one of (('keras', 'Sequential', None)"),
        ("cell", "LSTM.return_state = True: must be False"),
        ("training", "LSTM.kwargs = {'training': True}: must be left out"),
        ("two", "network.output_layers = [["),
    ],
)
def test_layers_that_are_connected_otherwise_are_refused(
    kind: str, words: str, keras: Any, tmp_path: pathlib.Path
) -> None:
    layers, inputs = keras.layers, keras.Input((None, 1))
    dense, lstm = layers.Dense(1, activation="sigmoid"), layers.LSTM(8, return_state=kind == "cell")
    hidden = lstm(inputs, training=True) if kind == "training" else lstm(inputs)
    output = dense(hidden[2] if kind == "cell" else hidden)
    network = type("Theirs", (keras.Model,), {}) if kind == "class" else keras.Model
    model = network(inputs, [output, hidden] if kind == "two" else output)
    model.save(tmp_path / "it.keras")
    assert words in refusal(tmp_path / "it.keras")


def in_config(layer: int, **settings: Any) -> Callable[[Any], None]:
    return lambda config: config["layers"][layer]["config"].update(settings)


def in_links(**changed: Any) -> Callable[[Any], None]:
    return lambda config: config["layers"][2]["inbound_nodes"][0].update(changed)


POLICY = {"module": None, "class_name": "DTypePolicy", "config": {"name": "float32"}}
FORGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "the cell state": (
        in_links(args=[{"config": {"keras_history": ["lstm", 0, 2]}}]),
        "Dense.inbound_nodes = [[['lstm', 0, 2]]]: must",
    ),
    "unknown": (in_config(1, peephole=True), "LSTM.peephole = True: must be left out (not known"),
    "none": (in_config(2, activation=None), "Dense.activation = None: must be 'sigmoid'"),
    "no input": (
        lambda config: config["layers"].pop(0),
        "layers = 'LSTM, Dense': must be InputLayer",
    ),
    "other input": (lambda config: config.update(input_layers=["x", 0, 0]), "network.input_layers"),
    "a policy": (in_config(1, dtype=POLICY), "LSTM.dtype = {'module': None"),
}
"""A change of a functional network's config, and how it is refused."""


@RAW
def test_every_setting_and_link_is_looked_at(network: Trained, tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, "keras", network)
    files = members(path)
    functional = json.loads(files["config.json"])
    functional |= {"module": "keras.src.models.functional", "class_name": "Functional"}
    functional["registered_name"] = "Functional"
    names = ["digits", "lstm", "dense"]
    functional["config"] |= {"input_layers": ["digits", 0, 0], "output_layers": [["dense", 0, 0]]}
    for before, layer in zip(names, functional["config"]["layers"][1:], strict=False):
        tensor = {"config": {"keras_history": [before, 0, 0]}}
        layer["inbound_nodes"] = [{"args": [tensor], "kwargs": {"mask": None}}]
    whole = json.dumps(functional)
    pack(path, files | {"config.json": whole})
    formats.read("init_from", path, network.record.config.model)
    for change, words in FORGED.values():
        forged = json.loads(whole)
        change(forged["config"])
        pack(path, files | {"config.json": json.dumps(forged)})
        assert words in refusal(path)


def external(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1, 32), "float32", external=[(str(other), 0, 128)])


def virtual(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    layout = h5py.VirtualLayout((1, 32), "float32")
    layout[:] = h5py.VirtualSource(str(other), "x", (1, 32))
    file.create_virtual_dataset(name, layout)


def compressed(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1, 32), "float32", compression="gzip")


def large(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1 << 15, 1 << 15), "float32")


@RAW
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h5py, file, name, other: file.update({name: h5py.SoftLink("/x")}), "links = ("),
        (
            lambda h5py, file, name, other: file.update({name: h5py.ExternalLink(other, "x")}),
            "links = (",
        ),
        (external, "must be stored in one piece, in this file itself"),
        (virtual, "must be stored in one piece, in this file itself"),
        (compressed, "must be stored in one piece, in this file itself"),
        (large, "'float32 [32768, 32768]': must be float32 [1, 32] for 8 cells"),
    ],
)
def test_weights_lie_in_the_file_whose_digest_is_recorded(
    change: Callable[..., None], words: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    h5py = pytest.importorskip("h5py")
    path, other = save(tmp_path, "weights.h5", network), tmp_path / "other.h5"
    for file_path in (other, path):
        with h5py.File(file_path, "a") as file:
            file["x"] = np.zeros((1, 32), np.float32)
            if file_path == path:
                del file[f"{IN_H5}/0"]
                change(h5py, file, f"{IN_H5}/0", other)
    assert path.stat().st_size < 20_000
    assert words in refusal(path)


@RAW
@pytest.mark.parametrize("lie", [False, True])
def test_what_would_become_large_is_not_read(
    lie: bool, network: Trained, tmp_path: pathlib.Path
) -> None:
    """Zeros in place of the weights, also where the file says that they are few."""
    path = save(tmp_path, "keras", network)
    config = members(path)["config.json"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", bytes(100 << 20))
        archive.infolist()[1].file_size = 7 if lie else 100 << 20
    tracemalloc.start()
    assert ("Bad CRC-32" if lie else "104,857,600 bytes': must be at most 67") in refusal(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # Of which the disk has nothing.
    assert "it = '1,099,511,627,776 bytes': must be at most 67," in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@RAW
def test_any_flipped_bit_of_a_compressed_file_is_told_in_one_line(
    network: Trained, tmp_path: pathlib.Path
) -> None:
    path, lines = save(tmp_path, "keras", network), set()
    files = members(path)
    pack(path, files, zipfile.ZIP_LZMA)
    assert "must be stored or deflated" in refusal(path)
    pack(path, files, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 100):
        path.write_bytes(content)
        flip(path, position)
        try:
            formats.read("init_from", path, SMALL.model)  # Some bits mean nothing.
        except UserError:
            lines.add(refusal(path).removeprefix(f"{path}: "))
    assert any(x.startswith("cannot be read, or is damaged (zlib.error: Er") for x in lines)


@RAW
@pytest.mark.parametrize("value", [3e38, -3e38, np.nan])
def test_weights_are_finite_with_inputs_scaled_too(value: float, network: Trained) -> None:
    scaled = ModelConfig(cells=8, input_center=3.0, input_scale=5.0)
    whole = arrays.from_params(network.params, network.record.config.model)
    whole.inputs[0, 3] = value
    with pytest.raises(UserError, match=r"inputs = (inf|nan): must be finite in float32"):
        arrays.to_params(whole, scaled)
    params: Any = jax.tree.map(np.array, network.params)
    params["lstm"]["ii"]["kernel"][0, 3] = value
    with pytest.raises(UserError, match=r"inputs = (inf|nan): must be finite in float32"):
        formats.write("keras", params, Config(model=dataclasses.replace(scaled, input_scale=0.01)))


@RAW
@pytest.mark.parametrize("ending", FILES)
def test_damaged_and_foreign_files_are_refused_in_one_line(
    ending: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"bad{ending}"
    content = formats.write(FILES[ending], network.params, network.record.config)
    for bad in (b"", b"{}", content[: len(content) // 2], content[:20], b"\0" * 5_000):
        path.write_bytes(bad)
        assert "cannot be" in refusal(path)
    path.unlink()
    assert "a file that is there" in refusal(path)
    path.mkdir()
    assert "a file that is there" in refusal(path)
    assert "must be a file that ends in .keras, .weights.h5" in refusal(tmp_path / "weights.pt")


@RAW
def test_files_of_others_are_named(tmp_path: pathlib.Path, network: Trained) -> None:
    h5py, safetensors = pytest.importorskip("h5py"), pytest.importorskip("safetensors.numpy")
    with h5py.File(tmp_path / "old.weights.h5", "w") as file:
        file.create_group("model_weights")
    assert "it is of Keras 2" in refusal(tmp_path / "old.weights.h5")
    pack(tmp_path / "other.keras", {"config.json": "[]"})
    assert "cannot be" in refusal(tmp_path / "other.keras")
    ours = safetensors.load(formats.write("torch", network.params, SMALL))
    path = tmp_path / "other.safetensors"
    for tensors, words in (
        ({"weight": np.zeros(3, np.float32)}, "tensors = 'weight': must be lstm.weight_ih_l0, "),
        (
            ours | {"lstm.weight_ih_l0": np.zeros((32, 1), np.float16)},
            "lstm.weight_ih_l0 = 'F16 [32, 1]': must be float32 [32, 1] for 8 cells",
        ),
        (
            ours | {"lstm.bias_ih_l0": np.zeros((1, 32), np.float32)},
            "lstm.bias_ih_l0 = 'float32 [1, 32]': must be float32 [32]",
        ),
    ):
        path.write_bytes(safetensors.save(tensors))
        assert words in refusal(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module", name="h5py"), "h5py: must be installed for this; python"),
        (
            TypeError("Descriptors\ncannot"),
            "sumrnn[exchange]: must load for this (TypeError: Descriptors)",
        ),
    ],
)
def test_a_library_that_does_not_load_is_told_like_a_missing_one(
    error: Exception, words: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", unittest.mock.Mock(side_effect=error))
    (tmp_path / "it.weights.h5").write_bytes(b"x")
    with pytest.raises(UserError) as told:
        formats.read("init_from", tmp_path / "it.weights.h5", SMALL.model)
    assert str(told.value).startswith(words)
    assert "'sumrnn[exchange]'" in str(told.value)
