"""The torch networks of a bundle, from its ONNX graphs: int8 weights are widened to float32, exactly as the runtime uses them.

A bundle holds all that training needs. Batch normalisation is folded into the convolutions before it, so that the encoder's
normalisations come out as identities with the convolutions' biases. The decoder's word gates are stored as a table of their
values for each word; the layer that made it is its least-squares solution over the embeddings.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from showtell.arrays import Array
from showtell.errors import CheckpointError
from showtell.nn import decoders, encoders
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.nn.decoders import Decoder
from showtell.nn.encoder import Encoder


class _Graph:
    """An ONNX graph whose constants are computed: `constants` by the names of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.constants: dict[str, Array] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        for node in self.nodes:
            if node.op_type in _FOLDED and all(name in self.constants for name in node.input):
                self.constants[node.output[0]] = _FOLDED[node.op_type](node, *(self.constants[name] for name in node.input))

    def readers(self, name: str) -> Iterator[onnx.NodeProto]:
        """The nodes that read the tensor."""
        return (node for node in self.nodes if name in node.input)

    def maker(self, name: str) -> onnx.NodeProto:
        """The node that makes the tensor."""
        node: onnx.NodeProto = next(node for node in self.nodes if name in node.output)
        return node

    def linear(self, bias: str) -> Array:
        """The weight (outputs, inputs) of the linear layer whose bias has this name."""
        node = next(self.readers(bias))
        if node.op_type == "Gemm":
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            weight = self.constants[node.input[1]]
            return weight if transposed else weight.T
        [product] = [name for name in node.input if name != bias]
        return self.constants[self.maker(product).input[1]].T


def widened_encoder(config: encoders.Config, path: Path) -> Encoder:
    """The encoder of encoder.onnx. Raises CheckpointError where the graph is not of this config."""
    constants = _Graph(path).constants
    network = encoders.build(config)
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if not isinstance(module, nn.Conv2d):
            continue
        norm = modules[_norm_of(name)]
        weight, bias = (
            constants.get(f"{name}.{part}", constants.get(f"{name}.{part}_DequantizeLinear_Output"))
            for part in ("weight", "bias")
        )
        if weight is None or weight.shape != tuple(module.weight.shape) or not isinstance(norm, nn.BatchNorm2d):
            raise CheckpointError(f"{path}: has no weights of {name}; it is no encoder that showtell exported")
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.array(weight)))
            norm.bias.copy_(torch.from_numpy(np.array(bias)) if bias is not None else torch.zeros(()))  # zeros are not exported
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
    return network.eval()


def widened_decoder(config: decoders.Config, folder: Path) -> Decoder:
    """The decoder of prepare.onnx and step.onnx. Raises CheckpointError where it is of another kind than attention-lstm."""
    if not isinstance(config, DecoderConfig):
        raise CheckpointError(f"{folder}: a bundle of a {config.kind} decoder cannot be trained; give its checkpoint or run")
    prepare, step = _Graph(folder / "prepare.onnx"), _Graph(folder / "step.onnx")
    network = AttentionLSTM(config)
    try:
        [keys] = [node for node in prepare.nodes if node.op_type == "MatMul" and node.output[0] == "keys"]
        embedding = step.linear("decoder.vocabulary_bias")
        table, gates = _word_table(step)
        word_gates, *_ = np.linalg.lstsq(
            np.hstack([embedding, np.ones((len(embedding), 1))]).astype(np.float64), table, rcond=None
        )
        [softmax] = [node for node in step.nodes if node.op_type == "Softmax"]
        score = step.maker(step.maker(softmax.input[0]).input[0])
        weights = {
            "keys.weight": prepare.constants[keys.input[1]].T,
            "initial.weight": prepare.linear("decoder.initial.bias"),
            "initial.bias": prepare.constants["decoder.initial.bias"],
            "attention.query.weight": step.linear("decoder.attention.query.bias"),
            "attention.query.bias": step.constants["decoder.attention.query.bias"],
            "attention.score.weight": step.constants[score.input[1]].T,
            "gate.weight": step.linear("decoder.gate.bias"),
            "gate.bias": step.constants["decoder.gate.bias"],
            "embedding.weight": embedding,
            "word_gates.weight": word_gates[:-1].T,
            "word_gates.bias": word_gates[-1],
            "state_gates.weight": _state_gates(step, gates).T,
            "vocabulary_bias": step.constants["decoder.vocabulary_bias"],
        }
        network.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()})
    except (KeyError, StopIteration, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: its decoder is not of the form that showtell exports ({error})") from None
    return network.eval()


def _word_table(step: _Graph) -> tuple[Array, str]:
    """The word gates of each word (V, 4H), and the name of the tensor that is added to them."""
    look_up = next(node for node in step.nodes if node.op_type == "Gather" and "tokens" in node.input)
    name, rows = look_up.input[0], look_up.output[0]
    table = step.constants[name].astype(np.float32)
    while (node := next(step.readers(rows))).op_type in ("Cast", "Mul"):
        table = table * step.constants[node.input[1]] if node.op_type == "Mul" else table
        rows = node.output[0]
    return table, next(other for other in node.input if other != rows)


def _state_gates(step: _Graph, gates: str) -> Array:
    """The weight (H + D, 4H) of the product that makes the tensor `gates`, of one product or of the sum of two."""
    node = step.maker(gates)
    if node.op_type == "MatMul":
        return step.constants[node.input[1]]
    products = sorted(map(step.maker, node.input), key=lambda product: not product.input[0].startswith("hidden"))
    return np.concatenate([step.constants[product.input[1]] for product in products])


def _dequantized(node: onnx.NodeProto, numbers: Array, scale: Array, zero: Array) -> Array:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if place == axis and scale.ndim else 1 for place in range(numbers.ndim)]
    return ((numbers.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)).astype(np.float32)


def _quantized(node: onnx.NodeProto, values: Array, scale: Array, zero: Array) -> Array:
    return np.clip(np.round(values / scale) + zero, 0, 255)


# Operators on constants alone; export leaves them all in a table of few words.
_FOLDED: dict[str, Callable[..., Array]] = {
    "Cast": lambda node, values: values.astype(np.float32),
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _dequantized,
    "MatMul": lambda node, values, weight: values @ weight,
    "Add": lambda node, values, bias: values + bias,
}


def _norm_of(convolution: str) -> str:
    """The name of the batch normalisation after a convolution: bn2 after conv2, and 1 after 0 in a sequence."""
    head, dot, last = convolution.rpartition(".")
    return head + dot + ("1" if last == "0" else last.replace("conv", "bn"))
