"""Weights as Keras 3 keeps them: .weights.h5, and .keras with the network around them.

Keras, like Flax, has the gates in the order i, f, g, o, side by side on the last axis, and one
bias.  Only h5py is needed, not Keras.
"""

import io
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from sumrnn.exchange.layout import Layout

WEIGHTS = "model.weights.h5"
LSTM = [f"layers/lstm/cell/vars/{i}" for i in range(3)]
DENSE = [f"layers/dense/vars/{i}" for i in range(2)]
EPOCH = (1980, 1, 1, 0, 0, 0)
"""A file's date in a .keras file, so that the same network is the same bytes."""


def write_weights(layout: Layout) -> bytes:
    """A .weights.h5 file."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as found:
        arrays = (layout.inputs, layout.recurrent, layout.bias)
        for name, array in zip(LSTM, arrays, strict=True):
            found[name] = array
        for name, array in zip(DENSE, (layout.output, layout.output_bias), strict=True):
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


def read(path: pathlib.Path) -> Layout:
    """The weights of a .keras file; raises `ValueError` if its layers are others than ours."""
    with zipfile.ZipFile(path) as found:
        _check(json.loads(found.read("config.json")))
        return read_weights(io.BytesIO(found.read(WEIGHTS)))


def _check(network: Any) -> None:
    """Raises `ValueError` unless a network is LSTM and Dense as ours."""
    layers = {layer["class_name"]: layer["config"] for layer in network["config"]["layers"]}
    kinds = [layer["class_name"] for layer in network["config"]["layers"]]
    kinds = [kind for kind in kinds if kind != "InputLayer"]
    if kinds != ["LSTM", "Dense"]:
        raise ValueError(f"its layers are {', '.join(kinds)}, needed are LSTM, Dense")
    needed = {
        "LSTM": {
            "activation": "tanh",
            "recurrent_activation": "sigmoid",
            "use_bias": True,
            "return_sequences": False,
            "go_backwards": False,
        },
        "Dense": {"units": 1, "activation": "sigmoid", "use_bias": True},
    }
    for kind, values in needed.items():
        for name, value in values.items():
            has = layers[kind].get(name, value)
            if has != value:
                raise ValueError(f"its {kind} has {name} = {has!r}, needed is {value!r}")


def read_weights(source: pathlib.Path | io.BytesIO) -> Layout:
    """The weights of a .weights.h5 file; raises `ValueError` if its layers are others than ours."""
    import h5py

    with h5py.File(source, "r") as found:
        if "model_weights" in found or "layer_names" in found.attrs:
            raise ValueError("it is of Keras 2; Keras 3 reads it and saves it as .keras")
        layers = sorted(found.get("layers", {}).keys() - {"input_layer"})
        if layers != ["dense", "lstm"]:
            names = ", ".join(layers) or "none"
            raise ValueError(f"its layers are {names}, needed are dense, lstm")
        arrays = [np.asarray(found[name]) for name in (*LSTM, *DENSE)]
    return Layout(*arrays)
