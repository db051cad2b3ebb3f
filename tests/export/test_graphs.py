"""Rewriting of ONNX graphs on a small one made here: products in int8, constants in half precision, folding."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from showtell.export.graphs import fold_constants, quantize_products, store_half

WIDTHS, OUT = (24, 40), 1100  # as many scales as make a large constant
Inputs = dict[str, np.ndarray]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = [a, relu(b)] W + c + (table[id] V + d), and z = a S with a small S; W is stored transposed."""
    rng = np.random.default_rng(0)
    constants = {
        "transposed": rng.normal(size=(OUT, sum(WIDTHS))).astype(np.float32),
        "c": rng.normal(size=OUT).astype(np.float32),
        "table": rng.normal(size=(30, 40)).astype(np.float32),
        "V": rng.normal(size=(40, OUT)).astype(np.float32),
        "d": rng.normal(size=OUT).astype(np.float32),
        "S": rng.normal(size=(WIDTHS[0], 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Relu", ["b"], ["positive"], name="relu"),
        helper.make_node("Concat", ["a", "positive"], ["joined"], axis=-1, name="join"),
        helper.make_node("Transpose", ["transposed"], ["W"], perm=[1, 0], name="transpose"),
        helper.make_node("MatMul", ["joined", "W"], ["product"], name="product"),
        helper.make_node("Add", ["product", "c"], ["of products"], name="add c"),
        helper.make_node("Gather", ["table", "id"], ["row"], name="look-up"),
        helper.make_node("MatMul", ["row", "V"], ["of row"], name="product of row"),
        helper.make_node("Add", ["d", "of row"], ["of id"], name="add d"),
        helper.make_node("Add", ["of products", "of id"], ["y"], name="add"),
        helper.make_node("MatMul", ["a", "S"], ["z"], name="small"),
    ]
    widths = {"a": WIDTHS[0], "b": WIDTHS[1], "positive": WIDTHS[1], "y": OUT, "z": 2}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name, width in widths.items()}
    id_ = helper.make_tensor_value_info("id", TensorProto.INT64, ["rows"])
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [values["a"], values["b"], id_],
            [values["y"], values["z"]],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
            value_info=[values["positive"]],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return path


def inputs(rows: int, seed: int = 1) -> Inputs:
    """`b` is ten times as wide as `a`."""
    rng = np.random.default_rng(seed)
    return {
        "a": rng.uniform(-1, 1, (rows, WIDTHS[0])).astype(np.float32),
        "b": rng.uniform(-10, 10, (rows, WIDTHS[1])).astype(np.float32),
        "id": rng.integers(0, 30, rows),
    }


def run(path: Path, given: Inputs, *, exactly: bool = False) -> list[np.ndarray]:
    """The graph's outputs; `exactly` computes int8 operators as they are written, in float32."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if exactly else levels.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, given)


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_folding_keeps_values_and_operator_sets(graph: Path) -> None:
    before = run(graph, inputs(5))
    fold_constants(graph)
    assert "Transpose" not in kinds(graph)
    assert kinds(graph).count("MatMul") == 2  # the looked-up row's is part of the table now
    assert [(opset.domain, opset.version) for opset in onnx.load(graph).opset_import] == [("", 18)]
    for old, new in zip(before, run(graph, inputs(5)), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)


def test_int8_products_are_close_and_joined_ranges_apart(graph: Path) -> None:
    fold_constants(graph)
    given = inputs(200)
    before = run(graph, given)
    size = graph.stat().st_size
    quantize_products(graph, [inputs(100, seed) for seed in range(3)])
    assert graph.stat().st_size < 0.9 * size
    assert kinds(graph).count("QuantizeLinear") == 2  # `a` and `positive` have ranges of their own
    assert "Concat" not in kinds(graph)
    scales = {
        c.name: float(numpy_helper.to_array(c))
        for c in onnx.load(graph).graph.initializer
        if c.name in ("a.scale", "positive.scale")
    }
    assert scales["a.scale"] == pytest.approx(2 / 255, rel=0.01)
    assert scales["positive.scale"] == pytest.approx(10 / 255, rel=0.01)
    after = run(graph, given)
    assert np.abs(after[0] - before[0]).mean() < 0.02 * np.abs(before[0]).mean()


def test_looked_up_rows_become_int8(graph: Path) -> None:
    fold_constants(graph)
    rows = {"a": np.zeros((30, WIDTHS[0]), np.float32), "b": np.zeros((30, WIDTHS[1]), np.float32), "id": np.arange(30)}
    before = run(graph, rows)[0]
    c = next(numpy_helper.to_array(c) for c in onnx.load(graph).graph.initializer if c.name == "c")
    quantize_products(graph, [inputs(100)])
    [table] = [c for c in onnx.load(graph).graph.initializer if list(c.dims) == [30, OUT]]
    assert table.data_type == TensorProto.INT8
    step = np.abs(before - c).max(0) / 127
    assert (np.abs(run(graph, rows)[0] - before) <= 0.51 * step).all()


def test_int8_arithmetic_cannot_overflow_on_any_processor(graph: Path) -> None:
    """Largest activations by largest weights of one sign: in 8 bits each, processors without VNNI would cap such sums."""
    model = onnx.load(graph)
    [weights] = [constant for constant in model.graph.initializer if constant.name == "transposed"]
    weights.CopyFrom(numpy_helper.from_array(np.ones((OUT, sum(WIDTHS)), np.float32), "transposed"))
    onnx.save(model, graph)
    fold_constants(graph)
    quantize_products(graph, [inputs(100)])
    given = {
        "a": np.ones((4, WIDTHS[0]), np.float32),
        "b": np.full((4, WIDTHS[1]), 10, np.float32),
        "id": np.zeros(4, np.int64),
    }
    for fast, exact in zip(run(graph, given), run(graph, given, exactly=True), strict=True):
        np.testing.assert_allclose(fast, exact, rtol=1e-4)
    np.testing.assert_allclose(run(graph, inputs(50))[0], run(graph, inputs(50), exactly=True)[0], rtol=1e-3, atol=1e-2)


def test_a_row_does_not_depend_on_the_rows_beside_it(graph: Path) -> None:
    fold_constants(graph)
    quantize_products(graph, [inputs(100)])
    given = inputs(9)
    together = run(graph, given)[0]
    alone = np.concatenate([run(graph, {name: value[row : row + 1] for name, value in given.items()})[0] for row in range(9)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_half_precision_leaves_int8_scales_alone(graph: Path) -> None:
    fold_constants(graph)
    quantize_products(graph, [inputs(100)])
    before = run(graph, inputs(7))
    store_half(graph)
    stored = {constant.name: constant.data_type for constant in onnx.load(graph).graph.initializer}
    assert stored["c.half"] == TensorProto.FLOAT16
    assert [name for name in stored if name.endswith(".half")] == ["c.half"]
    for old, new in zip(before, run(graph, inputs(7)), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-3, atol=2e-2)
