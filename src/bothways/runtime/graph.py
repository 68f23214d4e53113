"""An encoder with its head as one ONNX graph, built from the named weights of our own modules.

Inputs: `input_ids`, `attention_mask`, `token_type_ids` (B, T) as everywhere, and `reads` (K,), the places among the
B·T of the pieces that the head reads, row after row; output: `logits` (K, L). Behind the attention of the last
layer only those K pieces are computed, as nothing mixes pieces any more; heads of `READ_ONCE` read one piece of each
window, so that there the attention of the last layer has B queries alone.

Three forms of the same computation:
fp32         standard operators alone
int8         for ONNX Runtime: matrices in 8 bits, one scale a column; what they multiply is scaled as it comes
int8-static  standard operators with QuantizeLinear and DequantizeLinear, for any engine; scales fixed by calibration

B windows, T their longest length, K pieces read, C hidden width, H heads, D = C / H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from bothways.model.config import EncoderConfig
from bothways.model.families import READ_ONCE
from bothways.runtime.exports import Form

Weights = Mapping[str, np.ndarray]
Ranges = Mapping[str, tuple[float, float]]  # the least and the largest number that each linear layer is given
Given = tuple[str, ...]  # what products multiply: a tensor, or 8-bit numbers with their scale and zero
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET, CONTRIB = 21, "com.microsoft"
SHORT = 64  # pieces: below, plain operators are faster than the kernel that keeps scores in cache
FAR = -1e4  # added to the scores of padding; exp of it is 0 in every precision
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


def build(
    config: EncoderConfig,
    head: str,
    weights: Weights,
    form: Form,
    *,
    ranges: Ranges | None = None,
) -> onnx.ModelProto:
    """The graph of `TaskModel(config, head, ...)` with `weights`, its state by name, as numpy arrays.

    `ranges` are needed for the form int8-static alone.
    """
    graph = _Graph(config, weights, form, ranges or {}, once=head in READ_ONCE)
    logits = graph.head(head, graph.encoder())
    graph.add("Identity", logits, output="logits")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["windows", "pieces"]) for name in INPUTS]
    inputs.append(helper.make_tensor_value_info("reads", TensorProto.INT64, ["reads"]))
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["reads", None])
    made = helper.make_graph(graph.nodes, f"{config.family}-{head}", inputs, [output], graph.initializers)
    domains = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(CONTRIB, 1)] if form == "int8" else [])]
    return helper.make_model(made, opset_imports=domains, ir_version=10, producer_name="bothways")


class _Graph:
    """The nodes so far; every method adds some and gives the name of what they compute."""

    def __init__(self, config: EncoderConfig, weights: Weights, form: Form, ranges: Ranges, *, once: bool) -> None:
        self.config, self.weights, self.form, self.ranges, self.once = config, weights, form, ranges, once
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._known: dict[str, str] = {}
        self._made = 0  # names given

    def fresh(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._made}"

    def add(self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        output = output or self.fresh(kind)
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, value: ArrayLike, name: str | None = None) -> str:
        """A tensor in the file; one with a name is written once (ALBERT's layers share theirs)."""
        if name is not None and name in self._known:
            return name
        array = np.ascontiguousarray(value)
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        self._known[name] = name
        return name

    def weight(self, name: str) -> str:
        return self.constant(self.weights[name], name)

    def encoder(self) -> str:
        """(B, T) ids -> (K, C) hidden of the pieces read."""
        config = self.config
        hidden = self.embeddings()
        mask = self.mask()
        distinct = config.distinct_layers
        for number in range(config.num_hidden_layers):
            layer = f"encoder.layers.{number * distinct // config.num_hidden_layers}"
            if number < config.num_hidden_layers - 1:
                mixed = self.attention(hidden, layer, mask)
            elif self.once:
                rows = self.read(hidden)
                hidden, mixed = rows, self.attention_once(rows, hidden, layer, mask[0])
            else:
                hidden, mixed = self.read(hidden), self.read(self.attention(hidden, layer, mask))
            mixed = self.linear(mixed, f"{layer}.attention_output")
            hidden = self.add_and_norm(hidden, mixed, f"{layer}.attention_norm")
            inner = self.activate(self.linear(hidden, f"{layer}.inner"), config.hidden_act)
            hidden = self.add_and_norm(hidden, self.linear(inner, f"{layer}.outer"), f"{layer}.norm")
        return hidden

    def embeddings(self) -> str:
        """Piece + position + segment, normalised: (B, T) -> (B, T, C)."""
        config = self.config
        first = config.position_offset
        length = self.add("Shape", "input_ids", start=1, end=2)
        end = self.add("Add", length, self.constant([first])) if first else length
        table = self.weight("encoder.embeddings.position.weight")
        total = self.add("Slice", table, self.constant([first]), end, self.constant([0]))  # (T, E)
        if config.type_vocab_size:
            segment = self.weight("encoder.embeddings.segment.weight")
            total = self.add("Add", self.add("Gather", segment, "token_type_ids"), total)
        total = self.add("Add", self.pieces(), total)
        hidden = self.norm(total, "encoder.embeddings.norm")
        return self.linear(hidden, "encoder.embeddings.project") if config.projects else hidden

    def pieces(self) -> str:
        """(B, T) -> (B, T, E) rows of the vocabulary's table, which int8 forms keep in 8 bits with a scale a row."""
        name = "encoder.embeddings.word.weight"
        if self.form == "fp32":
            return self.add("Gather", self.weight(name), "input_ids")
        rows, scales = quantised(self.weights[name])
        row = self.add("Gather", self.constant(rows, f"{name}.rows"), "input_ids")
        scale = self.add("Gather", self.constant(scales[:, None], f"{name}.scales"), "input_ids")  # (B, T, 1)
        return self.add("Mul", self.add("Cast", row, to=TensorProto.FLOAT), scale)

    def mask(self) -> tuple[str, str]:
        """What is added to the scores of each key, 0 and `FAR` on padding, (B, 1, 1, T); and for int8 whether a
        batch has padding or is short, so that `attend` is to be preferred to `fused`."""
        real = self.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        bias = self.add("Mul", self.add("Sub", self.constant(np.float32(1)), real), self.constant(np.float32(FAR)))
        bias = self.add("Unsqueeze", bias, self.constant([1, 2]))
        if self.form != "int8":
            return bias, ""
        padding = self.add("Less", self.add("ReduceMin", real, keepdims=0), self.constant(np.float32(1)))
        length = self.add("Squeeze", self.add("Shape", "input_ids", start=1, end=2))
        return bias, self.add("Or", padding, self.add("Less", length, self.constant(np.int64(SHORT))))

    def attention(self, hidden: str, layer: str, mask: tuple[str, str]) -> str:
        """(B, T, C) -> (B, T, C), each piece mixed with those of its window (Vaswani et al. 2017, 3.2)."""
        given, (bias, plainly) = self.given(hidden, f"{layer}.qkv"), mask
        parts = self.projected(given, layer, range(3))
        if self.form != "int8":
            return self.attend(parts, bias)
        attend = self.branch(lambda: self.attend(parts, bias))
        return self.add("If", plainly, then_branch=attend, else_branch=self.branch(lambda: self.fused(parts)))

    def attention_once(self, rows: str, hidden: str, layer: str, bias: str) -> str:
        """(B, C), one piece of each window, and (B, T, C) all of them -> (B, C): attention of those pieces alone."""
        name, C = f"{layer}.qkv", self.config.hidden_size
        (query,) = self.projected(self.given(rows, name), layer, range(1))
        query = self.add("Unsqueeze", query, self.constant([1]))
        both = self.projected(self.given(hidden, name), layer, range(1, 3))
        return self.add("Reshape", self.attend([query, *both], bias), self.constant([-1, C]))

    def projected(self, given: Given, layer: str, parts: range) -> list[str]:
        """Those of queries (0), keys (1) and values (2) of what `given` made ready, (…, C) each.

        In int8 by a product each: to divide the result of a large one is a copy there.
        """
        if self.form == "int8" and len(parts) > 1:
            return [found for part in parts for found in self.projected(given, layer, range(part, part + 1))]
        name, C = f"{layer}.qkv", self.config.hidden_size
        own = slice(parts.start * C, parts.stop * C)
        factor = np.ones(3 * C, np.float32)  # of attention's scores, 1/√D: here it costs nothing
        factor[:C] = (C // self.config.num_attention_heads) ** -0.5
        weight = (self.weights[f"{name}.weight"] * factor[:, None])[own]
        bias = (self.weights[f"{name}.bias"] * factor)[own]
        joined = self.product(given, weight, bias, f"{name}.{parts.start}-{parts.stop}")
        if len(parts) == 1:
            return [joined]
        outputs = [self.fresh("Split") for _ in parts]
        self.nodes.append(helper.make_node("Split", [joined, self.constant([C] * len(parts))], outputs, axis=-1))
        return outputs

    def fused(self, parts: Sequence[str]) -> str:
        """Attention by ONNX Runtime's kernel for long windows, whose scores stay in cache; it takes no mask."""
        H = self.config.num_attention_heads
        return self.add("MultiHeadAttention", *parts, domain=CONTRIB, num_heads=H, scale=1.0)

    def branch(self, body: Callable[[], str]) -> onnx.GraphProto:
        """What `body` adds, as a graph of its own for one side of an If."""
        outer, self.nodes = self.nodes, []
        output = helper.make_tensor_value_info(body(), TensorProto.FLOAT, None)
        made, self.nodes = helper.make_graph(self.nodes, f"branch_{output.name}", [], [output]), outer
        return made

    def attend(self, parts: Sequence[str], mask: str) -> str:
        """Scaled dot-product attention of queries, keys, values (Vaswani et al. 2017, 3.2), operator by operator."""
        C, H = self.config.hidden_size, self.config.num_attention_heads
        D = C // H
        heads = [self.add("Reshape", part, self.constant([0, 0, H, D])) for part in parts]
        query, value = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (heads[0], heads[2]))
        key = self.add("Transpose", heads[1], perm=[0, 2, 3, 1])  # (B, H, D, T)
        shares = self.add("Softmax", self.add("Add", self.add("MatMul", query, key), mask), axis=-1)  # (B, H, T, T)
        mixed = self.add("Transpose", self.add("MatMul", shares, value), perm=[0, 2, 1, 3])  # (B, T, H, D)
        return self.add("Reshape", mixed, self.constant([0, 0, C]))

    def read(self, hidden: str) -> str:
        """(B, T, C) -> (K, C)."""
        rows = self.add("Reshape", hidden, self.constant([-1, self.config.hidden_size]))
        return self.add("Gather", rows, "reads")

    def head(self, head: str, rows: str) -> str:
        """(K, C) -> (K, L), as the modules of model/heads.py; in fp32 but for the vocabulary's table."""
        config, rules = self.config, self.config.rules
        if "encoder.pooler.weight" in self.weights:
            rows = self.activate(self.plain(rows, "encoder.pooler"), "tanh")
        if head in ("hidden", "pooled"):
            return rows
        if head == "masked":
            inner = self.activate(self.plain(rows, "head.dense"), rules.masked_activation or config.hidden_act)
            table, bias = self.weights["encoder.embeddings.word.weight"], self.weights["head.bias"]
            inner = self.norm(inner, "head.norm")
            if self.form == "int8":
                return self.product(self.given(inner, "head.table"), table, bias, "head.table")
            product = self.add("MatMul", inner, self.constant(table.T, "head.table"))
            return self.add("Add", product, self.weight("head.bias"))
        if "head.dense.weight" in self.weights:
            rows = self.activate(self.plain(rows, "head.dense"), rules.head_activation)
        return self.plain(rows, "head.output")

    def linear(self, hidden: str, name: str) -> str:
        """A large linear layer, in the form's precision."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.product(self.given(hidden, name), weight, bias, name)

    def given(self, hidden: str, name: str) -> Given:
        """What the linear layer `name` multiplies, in the form's precision; several products may share it."""
        if self.form == "fp32":
            return (hidden,)
        if self.form == "int8":  # 8-bit numbers, their scale and zero, from the least and the largest of `hidden`
            number = self.fresh("scaled")
            outputs = (number, f"{number}.scale", f"{number}.zero")
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [hidden], outputs))
            return outputs
        low, high = self.ranges[name]
        low, high = min(low, 0.0), max(high, 1e-6)
        scale = self.constant(np.float32((high - low) / 255), f"{name}.input_scale")
        zero = self.constant(np.uint8(round(-low / (high - low) * 255)), f"{name}.input_zero")
        return (self.add("DequantizeLinear", self.add("QuantizeLinear", hidden, scale, zero), scale, zero),)

    def product(self, given: Given, weight: np.ndarray, bias: np.ndarray, name: str) -> str:
        """Of (…, C) made ready by `given` and (M, C) rows -> (…, M)."""
        bias_name = self.constant(bias, f"{name}.bias")
        if self.form == "fp32":
            return self.add("Add", self.add("MatMul", *given, self.constant(weight.T, f"{name}.matrix")), bias_name)
        rows, row_scales = quantised(weight)
        matrix, scales = self.constant(rows.T, f"{name}.matrix"), self.constant(row_scales, f"{name}.scales")
        if self.form == "int8":
            numbers, scale, zero = given
            inputs = (numbers, matrix, scale, scales, zero, "", bias_name)
            return self.add("MatMulIntegerToFloat", *inputs, domain=CONTRIB)
        zeros = self.constant(np.zeros(len(rows), np.int8), f"{name}.zeros")
        matrix = self.add("DequantizeLinear", matrix, scales, zeros, axis=1)
        return self.add("Add", self.add("MatMul", *given, matrix), bias_name)

    def plain(self, hidden: str, name: str) -> str:
        """A linear layer in fp32, whatever the form."""
        matrix = self.constant(self.weights[f"{name}.weight"].T, f"{name}.matrix")
        return self.add("Add", self.add("MatMul", hidden, matrix), self.weight(f"{name}.bias"))

    def activate(self, hidden: str, name: str) -> str:
        kind, attributes = _ACTIVATIONS[name]
        return self.add(kind, hidden, **attributes)

    def add_and_norm(self, hidden: str, more: str, name: str) -> str:
        return self.norm(self.add("Add", hidden, more), name)

    def norm(self, hidden: str, name: str) -> str:
        gamma, beta = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", hidden, gamma, beta, axis=-1, epsilon=self.config.layer_norm_eps)


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, C) -> 8-bit rows (M, C) and their scales (M,): symmetric, each row's largest number is 127.

    >>> rows, scales = quantised(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> rows.tolist()
    [[127, -64], [0, 0]]
    """
    scales = np.maximum(np.abs(weight).max(1), 1e-9).astype(np.float32) / 127
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
