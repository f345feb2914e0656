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

from sumrnn.errors import UserError, require
from sumrnn.exchange.layout import Layout, check, check_size, shapes

WEIGHTS = "model.weights.h5"
VARIABLES = {
    "layers/lstm/cell/vars": ("kernel", "recurrent kernel", "bias"),
    "layers/dense/vars": ("kernel", "bias"),
}
"""Groups of a .weights.h5 file, and what their arrays are, called 0, 1, ..."""
NAMES = [f"{group}/{i}" for group, kinds in VARIABLES.items() for i in range(len(kinds))]
"""Of the arrays of a `Layout`, in its order."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""A file's date in a .keras file, so that the same network is the same bytes."""
NETWORKS = (
    ("keras", "Sequential", None),
    ("keras.src.models.functional", "Functional", "Functional"),
)
"""Module, class and registered name of Keras's own."""
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {"dtype": "float32"},
    "InputLayer": {"dtype": "float32", "sparse": False, "ragged": False, "optional": False},
    "LSTM": {
        "dtype": "float32",
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "return_sequences": False,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
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
"""What they must be."""
FREE = (
    *("name", "trainable", "layers", "input_layers", "output_layers", "build_input_shape"),
    *("batch_shape", "unroll", "seed", "unit_forget_bias", "dropout", "recurrent_dropout"),
)
FREE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
"""Settings that do not change what a trained network answers, or are looked at elsewhere."""


def write_weights(layout: Layout) -> bytes:
    """A .weights.h5 file."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as found:
        for name, array in zip(NAMES, layout, strict=True):
            found[name] = array
        for group in ("vars", "layers/lstm/vars"):
            found.create_group(group)
    return file.getvalue()


def write(layout: Layout) -> bytes:
    """A .keras file: a Sequential of LSTM and Dense that maps digits [n, length, 1] to P(1)."""
    file = io.BytesIO()
    metadata = {"keras_version": "3.10.0", "date_saved": "1980-01-01@00:00:00"}
    parts: dict[str, str | bytes] = {
        "metadata.json": json.dumps(metadata),
        "config.json": json.dumps(_network(layout.cells)),
        WEIGHTS: write_weights(layout),
    }
    with zipfile.ZipFile(file, "w") as found:
        for name, content in parts.items():
            found.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return file.getvalue()


def _network(cells: int) -> dict[str, Any]:
    def layer(kind: str, **config: Any) -> dict[str, Any]:
        return {"module": "keras.layers", "class_name": kind, "config": config}

    layers = [
        layer("InputLayer", batch_shape=[None, None, 1], dtype="float32", name="digits"),
        layer("LSTM", name="lstm", units=cells),
        layer("Dense", name="dense", units=1, activation="sigmoid"),
    ]
    config = {"name": "sumrnn", "layers": layers, "build_input_shape": [None, None, 1]}
    build = {"input_shape": [None, None, 1]}
    network = {"module": "keras", "class_name": "Sequential", "config": config}
    return network | {"registered_name": None, "build_config": build}


def read(content: bytes, cells: int) -> Layout:
    """The weights of a .keras file; raises `UserError` if its network is another than ours."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check(json.loads(_member(archive, "config.json", cells)), cells)
        return read_weights(_member(archive, WEIGHTS, cells), cells)


def _member(archive: zipfile.ZipFile, name: str, cells: int) -> bytes:
    """What a file in a .keras file holds."""
    info = archive.getinfo(name)
    check_size(name, info.file_size, cells)
    # Of other kinds no piece can be read that may not become very large.
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    require(plain, name, f"compressed by method {info.compress_type}", "stored or deflated")
    with archive.open(info) as file:
        return file.read(info.file_size)


def _check(network: Any, cells: int) -> None:
    """Raises `UserError` unless a network is LSTM and Dense as ours, with nothing unknown."""
    require(_kind(network) in NETWORKS, "network", _kind(network), f"one of {NETWORKS}")
    config, functional = network["config"], network["class_name"] == "Functional"
    kinds = [layer["class_name"] for layer in config["layers"]]
    first = kinds[:1] == ["InputLayer"]
    chain = kinds[first:] == ["LSTM", "Dense"] and (first or not functional)
    require(chain, "layers", ", ".join(kinds), "InputLayer, LSTM, Dense")
    _check_settings("network", config, cells)
    for kind, layer in zip(kinds, config["layers"], strict=True):
        standard = ("keras.layers", kind, None)
        require(_kind(layer) == standard, kind, _kind(layer), f"Keras's own, {standard}")
        _check_settings(kind, layer["config"], cells)
    if functional:
        _check_links(config)


def _kind(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """Module, class and registered name."""
    return tuple(part.get(name) for name in ("module", "class_name", "registered_name"))


def _check_settings(kind: str, config: Mapping[str, Any], cells: int) -> None:
    needed = {"units": cells} | SETTINGS[kind]
    settings = dict(config)
    if kind == "Dense":
        settings.setdefault("activation", None)  # As Keras does; those of an LSTM are ours.
    for name, value in settings.items():
        if name in FREE or name.endswith(FREE_ENDINGS):
            continue
        require(name in needed, f"{kind}.{name}", value, "left out (not known here)")
        has = _policy(value) if name == "dtype" else value
        require(has == needed[name], f"{kind}.{name}", has, repr(needed[name]))


def _policy(dtype: Any) -> Any:
    """The name of a policy of Keras's own; what is none, as it is."""
    match dtype:
        case {
            "module": "keras",
            "class_name": "DTypePolicy",
            "registered_name": None,
            "config": {"name": name},
        }:
            return name
    return dtype


def _check_links(config: Mapping[str, Any]) -> None:
    """Raises `UserError` unless layers are a chain from the one input to the one output."""
    layers = config["layers"]
    outputs = [[layer["config"]["name"], 0, 0] for layer in layers]
    for name, needed in (("input_layers", outputs[0]), ("output_layers", outputs[-1])):
        require(config[name] in (needed, [needed]), f"network.{name}", config[name], str(needed))
    for before, layer in zip(outputs, layers[1:], strict=False):
        kind, nodes = layer["class_name"], layer["inbound_nodes"]
        origins = [[_origin(argument) for argument in node["args"]] for node in nodes]
        require(origins == [[before]], f"{kind}.inbound_nodes", origins, str([[before]]))
        options = {name: value for name, value in nodes[0]["kwargs"].items() if value}
        require(not options, f"{kind}.kwargs", options, "left out")


def _origin(argument: Any) -> Any:
    """Layer, call and output that a layer is called with."""
    return argument["config"]["keras_history"] if isinstance(argument, dict) else argument


def read_weights(content: bytes, cells: int) -> Layout:
    """The weights of a .weights.h5 file, which does not say what network they are of.

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
        for name, array, shape in zip(NAMES, arrays, shapes(cells), strict=True):
            check(name, str(array.dtype), array.shape, shape, cells)
            whole = not (array.is_virtual or array.external or array.chunks)
            require(whole, name, array, "stored in one piece, in this file itself")
        return Layout(*map(np.asarray, arrays))
