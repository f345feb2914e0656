"""The trained network as an ONNX file, for onnxruntime and others: its own LSTM operator."""

from typing import Any

import numpy as np

from sumrnn.config import Config
from sumrnn.exchange.arrays import from_params
from sumrnn.models.network import Params

ORDER = (0, 3, 1, 2)
"""Where the gates of ONNX, i, o, f, g, are among i, f, g, o."""
OPSET = 17
AXES = {"last": 2, "direction": 0, "column": 1}


def write(params: Params, config: Config) -> bytes:
    """Returns a model that maps digits uint8 [batch, length] to probability float32 [batch].

    It takes any length from 1, and any batch.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    arrays = from_params(params, config.model)

    def gates(array: np.ndarray) -> np.ndarray:
        parts = np.split(array, 4, axis=-1)
        return np.concatenate([parts[i] for i in ORDER], axis=-1)

    constants = {
        "W": gates(arrays.inputs).T[None],
        "R": gates(arrays.recurrent).T[None],
        "B": np.concatenate((gates(arrays.bias), np.zeros_like(arrays.bias)))[None],
        "kernel": arrays.output,
        "bias": arrays.output_bias,
        **{name: np.array([axis], np.int64) for name, axis in AXES.items()},
        "one_more": np.array([0, 0, 1, 0], np.int64),
        "end": np.array([-1], np.int64),
    }
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Cast", ["digits"], ["numbers"], {"to": TensorProto.FLOAT}),
        # A batch without series would end the process: there is one more, and no answer to it.
        ("Pad", ["numbers", "one_more"], ["inputs"], {}),
        ("Transpose", ["inputs"], ["by_step"], {"perm": [1, 0]}),
        ("Unsqueeze", ["by_step", "last"], ["x"], {}),
        ("LSTM", ["x", "W", "R", "B"], ["", "hidden"], {"hidden_size": config.model.cells}),
        ("Squeeze", ["hidden", "direction"], ["h"], {}),
        ("Gemm", ["h", "kernel", "bias"], ["z"], {}),
        ("Squeeze", ["z", "column"], ["all"], {}),
        ("Slice", ["all", "direction", "end"], ["logit"], {}),
        ("Sigmoid", ["logit"], ["probability"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in steps],
        "sumrnn",
        [helper.make_tensor_value_info("digits", TensorProto.UINT8, ["batch", "length"])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="sumrnn", opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString(deterministic=True)
    return written
