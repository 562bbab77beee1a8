"""A model as one ONNX graph: the matrix of features in, milliseconds out, in 64-bit floats but for one rounding.

The trees of the mean and of every head are one node each, see `onnx_trees`; baseline, mean ratio, load slices and
conformal offsets are nodes of ai.onnx around them. The input is ``features`` (n, len(FEATURES)), the outputs are
``mean_ms``, ``p50_ms``, ``p90_ms`` and ``p99_ms``, (n,) each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.exports.onnx_trees import SMALLEST, tree_ensemble
from lodestar.models.latency import LatencyModel
from lodestar.models.slices import EDGES, QUEUES
from lodestar.models.textmodel import trees_of

if TYPE_CHECKING:
    import onnx

__all__ = ["HOLDS", "answers", "graph_of", "write"]

Floats = NDArray[np.float64]

HOLDS: Final = (
    "the whole model: in, float64 'features' (n, features), columns as in 'features' of this manifest, NaN where one "
    "is not known; out, float64 'mean_ms', 'p50_ms', 'p90_ms' and 'p99_ms' (n)"
)
_INPUT: Final = "features"
_IR_VERSION: Final = 8  # of the year of these opsets, so that older runtimes read it
_OPSETS: Final = {"": 17, "ai.onnx.ml": 3}


def write(directory: Path, stem: str, model: LatencyModel) -> list[str]:
    """Write the graph; return the name of its file."""
    (directory / f"{stem}.onnx").write_bytes(graph_of(model).SerializeToString(deterministic=True))
    return [f"{stem}.onnx"]


def answers(directory: Path, stem: str, values: Mapping[str, Any], rows: Floats) -> dict[str, Floats]:
    """Return what the file makes of rows (n, len(FEATURES)): 'mean' and each quantile → ms, shape (n,)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        (directory / f"{stem}.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = ["mean", *values["quantile_shapes"]]
    found = session.run([f"{name}_ms" for name in names], {_INPUT: np.ascontiguousarray(rows, dtype=np.float64)})
    return {name: np.asarray(ms) for name, ms in zip(names, found, strict=True)}


def graph_of(model: LatencyModel) -> onnx.ModelProto:
    """Build the graph of a model whose splits take nothing but NaN as missing."""
    from onnx import TensorProto, checker, helper

    values, graph = model.to_dict(), _Graph()
    baseline_ms = _baseline_ms(graph, model)
    inputs = _inputs(graph, values["features"])
    shapes_ms = {}
    for head, text in model.texts().items():
        log_ratio = graph.add("Cast", tree_ensemble(graph, inputs, trees_of(text)), to=TensorProto.DOUBLE)
        ratio = graph.add("Exp", _flat(graph, log_ratio))
        shapes_ms[head or "mean"] = graph.add("Mul", baseline_ms, ratio)
    graph.add("Mul", shapes_ms["mean"], graph.constant(model.mean_ratio), out="mean_ms")
    _quantiles(graph, shapes_ms, values)
    outputs = ["mean_ms", *(f"{name}_ms" for name in values["quantile_shapes"])]
    made = helper.make_graph(
        graph.nodes,
        model.target,
        [helper.make_tensor_value_info(_INPUT, TensorProto.DOUBLE, ["n", len(FEATURE_NAMES)])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n"]) for name in outputs],
        graph.constants,
    )
    opsets = [helper.make_opsetid(domain, number) for domain, number in _OPSETS.items()]
    proto = helper.make_model(made, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="lodestar")
    checker.check_model(proto)
    return proto


class _Graph:
    """Nodes and constants of a graph that grows; every value gets a name of its own.

    Attributes:
        nodes: in the order in which they compute.
        constants: tensors that the nodes read.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of what it gives."""
        from onnx import helper

        name = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, value: object, dtype: type = np.float64) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name


def _columns(graph: _Graph, source: str, columns: object) -> str:
    return graph.add("Gather", source, graph.constant(columns, np.int64), axis=1)


def _flat(graph: _Graph, column: str) -> str:
    return graph.add("Reshape", column, graph.constant([-1], np.int64))


def _inputs(graph: _Graph, names: list[str]) -> str:
    """Pick the inputs of the trees; as LightGBM reads them, numbers up to `SMALLEST` are 0."""
    picked = _columns(graph, _INPUT, [FEATURE_NAMES.index(name) for name in names])
    tiny = graph.add("LessOrEqual", graph.add("Abs", picked), graph.constant(SMALLEST))
    return graph.add("Where", tiny, graph.constant(0.0), picked)


def _baseline_ms(graph: _Graph, model: LatencyModel) -> str:
    """Sum the terms of the baseline, (n,), within its floor and ceiling; a term with a missing feature adds nothing."""
    first, second, coefficient_ms = model.baseline.columns()

    def factor(columns: NDArray[np.int64]) -> str:
        named = _columns(graph, _INPUT, np.maximum(columns, 0))
        return graph.add("Where", graph.constant([columns < 0], np.bool_), graph.constant(1.0), named)

    work = graph.add("Mul", factor(first), factor(second))
    known = graph.add("Where", graph.add("IsNaN", work), graph.constant(0.0), work)
    total_ms = _flat(graph, graph.add("MatMul", known, graph.constant(coefficient_ms[:, None])))
    bounded_ms = graph.add("Max", total_ms, graph.constant(model.baseline.floor_ms))
    return graph.add("Min", bounded_ms, graph.constant(model.baseline.ceiling_ms))


def _quantiles(graph: _Graph, shapes_ms: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Add the quantiles, from the lowest on: none is below the one before, neither raw nor corrected."""
    offsets = graph.add("Gather", graph.constant(values["conformal"]["offsets"]), _slice(graph), axis=0)
    raw = corrected = ""
    for place, (name, shape) in enumerate(values["quantile_shapes"].items()):
        shape_ms = shapes_ms.get(shape, shapes_ms["mean"])
        raw = graph.add("Max", raw, shape_ms) if raw else shape_ms
        ratio = graph.add("Exp", _flat(graph, _columns(graph, offsets, [place])))
        lowest = corrected or graph.constant(0.0)
        corrected = graph.add("Max", lowest, graph.add("Mul", raw, ratio), out=f"{name}_ms")


def _slice(graph: _Graph) -> str:
    """Find the load slice of every row, (n,): how many of `EDGES` its queue reaches, the last where none is known."""
    from onnx import TensorProto

    queue = _columns(graph, _INPUT, [QUEUES[0]])
    for column in QUEUES[1:]:
        queue = graph.add("Where", graph.add("IsNaN", queue), _columns(graph, _INPUT, [column]), queue)
    reached = graph.add("Cast", graph.add("GreaterOrEqual", queue, graph.constant([EDGES])), to=TensorProto.INT64)
    count = graph.add("ReduceSum", reached, graph.constant([1], np.int64), keepdims=1)
    unknown = graph.constant(len(EDGES) + 1, np.int64)
    return _flat(graph, graph.add("Where", graph.add("IsNaN", queue), unknown, count))
