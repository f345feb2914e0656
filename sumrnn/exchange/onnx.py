"""The trained network as an ONNX file, for onnxruntime and others: its own LSTM operator."""

from typing import Any

import numpy as np

from sumrnn.exchange.layout import Layout

ORDER = (0, 3, 1, 2)
"""Of the gates i, f, g, o in ONNX: i, o, f, g."""
OPSET = 17
AXES = {"last": 2, "direction": 0, "column": 1}


def write(layout: Layout) -> bytes:
    """Maps digits uint8 [batch, length], any length from 1, to probability float32 [batch]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    cells = layout.cells

    def gates(array: np.ndarray) -> np.ndarray:
        parts = np.split(array, 4, axis=-1)
        return np.concatenate([parts[i] for i in ORDER], axis=-1)

    constants = {
        "W": gates(layout.inputs).T[None],
        "R": gates(layout.recurrent).T[None],
        "B": np.concatenate((gates(layout.bias), np.zeros_like(layout.bias)))[None],
        "kernel": layout.output,
        "bias": layout.output_bias,
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
        ("LSTM", ["x", "W", "R", "B"], ["", "hidden"], {"hidden_size": cells}),
        ("Squeeze", ["hidden", "direction"], ["h"], {}),
        ("Gemm", ["h", "kernel", "bias"], ["z"], {}),
        ("Squeeze", ["z", "column"], ["all"], {}),
        ("Slice", ["all", "direction", "end"], ["logit"], {}),
        ("Sigmoid", ["logit"], ["probability"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given, out, **more) for kind, given, out, more in steps],
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
