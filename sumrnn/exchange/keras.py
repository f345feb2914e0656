"""Weights as Keras 3 keeps them: .weights.h5, and .keras with the network around them.

Keras, like Flax, has the gates in the order i, f, g, o, side by side on the last axis, and one
bias.  Only h5py is needed, not Keras.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from sumrnn.config import Config, ModelConfig
from sumrnn.errors import UserError, require
from sumrnn.exchange.arrays import (
    Arrays,
    from_params,
    require_array,
    require_size,
    shapes,
    to_params,
)
from sumrnn.models.network import Params

WEIGHTS = "model.weights.h5"
VARIABLES = {
    "layers/lstm/cell/vars": ("kernel", "recurrent kernel", "bias"),
    "layers/dense/vars": ("kernel", "bias"),
}
"""Groups of a .weights.h5 file, and what their arrays are, called 0, 1, ..."""
NAMES = [f"{group}/{i}" for group, kinds in VARIABLES.items() for i in range(len(kinds))]
"""Where a .weights.h5 file has the arrays of `Arrays`, in their order."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of all in a .keras file, so that the same network is the same bytes."""
NETWORKS = (
    ("keras", "Sequential", None),
    ("keras.src.models.functional", "Functional", "Functional"),
)
"""Module, class and registered name of the networks that are read."""
LAYERS = ("InputLayer", "LSTM", "Dense")
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {"dtype": "float32"},
    "InputLayer": {"dtype": "float32", **dict.fromkeys(("sparse", "ragged", "optional"), False)},
    "LSTM": {
        "dtype": "float32",
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        **dict.fromkeys(("return_sequences", "return_state", "go_backwards", "stateful"), False),
        "zero_output_for_mask": False,
    },
    "Dense": {
        "dtype": "float32",
        "units": 1,
        "activation": "sigmoid",
        "use_bias": True,
        "quantization_config": None,
    },
}
"""What the settings of a network and of its layers must be where a file has them."""
FREE = (
    *("name", "trainable", "layers", "input_layers", "output_layers", "build_input_shape"),
    *("batch_shape", "unroll", "seed", "unit_forget_bias", "dropout", "recurrent_dropout"),
)
FREE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
"""Settings that do not change what a trained network predicts, or are looked at elsewhere."""


def write_weights(params: Params, config: Config) -> bytes:
    """Returns a .weights.h5 file."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, array in zip(NAMES, from_params(params, config.model), strict=True):
            file[name] = array
        for group in ("vars", "layers/lstm/vars"):
            file.create_group(group)
    return content.getvalue()


def write(params: Params, config: Config) -> bytes:
    """Returns a .keras file: a Sequential that maps digits [n, length, 1] to P(1)."""
    metadata = {"keras_version": "3.10.0", "date_saved": "1980-01-01@00:00:00"}
    members: dict[str, str | bytes] = {
        "metadata.json": json.dumps(metadata),
        "config.json": json.dumps(_network(config.model.cells)),
        WEIGHTS: write_weights(params, config),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), member)
    return content.getvalue()


def _network(cells: int) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {
        "InputLayer": {"batch_shape": [None, None, 1], "dtype": "float32", "name": "digits"},
        "LSTM": {"name": "lstm", "units": cells},
        "Dense": {"name": "dense", "units": 1, "activation": "sigmoid"},
    }
    layers = [
        {"module": "keras.layers", "class_name": kind, "config": config}
        for kind, config in settings.items()
    ]
    config = {"name": "sumrnn", "layers": layers, "build_input_shape": [None, None, 1]}
    network = {"module": "keras", "class_name": "Sequential", "config": config}
    return network | {"registered_name": None, "build_config": {"input_shape": [None, None, 1]}}


def read(content: bytes, model: ModelConfig) -> Params:
    """Returns the parameters in a .keras file; raises `UserError` if its network is another."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _require_network(json.loads(_member(archive, "config.json", model.cells)), model.cells)
        return read_weights(_member(archive, WEIGHTS, model.cells), model)


def _member(archive: zipfile.ZipFile, name: str, cells: int) -> bytes:
    """The content of a file in a .keras file."""
    info = archive.getinfo(name)
    require_size(name, info.file_size, cells)
    # Of other kinds no piece can be read that may not become very large.
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    require(plain, name, f"compressed by method {info.compress_type}", "stored or deflated")
    with archive.open(info) as file:
        return file.read(info.file_size)


def _require_network(network: Any, cells: int) -> None:
    """Raises `UserError` unless a network is LSTM and Dense as ours, with nothing unknown."""
    require(_kind(network) in NETWORKS, "network", _kind(network), f"one of {NETWORKS}")
    config, functional = network["config"], _kind(network) == NETWORKS[1]
    kinds = tuple(layer["class_name"] for layer in config["layers"])
    chain = kinds == LAYERS or (kinds == LAYERS[1:] and not functional)
    require(chain, "layers", ", ".join(kinds), ", ".join(LAYERS))
    _require_settings("network", config, cells)
    for kind, layer in zip(kinds, config["layers"], strict=True):
        standard = ("keras.layers", kind, None)
        require(_kind(layer) == standard, kind, _kind(layer), f"Keras's own, {standard}")
        _require_settings(kind, layer["config"], cells)
    if functional:
        _require_chain(config)


def _kind(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """Module, class and registered name of a network or layer."""
    return tuple(part.get(name) for name in ("module", "class_name", "registered_name"))


def _require_settings(kind: str, config: Mapping[str, Any], cells: int) -> None:
    needed = {"units": cells} | SETTINGS[kind]
    # A Dense has no activation by default; the defaults of an LSTM are ours.
    defaults = {"activation": None} if kind == "Dense" else {}
    for name, value in {**defaults, **config}.items():
        if name not in FREE and not name.endswith(FREE_ENDINGS):
            require(name in needed, f"{kind}.{name}", value, "left out (not known here)")
            value = _policy(value) if name == "dtype" else value
            require(value == needed[name], f"{kind}.{name}", value, repr(needed[name]))


def _policy(dtype: Any) -> Any:
    """The name of a policy of Keras's own; what is none, as it is."""
    match dtype:
        case {"module": "keras", "class_name": "DTypePolicy", "registered_name": None}:
            return dtype["config"]["name"]
    return dtype


def _require_chain(config: Mapping[str, Any]) -> None:
    """Raises `UserError` unless layers are a chain from the one input to the one output."""
    layers = config["layers"]
    tensors = [[layer["config"]["name"], 0, 0] for layer in layers]
    for name, needed in (("input_layers", tensors[0]), ("output_layers", tensors[-1])):
        require(config[name] in (needed, [needed]), f"network.{name}", config[name], str(needed))
    for before, layer in zip(tensors, layers[1:], strict=False):
        kind, nodes = layer["class_name"], layer["inbound_nodes"]
        inputs = [[_tensor(argument) for argument in node["args"]] for node in nodes]
        require(inputs == [[before]], f"{kind}.inbound_nodes", inputs, str([[before]]))
        options = {name: value for name, value in nodes[0]["kwargs"].items() if value}
        require(not options, f"{kind}.kwargs", options, "left out")


def _tensor(argument: Any) -> Any:
    """Layer, call and output that a layer is called with."""
    return argument["config"]["keras_history"] if isinstance(argument, dict) else argument


def read_weights(content: bytes, model: ModelConfig) -> Params:
    """Returns the parameters in a .weights.h5 file, which does not say what network they are of.

    Raises `UserError` if its layers or their arrays are others than ours, or lie in other files.
    """
    import h5py

    def outside(name: str, link: Any) -> Any:
        return None if isinstance(link, h5py.HardLink) else (name, link)

    with h5py.File(io.BytesIO(content), "r") as file:
        link = file.visititems_links(outside)
        require(link is None, "links", link, "left out (all must be in this file itself)")
        if "model_weights" in file or "layer_names" in file.attrs:
            raise UserError("it is of Keras 2; Keras 3 reads it and saves it as .keras")
        layers = sorted(file.get("layers", {}).keys() - {"input_layer"})
        require(layers == ["dense", "lstm"], "layers", ", ".join(layers), "dense, lstm")
        for group, kinds in VARIABLES.items():
            names = ", ".join(sorted(file.get(group, ())))
            needed = ", ".join(map(str, range(len(kinds))))
            require(names == needed, group, names, f"{needed}: {', '.join(kinds)}")
        arrays = [file[name] for name in NAMES]
        for name, array, shape in zip(NAMES, arrays, shapes(model.cells), strict=True):
            require_array(name, str(array.dtype), array.shape, shape, model.cells)
            whole = not (array.is_virtual or array.external or array.chunks)
            require(whole, name, array, "stored in one piece, in this file itself")
        return to_params(Arrays(*map(np.asarray, arrays)), model)
