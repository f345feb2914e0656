"""Weights there and back, against Keras and PyTorch themselves."""

import dataclasses
import functools
import importlib
import os
import pathlib
import zipfile
from typing import Any

import chex
import jax
import numpy as np
import pytest
import scipy.special

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError
from sumrnn.exchange import formats, layout
from sumrnn.exchange.layout import Layout
from sumrnn.models import network as network_lib
from sumrnn.runs.trained import Trained
from sumrnn.task import Split
from sumrnn.train import loop, step
from tests.conftest import SMALL

STEPS = 50
FILES = {".keras": "keras", ".weights.h5": "weights.h5", ".safetensors": "torch"}


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def logits(params: network_lib.Params, model: ModelConfig, digits: np.ndarray) -> np.ndarray:
    return np.asarray(network_lib.logits(params, model, digits), float)


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
def test_weights_come_back_in_the_same_bits(
    name: str, network: Trained, tmp_path: pathlib.Path
) -> None:
    path, model = save(tmp_path, name, network), network.record.config.model
    found, digest = formats.read("init_from", path, model)
    assert len(digest) == 64
    if model.scales:  # What is in the weights there rounds.
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
    state = loop.compiled(config).begin(loop.purposes(config, 3)).state
    start: Any = jax.device_get(step.unpacked(state).params)
    path = tmp_path / f"start{formats.FORMATS[library].ending}"
    path.write_bytes(formats.write(library, start, config))
    theirs = {"keras": of_keras, "torch": of_torch}[library](module, path, config)
    digits = some(config, 200).digits
    expected = scipy.special.expit(logits(start, config.model, digits))
    np.testing.assert_allclose(theirs.probabilities(digits), expected, atol=1e-6)
    take = jax.jit(functools.partial(step.train_step, config))
    for number in range(STEPS):
        batch = some(config, 48, seed=1 + number)
        state, (loss, _) = take(state, batch)
        assert theirs.train(batch) == pytest.approx(float(loss) / 48, abs=1e-4)
    ended: Any = jax.device_get(step.unpacked(state).params)
    for ours, other in zip(layout.of(ended, config.model), theirs.weights(), strict=True):
        np.testing.assert_allclose(other, ours, atol=1e-3)
    moved = ended["lstm"]["hi"]["kernel"] - start["lstm"]["hi"]["kernel"]
    assert np.abs(moved).max() > 0.01


def test_files_that_keras_writes_are_read(keras: Any, tmp_path: pathlib.Path) -> None:
    """Of a Sequential and of a functional network, before and after it was trained."""
    inputs = keras.Input((None, 1))
    layers = keras.layers
    hidden = layers.LSTM(8)(inputs)
    functional = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    sequential = keras.Sequential([layers.LSTM(8), layers.Dense(1, activation="sigmoid")])
    batch = some(SMALL, 20)
    x = batch.digits[..., None].astype(np.float32)
    sequential.compile(optimizer="adam", loss="binary_crossentropy")
    sequential.fit(x, batch.labels, verbose=0)
    for model in (functional, sequential):
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
        known = {
            "lstm": lambda: layers.LSTM(8),
            "lstm9": lambda: layers.LSTM(9),
            "relu": lambda: layers.LSTM(8, activation="relu"),
            "no bias": lambda: layers.LSTM(8, use_bias=False),
            "gru": lambda: layers.GRU(8),
            "stack": lambda: layers.LSTM(8, return_sequences=True),
            "dense": lambda: layers.Dense(1, activation="sigmoid"),
            "dense2": lambda: layers.Dense(2),
        }
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


@pytest.mark.parametrize(
    ("ending", "layers", "words"),
    [
        (".keras", ("lstm9", "dense"), "inputs are float32 [1, 36], needed are float32 [1, 32]"),
        (".weights.h5", ("lstm9", "dense"), "inputs are float32 [1, 36], needed are float32"),
        (".keras", ("gru", "dense"), "its layers are GRU, Dense, needed are LSTM, Dense"),
        (".weights.h5", ("gru", "dense"), "its layers are dense, gru, needed are dense, lstm"),
        (".keras", ("stack", "lstm", "dense"), "its layers are LSTM, LSTM, Dense, needed are"),
        (".weights.h5", ("stack", "lstm", "dense"), "its layers are dense, lstm, lstm_1, needed"),
        (".keras", ("relu", "dense"), "its LSTM has activation = 'relu', needed is 'tanh'"),
        (".keras", ("no bias", "dense"), "its LSTM has use_bias = False, needed is True"),
        (".keras", ("lstm", "dense2"), "its Dense has units = 2, needed is 1"),
        (".weights.h5", ("lstm", "dense2"), "output are float32 [8, 2], needed are float32 [8, 1]"),
    ],
)
def test_other_networks_are_refused_with_what_they_have(
    ending: str, layers: tuple[str, ...], words: str, theirs: Any
) -> None:
    assert words in theirs(ending, *layers)


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
    assert "its tensors are weight, needed are lstm.weight_ih_l0" in answer(
        tmp_path / "other.safetensors"
    )
    content = formats.write("torch", network.params, SMALL)
    tensors = safetensors.load(content) | {"lstm.weight_ih_l0": np.zeros((32, 1), np.float16)}
    (tmp_path / "half.safetensors").write_bytes(safetensors.save(tensors))
    assert "its inputs are float16 [1, 32], needed are float32 [1, 32]" in answer(
        tmp_path / "half.safetensors"
    )
    params: Any = jax.tree.map(np.array, network.params)
    params["output"]["bias"][:] = np.nan
    (tmp_path / "nan.safetensors").write_bytes(formats.write("torch", params, SMALL))
    assert "its output_bias are not all finite" in answer(tmp_path / "nan.safetensors")


def test_a_missing_library_is_named(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "h5py", None)
    (tmp_path / "it.weights.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"^h5py: must be installed for this; .*sumrnn\[exchange\]"):
        formats.read("init_from", tmp_path / "it.weights.h5", SMALL.model)
