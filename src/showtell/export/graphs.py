"""Rewriting ONNX graphs for speed and size: constants and padding folded, products in int8, other constants in half precision.

A decoder's products are quantised statically: int8 weights with one scale a column, uint8 activations with one scale a tensor,
from ranges seen on photos (Jacob et al. 2018). So what becomes of a photo does not depend on the others in its batch, as it
would with scales found on the way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from showtell.arrays import Array

# Weights use 7 bits. Processors without VNNI add products in pairs in 16 bits, which 8 bits of weights by 8 of activations can
# overflow (255 * 127 * 2 > 32767); so all processors compute the same, and it costs no accuracy that can be measured.
_TOP = 63
# Range of an activation: all but so much of its values at either end, in percent. A few gated features are 30 times the others.
_OUTLIERS = 0.01
_LARGE = 1024  # constants of fewer numbers are left alone
_SCALE = ".scale"  # end of the names of what int8 is multiplied by


def fold_constants(path: Path) -> None:
    """Computes values that depend on constants alone, such as transposed weights, for any processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    model = onnx.load(path)
    _look_up_last(model.graph)
    kept = ["MatMulAddFusion"]  # it turns a product into another operator
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=kept
    )
    folded = onnx.load(path)
    # onnxruntime lists every operator set that it knows, and an older one would refuse those that it does not.
    del folded.opset_import[:]
    folded.opset_import.extend(model.opset_import)
    onnx.save(folded, path)


def fold_padding(path: Path) -> None:
    """Moves the zeros of Pad nodes into the convolutions that read them, so that int8 has one step less."""
    model = onnx.load(path)
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [node for node in graph.node if node.op_type == "Pad"]:
        convolution, *others = readers[node.output[0]]
        if others or convolution.op_type != "Conv" or node.input[1] not in constants:
            continue
        zeros = numpy_helper.to_array(constants[node.input[1]]).tolist()
        sides = len(zeros) // 2
        own = next(attribute for attribute in convolution.attribute if attribute.name == "pads")
        added = zeros[2:sides] + zeros[sides + 2 :]  # of height and width; images and channels have none
        own.ints[:] = [before + more for before, more in zip(own.ints, added, strict=True)]
        convolution.input[0] = node.input[0]
        graph.node.remove(node)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantize_products(path: Path, inputs: Sequence[Mapping[str, Array]]) -> None:
    """Replaces the products with large constant matrices by int8 ones; `inputs` are of the graph, from typical photos.

    A product with joined activations becomes one for each, since their ranges may be far apart. Large constants that rows are
    looked up in become int8 too.
    """
    model = onnx.load(path)
    _split_joined_products(model.graph)
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and _is_large(constants.get(node.input[1]))]
    look_ups = [node for node in graph.node if _is_look_up(node) and _is_large(constants.get(node.input[0]))]
    read_whole = {name for node in graph.node for name in (node.input[1:] if node in look_ups else node.input)}
    tables = {node.input[0] for node in look_ups} - read_whole
    ranges = _ranges(model, {node.input[0] for node in products}, inputs)
    quantized: set[str] = set()
    nodes = []
    for node in graph.node:
        if node in products:
            activation, weight = node.input
            if activation not in quantized:
                quantized.add(activation)
                nodes += _quantize_activation(graph, activation, *ranges[activation])
            if weight in constants:
                nodes.append(_quantize_weight(graph, constants.pop(weight)))
            node.input[0], node.input[1] = f"{activation}.dequantized", f"{weight}.dequantized"
        elif node.input and node.input[0] in tables:
            if node.input[0] in constants:
                _store_int8(graph, constants.pop(node.input[0]), 127)
            nodes += _look_up_int8(node)
            continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def store_half(path: Path) -> None:
    """Stores a graph's large float32 constants as float16, each widened again by a Cast that is folded when a session loads."""
    model = onnx.load(path)
    graph = model.graph
    casts = []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT or constant.name.endswith(_SCALE) or not _is_large(constant):
            continue
        name = constant.name
        half = numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), f"{name}.half")
        constant.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    for number, cast in enumerate(casts):
        graph.node.insert(number, cast)
    onnx.save(model, path)


def _is_large(constant: onnx.TensorProto | None) -> bool:
    return constant is not None and int(np.prod(constant.dims)) >= _LARGE


def _is_look_up(node: onnx.NodeProto) -> bool:
    """Whether it takes rows of a matrix, or whatever else the first axis of its first input counts."""
    return node.op_type == "Gather" and not any(attribute.name == "axis" and attribute.i for attribute in node.attribute)


def _look_up_last(graph: onnx.GraphProto) -> None:
    """C[i] W + b, with C, W and b constant, becomes (C W + b)[i]: a look-up in a constant, too."""
    constants = {constant.name for constant in graph.initializer}
    for node in graph.node:
        if all(name in constants for name in node.input):
            constants.update(node.output)

    def reader(node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        """The only node that reads what `node` makes, if it is of that kind and reads only constants besides."""
        found = [other for other in graph.node if node.output[0] in other.input]
        others = [name for other in found for name in other.input if name != node.output[0]]
        return found[0] if [one.op_type for one in found] == [kind] and constants.issuperset(others) else None

    for look_up in [node for node in graph.node if _is_look_up(node) and node.input[0] in constants]:
        product = reader(look_up, "MatMul")
        total = product and reader(product, "Add")
        if not product or not total or product.input[0] != look_up.output[0]:
            continue
        graph.node.remove(look_up)
        product.input[0] = look_up.input[0]
        look_up.output[0], total.output[0] = total.output[0], f"{total.output[0]}.table"
        look_up.input[0] = total.output[0]
        graph.node.insert(list(graph.node).index(total) + 1, look_up)


def _split_joined_products(graph: onnx.GraphProto) -> None:
    """[a, b] W becomes a W1 + b W2, where W's rows are told apart by constants that were joined in halves of known length."""
    constants = {constant.name: constant for constant in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    widths = {value.name: value.type.tensor_type.shape.dim[-1].dim_value for value in _known_shapes(graph)}
    for place, node in reversed(list(enumerate(graph.node))):
        joined = makers.get(node.input[0]) if node.op_type == "MatMul" and node.input[1] in constants else None
        if joined is None or joined.op_type != "Concat" or not all(widths.get(name) for name in joined.input):
            continue
        rows = numpy_helper.to_array(constants[node.input[1]])
        ends = np.cumsum([widths[name] for name in joined.input])
        if ends[-1] != len(rows):
            continue  # joined along another axis
        graph.initializer.remove(constants.pop(node.input[1]))
        parts = []
        for number, (name, part) in enumerate(zip(joined.input, np.split(rows, ends[:-1]), strict=True)):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part), f"{node.input[1]}.{number}"))
            product = [name, f"{node.input[1]}.{number}"]
            parts.append(helper.make_node("MatMul", product, [f"{node.output[0]}.{number}"], name=f"{node.name}.{number}"))
        total = helper.make_node("Sum", [part.output[0] for part in parts], list(node.output), name=f"{node.name}.sum")
        del graph.node[place]
        for part in (total, *reversed(parts)):
            graph.node.insert(place, part)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if not read & set(node.output)]:
        graph.node.remove(node)


def _known_shapes(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [
        value
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape") and value.type.tensor_type.shape.dim
    ]


def _ranges(model: onnx.ModelProto, names: set[str], inputs: Sequence[Mapping[str, Array]]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each of the tensors, outliers aside; zero is always between them."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in model.graph.input}
    computed = sorted(names - given)
    present = {value.name for value in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed if name not in present)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    values: dict[str, list[Array]] = {name: [] for name in names}
    for one in inputs:
        found = dict(zip(computed, session.run(computed, dict(one)) if computed else [], strict=True))
        for name in names:
            values[name].append((found[name] if name in found else one[name]).ravel())
    ranges = {}
    for name, parts in values.items():
        low, high = np.percentile(np.concatenate(parts), (_OUTLIERS, 100 - _OUTLIERS))
        ranges[name] = min(float(low), 0.0), max(float(high), 0.0)
    return ranges


def _quantize_activation(graph: onnx.GraphProto, name: str, low: float, high: float) -> list[onnx.NodeProto]:
    scale = np.float32(max(high - low, 1e-6) / 255)
    zero = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(scale), f"{name}{_SCALE}"), numpy_helper.from_array(np.array(zero), f"{name}.zero")]
    )
    how = [f"{name}{_SCALE}", f"{name}.zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *how], [f"{name}.quantized"], name=f"{name}.quantize"),
        helper.make_node("DequantizeLinear", [f"{name}.quantized", *how], [f"{name}.dequantized"], name=f"{name}.dequantize"),
    ]


def _look_up_int8(look_up: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The same rows of the table in int8, widened after they were looked up."""
    (table, indices), [rows] = look_up.input, look_up.output
    return [
        helper.make_node("Gather", [f"{table}.int8", indices], [f"{rows}.int8"], name=look_up.name, axis=0),
        # Like DequantizeLinear, which takes several times as long.
        helper.make_node("Cast", [f"{rows}.int8"], [f"{rows}.float"], name=f"{look_up.name}.widen", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{rows}.float", f"{table}{_SCALE}"], [rows], name=f"{look_up.name}.scale"),
    ]


def _quantize_weight(graph: onnx.GraphProto, constant: onnx.TensorProto) -> onnx.NodeProto:
    name = constant.name
    columns = _store_int8(graph, constant, _TOP)
    graph.initializer.append(numpy_helper.from_array(np.zeros(columns, np.int8), f"{name}.zero"))
    inputs = [f"{name}.int8", f"{name}{_SCALE}", f"{name}.zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantized"], name=f"{name}.dequantize", axis=1)


def _store_int8(graph: onnx.GraphProto, constant: onnx.TensorProto, top: int) -> int:
    """Replaces a matrix by one of whole numbers of at most `top` and a scale a column; how many columns there are."""
    values = numpy_helper.to_array(constant)
    scales = (np.maximum(np.abs(values).max(0), 1e-9) / top).astype(np.float32)
    graph.initializer.remove(constant)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.round(values / scales).astype(np.int8), f"{constant.name}.int8"),
            numpy_helper.from_array(scales, f"{constant.name}{_SCALE}"),
        ]
    )
    return len(scales)
