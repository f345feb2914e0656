"""Weights there and back, against Keras and PyTorch themselves."""

import contextlib
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
from sumrnn.exchange import formats, layout
from sumrnn.exchange.layout import Layout
from sumrnn.models import network as network_lib
from sumrnn.runs.trained import Trained
from sumrnn.task import Split
from sumrnn.train import run as algorithm
from tests.conftest import SMALL, flip

STEPS = 50
FILES = {".keras": "keras", ".weights.h5": "weights.h5", ".safetensors": "torch"}


RAW = pytest.mark.parametrize("run", ["raw"], indirect=True)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def logits(params: network_lib.Params, model: ModelConfig, digits: np.ndarray) -> np.ndarray:
    return np.asarray(
        network_lib.logits(network_lib.from_flax(params, model), model, digits), float
    )


def some(config: Config, size: int, seed: int = 0) -> Split:
    """Series of digits and their labels."""
    task = config.task
    drawn = np.random.default_rng(seed).integers(task.low, task.high + 1, (size, task.length))
    return Split(drawn.astype(np.uint8), (drawn.sum(axis=1) >= task.threshold).astype(np.uint8))


def save(folder: pathlib.Path, name: str, network: Trained) -> pathlib.Path:
    path = folder / f"it{formats.FORMATS[name].ending}"
    path.write_bytes(formats.write(name, network.params, network.record.config))
    return path


@pytest.mark.parametrize("name", FILES.values())
def test_weights_come_back_in_the_same_bits_unless_inputs_are_scaled(
    name: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    path, model = save(tmp_path, name, network), network.record.config.model
    found, digest = formats.read("init_from", path, model)
    assert len(digest) == 64
    chex.assert_trees_all_equal(found["output"], network.params["output"])
    if model.scales:  # What is in the inputs' weights and the bias rounds there.
        chex.assert_trees_all_close(found, network.params, rtol=1e-6, atol=1e-6)
        raw = dataclasses.replace(model, input_center=0.0, input_scale=1.0)
        found, _ = formats.read("init_from", path, raw)
        digits = some(SMALL, 50).digits
        expected = logits(network.params, model, digits)
        np.testing.assert_allclose(logits(found, raw, digits), expected, rtol=1e-5, atol=1e-5)
    else:
        chex.assert_trees_all_equal(found, network.params)
    assert path.read_bytes() == save(tmp_path, name, network).read_bytes()


class Theirs:
    """A network of another library: probabilities, steps of Adam, and weights as `Layout`."""

    def __init__(self, make: Any) -> None:
        self.probabilities, self.train, self.weights = make


def of_keras(keras: Any, path: pathlib.Path, config: Config) -> Theirs:
    model = keras.models.load_model(path)
    train = config.train
    adam = keras.optimizers.Adam(train.learning_rate, train.beta1, train.beta2, train.epsilon)
    model.compile(optimizer=adam, loss="binary_crossentropy")

    def probabilities(digits: np.ndarray) -> np.ndarray:
        return np.asarray(model(digits[..., None].astype(np.float32)))[:, 0]

    def fit(batch: Split) -> float:
        inputs = batch.digits[..., None].astype(np.float32)
        return float(model.train_on_batch(inputs, batch.labels.astype(np.float32)))

    return Theirs((probabilities, fit, lambda: Layout(*map(np.asarray, model.get_weights()))))


def of_torch(torch: Any, path: pathlib.Path, config: Config) -> Theirs:
    load_file = importlib.import_module("safetensors.torch").load_file

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(1, config.model.cells, batch_first=True)
            self.output = torch.nn.Linear(config.model.cells, 1)

        def forward(self, digits: np.ndarray) -> Any:
            inputs = torch.tensor(digits[..., None].astype(np.float32))
            return self.output(self.lstm(inputs)[0][:, -1])[:, 0]

    net = Net()
    net.load_state_dict(load_file(path))
    net.lstm.bias_ih_l0.requires_grad_(False)  # Which would be a second bias of the same gates.
    train = config.train
    adam = torch.optim.Adam(
        [x for x in net.parameters() if x.requires_grad],
        train.learning_rate,
        (train.beta1, train.beta2),
        train.epsilon,
    )
    loss_of = torch.nn.BCEWithLogitsLoss()

    def probabilities(digits: np.ndarray) -> np.ndarray:
        found: np.ndarray = torch.sigmoid(net(digits)).detach().numpy()
        return found

    def fit(batch: Split) -> float:
        adam.zero_grad()
        loss = loss_of(net(batch.digits), torch.tensor(batch.labels.astype(np.float32)))
        loss.backward()
        adam.step()
        return float(loss.detach())

    def weights() -> Layout:
        own = {name: x.detach().numpy() for name, x in net.state_dict().items()}
        return Layout(
            own["lstm.weight_ih_l0"].T,
            own["lstm.weight_hh_l0"].T,
            own["lstm.bias_ih_l0"] + own["lstm.bias_hh_l0"],
            own["output.weight"].T,
            own["output.bias"],
        )

    return Theirs((probabilities, fit, weights))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["keras", "torch"])
def test_training_goes_the_same_way_in_another_library(
    library: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    """From the same weights, on the same batches."""
    module = request.getfixturevalue(library)
    config = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, batch_shards=1))
    state = compiler.compiled(config).begin(algorithm.purposes(config, 3)).state
    start: Any = jax.device_get(network_lib.to_flax(state.params))
    path = tmp_path / f"start{formats.FORMATS[library].ending}"
    path.write_bytes(formats.write(library, start, config))
    theirs = {"keras": of_keras, "torch": of_torch}[library](module, path, config)
    digits = some(config, 200).digits
    expected = scipy.special.expit(logits(start, config.model, digits))
    np.testing.assert_allclose(theirs.probabilities(digits), expected, atol=1e-6)
    take = jax.jit(functools.partial(algorithm.train_step, config))
    for number in range(STEPS):
        batch = some(config, 48, seed=1 + number)
        state, (loss, _) = take(state, batch)
        assert theirs.train(batch) == pytest.approx(float(loss) / 48, abs=1e-4)
    ended: Any = jax.device_get(network_lib.to_flax(state.params))
    for ours, other in zip(layout.of(ended, config.model), theirs.weights(), strict=True):
        np.testing.assert_allclose(other, ours, atol=1e-3)
    moved = ended["lstm"]["hi"]["kernel"] - start["lstm"]["hi"]["kernel"]
    assert np.abs(moved).max() > 0.01


def test_files_that_keras_writes_are_read(keras: Any, tmp_path: pathlib.Path) -> None:
    """Of a Sequential and of a functional network, before and after it was trained."""
    layers, inputs = keras.layers, keras.Input((None, 1))
    functional = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.LSTM(8)(inputs)))
    # What acts in training alone may be anything.
    training = {"dropout": 0.2, "kernel_regularizer": "l2", "seed": 3, "trainable": False}
    named = layers.LSTM(8, name="cells", **training)
    begun = keras.Sequential([inputs, named, layers.Dense(1, activation="sigmoid", name="out")])
    sequential = keras.Sequential([layers.LSTM(8), layers.Dense(1, activation="sigmoid")])
    batch = some(SMALL, 20)
    x = batch.digits[..., None].astype(np.float32)
    sequential.compile(optimizer="adam", loss="binary_crossentropy")
    sequential.fit(x, batch.labels, verbose=0)
    for model in (functional, begun, sequential):
        expected = np.asarray(model(x))[:, 0]
        for ending in (".keras", ".weights.h5"):
            path = tmp_path / f"theirs{ending}"
            model.save(path) if ending == ".keras" else model.save_weights(path)
            params, _ = formats.read("init_from", path, SMALL.model)
            found = scipy.special.expit(logits(params, SMALL.model, batch.digits))
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def theirs(keras: Any, tmp_path: pathlib.Path) -> Any:
    """Saves a Keras network of other layers, and says what reading it answers."""
    layers = keras.layers

    def refused(ending: str, *chosen: str) -> str:
        dense = functools.partial(layers.Dense, 1, activation="sigmoid")
        known = {
            "lstm": lambda: layers.LSTM(8),
            "lstm9": lambda: layers.LSTM(9),
            "relu": lambda: layers.LSTM(8, activation="relu"),
            "no bias": lambda: layers.LSTM(8, use_bias=False),
            "theirs": lambda: theirs_lstm(8),
            "mixed": lambda: layers.LSTM(8, dtype="mixed_float16"),
            "gru": lambda: layers.GRU(8),
            "stack": lambda: layers.LSTM(8, return_sequences=True),
            "dense": dense,
            "dense2": lambda: layers.Dense(2),
            "theirs dense": lambda: theirs_dense(1, activation="sigmoid"),
            "bfloat16": lambda: dense(dtype="bfloat16"),
        }
        register = keras.saving.register_keras_serializable("theirs")
        theirs_lstm = register(type("LSTM", (layers.LSTM,), {}))
        theirs_dense = register(type("Dense", (layers.Dense,), {}))
        model = keras.Sequential([keras.Input((None, 1)), *(known[name]() for name in chosen)])
        path = tmp_path / f"it{ending}"
        model.save(path) if ending == ".keras" else model.save_weights(path)
        return answer(path)

    return refused


def answer(path: pathlib.Path) -> str:
    """What is said of a file that is refused: one line."""
    with pytest.raises(UserError) as error:
        formats.read("init_from", path, SMALL.model)
    message = str(error.value)
    assert message.isprintable()
    assert message.startswith((f"{path}: ", "init_from = "))
    return message


IN_H5 = "layers/lstm/cell/vars"


@pytest.mark.parametrize(
    ("ending", "layers", "words"),
    [
        (".keras", ("lstm9", "dense"), "LSTM.units = 9: must be 8"),
        (".weights.h5", ("lstm9", "dense"), "'float32 [1, 36]': must be float32 [1, 32] for 8"),
        (".keras", ("gru", "dense"), "layers = 'InputLayer, GRU, Dense': must be InputLayer, LSTM"),
        (".weights.h5", ("gru", "dense"), "layers = 'dense, gru': must be dense, lstm"),
        (".keras", ("stack", "lstm", "dense"), "layers = 'InputLayer, LSTM, LSTM, Dense': must"),
        (".weights.h5", ("stack", "lstm", "dense"), "layers = 'dense, lstm, lstm_1': must be"),
        (".keras", ("relu", "dense"), "LSTM.activation = 'relu': must be 'tanh'"),
        (".keras", ("no bias", "dense"), "LSTM.use_bias = False: must be True"),
        (".weights.h5", ("no bias", "dense"), f"'{IN_H5}' = '0, 1': must be 0, 1, 2: kernel, rec"),
        (".keras", ("mixed", "dense"), "LSTM.dtype = 'mixed_float16': must be 'float32'"),
        (".keras", ("lstm", "bfloat16"), "Dense.dtype = 'bfloat16': must be 'float32'"),
        (".weights.h5", ("lstm", "bfloat16"), "'|V2 [8, 1]': must be float32 [8, 1]"),
        (
            ".keras",
            ("theirs", "dense"),
            "'LSTM', 'theirs>LSTM'): must be Keras's own",
        ),
        (".keras", ("lstm", "theirs dense"), "'Dense', 'theirs>Dense'): must be Keras's"),
        (".keras", ("lstm", "dense2"), "Dense.units = 2: must be 1"),
        (".weights.h5", ("lstm", "dense2"), "'float32 [8, 2]': must be float32 [8, 1]"),
    ],
)
def test_other_networks_are_refused_with_what_they_have(
    ending: str, layers: tuple[str, ...], words: str, theirs: Any
) -> None:
    assert words in theirs(ending, *layers)


def network_of(keras: Any, kind: str) -> Any:
    """A functional network of Keras, or one of a class of its own."""
    layers, inputs = keras.layers, keras.Input((None, 1))
    dense, lstm = layers.Dense(1, activation="sigmoid"), layers.LSTM(8, return_state=kind == "cell")
    if kind == "class":
        return type("Theirs", (keras.Model,), {})(inputs, dense(lstm(inputs)))
    if kind == "cell":
        return keras.Model(inputs, dense(lstm(inputs)[2]))
    hidden = lstm(inputs, training=kind == "training")
    return keras.Model(inputs, [dense(hidden), hidden] if kind == "two" else dense(hidden))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("class", "'Theirs', 'Theirs'): must be one of (('keras', 'Sequential', None)"),
        ("cell", "LSTM.return_state = True: must be False"),
        ("training", "LSTM.kwargs = {'training': True}: must be left out"),
        ("two", "network.output_layers = [["),
    ],
)
def test_what_is_connected_otherwise_is_refused(
    kind: str, words: str, keras: Any, tmp_path: pathlib.Path
) -> None:
    network_of(keras, kind).save(tmp_path / "it.keras")
    assert words in answer(tmp_path / "it.keras")


def in_config(layer: int, **settings: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config["layers"][layer]["config"].update(settings)

    return change


def in_links(field: str, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config["layers"][2]["inbound_nodes"][0][field] = value

    return change


TENSOR = {"config": {"keras_history": ["lstm", 0, 2]}}
FORGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "the cell state": (
        in_links("args", [TENSOR]),
        "Dense.inbound_nodes = [[['lstm', 0, 2]]]: must",
    ),
    "a mask": (in_links("kwargs", {"mask": TENSOR}), "Dense.kwargs = {'mask': "),
    "unknown": (in_config(1, peephole=True), "LSTM.peephole = True: must be left out (not known"),
    "none": (in_config(2, activation=None), "Dense.activation = None: must be 'sigmoid'"),
    "no input": (
        lambda config: config["layers"].pop(0),
        "layers = 'LSTM, Dense': must be InputLayer",
    ),
    "other input": (lambda config: config.update(input_layers=["x", 0, 0]), "network.input_layers"),
    "a policy": (
        in_config(
            1, dtype={"module": None, "class_name": "DTypePolicy", "config": {"name": "float32"}}
        ),
        "LSTM.dtype = {'module': None",
    ),
}
"""A change of a functional network's config, and how it is refused."""


@RAW
@pytest.mark.parametrize("kind", [None, *FORGED])
def test_every_setting_and_link_is_looked_at(
    kind: str | None, network: Trained, tmp_path: pathlib.Path
) -> None:
    path = save(tmp_path, "keras", network)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    whole = json.loads(parts["config.json"])
    whole |= {"module": "keras.src.models.functional", "class_name": "Functional"}
    whole["registered_name"] = "Functional"
    names = ["digits", "lstm", "dense"]
    whole["config"] |= {"input_layers": ["digits", 0, 0], "output_layers": [["dense", 0, 0]]}
    for before, layer in zip(names, whole["config"]["layers"][1:], strict=False):
        tensor = {"config": {"keras_history": [before, 0, 0]}}
        layer["inbound_nodes"] = [{"args": [tensor], "kwargs": {"mask": None}}]
    if kind is not None:
        FORGED[kind][0](whole["config"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"config.json": json.dumps(whole)}).items():
            archive.writestr(name, content)
    if kind is None:
        formats.read("init_from", path, network.record.config.model)
    else:
        assert FORGED[kind][1] in answer(path)


def link(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file[name] = h5py.ExternalLink(str(other), "x")


def soft(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file["x"] = np.zeros((1, 32), np.float32)
    file[name] = h5py.SoftLink("/x")


def external(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1, 32), "float32", external=[(str(other), 0, 128)])


def virtual(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    layout = h5py.VirtualLayout((1, 32), "float32")
    layout[:] = h5py.VirtualSource(str(other), "x", (1, 32))
    file.create_virtual_dataset(name, layout)


def packed(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1, 32), "float32", compression="gzip")


def large(h5py: Any, file: Any, name: str, other: pathlib.Path) -> None:
    file.create_dataset(name, (1 << 15, 1 << 15), "float32")


@RAW
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (link, "links = ("),
        (soft, "links = ("),
        (external, "must be stored in one piece, in this file itself"),
        (virtual, "must be stored in one piece, in this file itself"),
        (packed, "must be stored in one piece, in this file itself"),
        (large, "'float32 [32768, 32768]': must be float32 [1, 32] for 8 cells"),
    ],
)
def test_weights_lie_in_the_file_whose_digest_is_recorded(
    change: Callable[..., None], words: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    h5py = pytest.importorskip("h5py")
    path, other = save(tmp_path, "weights.h5", network), tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((1, 32), np.float32)
    with h5py.File(path, "a") as file:
        del file[f"{IN_H5}/0"]
        change(h5py, file, f"{IN_H5}/0", other)
    assert path.stat().st_size < 20_000
    assert words in answer(path)


@RAW
@pytest.mark.parametrize("lie", [False, True])
def test_what_would_become_large_is_not_read(
    lie: bool, network: Trained, tmp_path: pathlib.Path
) -> None:
    """Zeros in place of the weights, also where the file says that they are few."""
    path = tmp_path / "it.keras"
    with zipfile.ZipFile(save(tmp_path, "keras", network)) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", bytes(100 << 20))
        archive.infolist()[1].file_size = 7 if lie else 100 << 20
    tracemalloc.start()
    assert ("Bad CRC-32" if lie else "104,857,600 bytes': must be at most 67") in answer(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@RAW
@pytest.mark.parametrize("ending", formats.READERS)
def test_a_large_file_is_not_read(ending: str, network: Trained, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"it{ending}"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # Of which the disk has nothing.
    assert "it = '1,099,511,627,776 bytes': must be at most 67," in answer(path)


@RAW
@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_any_flipped_bit_of_a_compressed_file_is_told_in_one_line(
    kind: int, network: Trained, tmp_path: pathlib.Path
) -> None:
    with zipfile.ZipFile(save(tmp_path, "keras", network)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    path, said = tmp_path / "it.keras", set()
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    content = path.read_bytes()
    for position in range(0, len(content), len(content) // 100):
        path.write_bytes(content)
        flip(path, position)
        with contextlib.suppress(pytest.fail.Exception):  # Some bits mean nothing.
            said.add(answer(path).removeprefix(f"{path}: "))
    if kind == zipfile.ZIP_DEFLATED:
        assert any(
            line.startswith("cannot be read, or is damaged (zlib.error: Er") for line in said
        )
    else:
        assert any("must be stored or deflated" in line for line in said)


@RAW
@pytest.mark.parametrize("value", [3e38, -3e38, np.nan])
def test_weights_are_finite_with_inputs_scaled_too(value: float, network: Trained) -> None:
    scaled = ModelConfig(cells=8, input_center=3.0, input_scale=5.0)
    whole = layout.of(network.params, network.record.config.model)
    whole.inputs[0, 3] = value
    with pytest.raises(UserError, match=r"inputs = (inf|nan): must be finite in float32"):
        layout.params(whole, scaled)
    params: Any = jax.tree.map(np.array, network.params)
    params["lstm"]["ii"]["kernel"][0, 3] = value
    with pytest.raises(UserError, match=r"inputs = (inf|nan): must be finite in float32"):
        formats.write("keras", params, Config(model=dataclasses.replace(scaled, input_scale=0.01)))


@pytest.mark.parametrize("ending", FILES)
def test_damaged_and_foreign_files_are_refused_in_one_line(
    ending: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / f"bad{ending}"
    content = formats.write(FILES[ending], network.params, network.record.config)
    for bad in (b"", b"{}", content[: len(content) // 2], content[:20], b"\0" * 5_000):
        path.write_bytes(bad)
        assert "cannot be" in answer(path)
    path.unlink()
    assert "a file that is there" in answer(path)
    path.mkdir()
    assert "a file that is there" in answer(path)
    assert "must be a file that ends in .keras, .weights.h5" in answer(tmp_path / "weights.pt")


def test_files_of_others_are_named(tmp_path: pathlib.Path, network: Trained) -> None:
    h5py, safetensors = pytest.importorskip("h5py"), pytest.importorskip("safetensors.numpy")
    with h5py.File(tmp_path / "old.weights.h5", "w") as file:
        file.create_group("model_weights")
    assert "it is of Keras 2" in answer(tmp_path / "old.weights.h5")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "[]")
    assert "cannot be" in answer(tmp_path / "other.keras")
    one = {"weight": np.zeros(3, np.float32)}
    (tmp_path / "other.safetensors").write_bytes(safetensors.save(one))
    assert "tensors = 'weight': must be lstm.weight_ih_l0, " in answer(
        tmp_path / "other.safetensors"
    )
    content = formats.write("torch", network.params, SMALL)
    tensors = safetensors.load(content) | {"lstm.weight_ih_l0": np.zeros((32, 1), np.float16)}
    (tmp_path / "half.safetensors").write_bytes(safetensors.save(tensors))
    assert "lstm.weight_ih_l0 = 'F16 [32, 1]': must be float32 [32, 1] for 8 cells" in answer(
        tmp_path / "half.safetensors"
    )
    tensors = safetensors.load(content) | {"lstm.bias_ih_l0": np.zeros((1, 32), np.float32)}
    (tmp_path / "bias.safetensors").write_bytes(safetensors.save(tensors))
    assert "lstm.bias_ih_l0 = 'float32 [1, 32]': must be float32 [32]" in answer(
        tmp_path / "bias.safetensors"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module", name="h5py"), "h5py: must be installed for this; python"),
        (ImportError("libhdf5.so.1: cannot open"), "must load for this (ImportError: libhdf5.so.1"),
        (TypeError("Descriptors\ncannot"), "sumrnn[exchange]: must load for this (TypeError: Desc"),
    ],
)
def test_a_library_that_does_not_load_is_told_like_a_missing_one(
    error: Exception, words: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", unittest.mock.Mock(side_effect=error))
    (tmp_path / "it.weights.h5").write_bytes(b"x")
    with pytest.raises(UserError) as told:
        formats.read("init_from", tmp_path / "it.weights.h5", SMALL.model)
    message = str(told.value)
    assert message.startswith(words) or f"sumrnn[exchange]: {words}" in message
    assert "'sumrnn[exchange]'" in message
    assert "\n" not in message
