"""An encoder with its head as one ONNX graph, built from the named weights of our modules.

Inputs: `input_ids`, `attention_mask`, `token_type_ids` (B, T) as usual, and `head_positions` (K,), the indices of the
tokens that the head reads, among the B·T tokens in row order. Output: `logits` (K, L). No step after the attention of
the last layer mixes tokens, so only those K tokens are computed there. Heads in `READ_ONCE` read one token of each
window, so the attention of the last layer has only B queries.

Three precisions of the same computation:
fp32         standard operators only
int8         for ONNX Runtime: 8-bit weights with one scale per column, and 8-bit activations with one scale per token,
             so the result for a token does not depend on the other tokens of its batch
int8-static  standard operators with QuantizeLinear and DequantizeLinear, for any engine; scales fixed by calibration

`build_attentions` builds another fp32 ONNX model, of the attention probabilities of all layers.

B windows, T maximum length, N = B·T tokens, K of them read by the head, C hidden width, H heads, D = C / H.
Between layers, hidden states are (N, C) in int8, which has one scale per row, else (B, T, C), which OpenVINO fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from bothways.inference.onnx.record import OnnxPrecision
from bothways.inference.quantized import quantized
from bothways.model.config import EncoderConfig
from bothways.model.families import READ_ONCE
from bothways.model.relative import distance_buckets

Weights = Mapping[str, np.ndarray]
Ranges = Mapping[str, tuple[float, float]]  # minimum and maximum input of each linear layer
Operand = tuple[str, ...]  # input of a product: a tensor, or 8-bit numbers and the scale of each row
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORDS = "encoder.embeddings.word.weight"
OPSET, CONTRIB = 21, "com.microsoft"
SHORT = 64  # tokens: below this length, plain operators are faster than the fused kernel
MIDDLE = 128  # 8-bit zero point: activations are scaled to -127 ... 127 around it
MIN_ACTIVATED = -0.17  # minimum of GELU
FAR = -1e4  # added to the scores of padding; exp of it is 0 in every precision
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


class Mask(NamedTuple):
    """Biases of the attention scores: `padding` (B, 1, 1, T) is 0 on tokens, `FAR` on padding; `scores`
    (B, H or 1, T or 1, T) also includes relative positions. `plainly`: whether the batch has padding or is short, so
    `attend` replaces `fused`; "" means always.
    """

    padding: str
    scores: str
    plainly: str


def build(
    config: EncoderConfig, head: str, weights: Weights, precision: OnnxPrecision, *, ranges: Ranges | None = None
) -> onnx.ModelProto:
    """Build the ONNX model of `TaskModel(config, head, ...)`; `weights` is its state dict as numpy arrays.

    Only int8-static needs `ranges`.
    """
    graph = _Builder(config, weights, precision, ranges or {}, once=head in READ_ONCE)
    logits = graph.head(head, graph.encoder())
    graph.add("Identity", logits, output="logits")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["windows", "tokens"]) for name in INPUTS]
    inputs.append(helper.make_tensor_value_info("head_positions", TensorProto.INT64, ["head_positions"]))
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["head_positions", None])
    made = helper.make_graph(graph.nodes, f"{config.family}-{head}", inputs, [output], graph.initializers)
    return _model(made, [CONTRIB] if precision == "int8" else [])


def build_attentions(config: EncoderConfig, weights: Weights) -> onnx.ModelProto:
    """Build the fp32 ONNX model of attention probabilities: (B, T) `INPUTS` -> `attentions` (B, layers, H, T, T).

    `weights` is as for `build`. Rows are queries; padding keys have probability 0.
    """
    graph = _Builder(config, weights, "fp32", {}, once=False)
    graph.add("Concat", *graph.attentions(), output="attentions", axis=1)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["windows", "tokens"]) for name in INPUTS]
    shape: list[str | int | None] = [
        "windows",
        config.num_hidden_layers,
        config.num_attention_heads,
        "tokens",
        "tokens",
    ]
    output = helper.make_tensor_value_info("attentions", TensorProto.FLOAT, shape)
    return _model(helper.make_graph(graph.nodes, f"{config.family}-attentions", inputs, [output], graph.initializers))


def _model(graph: onnx.GraphProto, domains: Sequence[str] = ()) -> onnx.ModelProto:
    versions = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10, producer_name="bothways")


class _Builder:
    """The nodes of a graph; every method adds nodes and returns the name of their output."""

    def __init__(
        self, config: EncoderConfig, weights: Weights, precision: OnnxPrecision, ranges: Ranges, *, once: bool
    ) -> None:
        self.config, self.weights, self.precision, self.ranges, self.once = config, weights, precision, ranges, once
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shares: list[str] = []  # probabilities (B, H, T, T) of each `attend` call
        self._known: dict[str, str] = {}
        self._made = 0  # number of generated names
        C, H = config.hidden_size, config.num_attention_heads
        if precision == "int8":
            self.batch_shape = self._batch_shape(C)  # B, T, C
            self.heads_shape = self._batch_shape(H, C // H)  # B, T, H, D
            self.hidden_shape = self.constant([-1, C])
        else:
            self.heads_shape, self.hidden_shape = self.constant([0, 0, H, C // H]), self.constant([0, 0, C])

    def fresh(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._made}"

    def add(self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        output = output or self.fresh(kind)
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, value: ArrayLike, name: str | None = None) -> str:
        """Add a tensor; a named one is written only once (ALBERT's layers share weights)."""
        if name is not None and name in self._known:
            return name
        array = np.ascontiguousarray(value)
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        self._known[name] = name
        return name

    def weight(self, name: str) -> str:
        return self.constant(self.weights[name], name)

    def _batch_shape(self, *last: int) -> str:
        """Return the shape (B, T, *last)."""
        return self.add("Concat", self.add("Shape", "input_ids"), self.constant(list(last)), axis=0)

    def encoder(self) -> str:
        """(B, T) ids -> (K, C) hidden states of the tokens read."""
        config = self.config
        hidden = self.embeddings()
        mask = self.mask()
        for number, layer in enumerate(self.layers()):
            if number < config.num_hidden_layers - 1:
                mixed = self.attention(hidden, layer, mask)
            elif self.once:
                rows = self.read(hidden)
                hidden, mixed = rows, self.attention_once(rows, hidden, layer, mask.padding)
            else:
                hidden, mixed = self.read(hidden), self.read(self.attention(hidden, layer, mask))
            hidden = self.after_attention(hidden, mixed, layer)
        return hidden

    def layers(self) -> list[str]:
        """Return the weight-name prefixes of the layers, in the order of computation."""
        count, distinct = self.config.num_hidden_layers, self.config.distinct_layers
        return [f"encoder.layers.{number * distinct // count}" for number in range(count)]

    def after_attention(self, hidden: str, mixed: str, layer: str) -> str:
        """The rest of a layer: hidden states and the output of attention -> hidden states."""
        hidden = self.add_and_norm(hidden, self.attention_output(mixed, layer), f"{layer}.attention_norm")
        inner = self.activate(self.linear(hidden, f"{layer}.inner"), self.config.hidden_act)
        return self.add_and_norm(hidden, self.linear(inner, f"{layer}.outer"), f"{layer}.norm")

    def attentions(self) -> list[str]:
        """(B, T) ids -> (B, 1, H, T, T) attention probabilities of each layer, without the rest of the last layer."""
        hidden, mask = self.embeddings(), self.mask()
        *layers, last = self.layers()
        for layer in layers:
            hidden = self.after_attention(hidden, self.attention(hidden, layer, mask), layer)
        self.attention(hidden, last, mask)
        return [self.add("Unsqueeze", share, self.constant([1])) for share in self.shares]

    def embeddings(self) -> str:
        """Token + position + segment, normalized: (B, T) -> hidden states."""
        config = self.config
        first = config.position_offset
        length = self.add("Shape", "input_ids", start=1, end=2)
        end = self.add("Add", length, self.constant([first])) if first else length
        table = self.weight("encoder.embeddings.position.weight")
        total = self.add("Slice", table, self.constant([first]), end, self.constant([0]))  # (T, E)
        if config.type_vocab_size:
            segment = self.weight("encoder.embeddings.segment.weight")
            total = self.add("Add", self.add("Gather", segment, "token_type_ids"), total)
        total = self.add("Add", self.tokens(), total)
        if self.precision == "int8":
            total = self.add("Reshape", total, self.constant([-1, config.embedding_width]))
        hidden = self.norm(total, "encoder.embeddings.norm")
        return self.linear(hidden, "encoder.embeddings.project") if config.projects else hidden

    def tokens(self) -> str:
        """(B, T) -> (B, T, E) token embeddings; int8 and int8-static store them in 8 bits with one scale per row."""
        if self.precision == "fp32":
            return self.add("Gather", self.weight(WORDS), "input_ids")
        rows, scales = self.table()
        row, scale = self.add("Gather", rows, "input_ids"), self.add("Gather", scales, "input_ids")
        scale = self.add("Unsqueeze", scale, self.constant([2]))  # (B, T, 1)
        return self.add("Mul", self.add("Cast", row, to=TensorProto.FLOAT), scale)

    def table(self) -> tuple[str, str]:
        """Return the 8-bit token embedding table (V, E) and the scale of each row (V,)."""
        rows, scales = quantized(self.weights[WORDS])
        return self.constant(rows, f"{WORDS}.rows"), self.constant(scales, f"{WORDS}.scales")

    def mask(self) -> Mask:
        real = self.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        bias = self.add("Mul", self.add("Sub", self.constant(np.float32(1)), real), self.constant(np.float32(FAR)))
        bias = self.add("Unsqueeze", bias, self.constant([1, 2]))
        if self.config.rules.relative_buckets:
            queries = self.add("Unsqueeze", self.columns(), self.constant([1]))  # (T, 1)
            return Mask(bias, self.add("Add", bias, self.relative(queries)), "")
        if self.precision != "int8":
            return Mask(bias, bias, "")
        padding = self.add("Less", self.add("ReduceMin", real, keepdims=0), self.constant(np.float32(1)))
        length = self.add("Squeeze", self.add("Shape", "input_ids", start=1, end=2))
        return Mask(bias, bias, self.add("Or", padding, self.add("Less", length, self.constant(np.int64(SHORT)))))

    def attention(self, hidden: str, layer: str, mask: Mask) -> str:
        """Self-attention within each window (Vaswani et al. 2017, 3.2), without the output layer."""
        given = self.given(hidden, f"{layer}.qkv")
        parts = self.projected(given, layer, range(3))
        if not mask.plainly:
            return self.attend(parts, mask.scores)
        attend = self.branch(lambda: self.attend(parts, mask.scores))
        return self.add("If", mask.plainly, then_branch=attend, else_branch=self.branch(lambda: self.fused(parts)))

    def columns(self) -> str:
        """(T,) positions in a window: 0, 1, ..."""
        length = self.add("Squeeze", self.add("Shape", "input_ids", start=1, end=2))
        return self.add("Range", self.constant(np.int64(0)), length, self.constant(np.int64(1)))

    def relative(self, queries: str) -> str:
        """(…, 1) positions of queries -> (H, …, T) relative-position biases for each key."""
        longest = self.config.max_length
        buckets = distance_buckets(longest, self.config.rules.relative_buckets)
        table = self.weights["encoder.relative.weight"].T[:, buckets]  # (H, 2·longest - 1)
        distances = self.add("Add", self.add("Sub", self.columns(), queries), self.constant(np.int64(longest - 1)))
        return self.add("Gather", self.constant(table, "encoder.relative.by_distance"), distances, axis=1)

    def attention_once(self, rows: str, hidden: str, layer: str, bias: str) -> str:
        """(B, C) one token of each window, and all hidden states -> (B, C): attention with only those queries."""
        name = f"{layer}.qkv"
        if self.config.rules.relative_buckets:
            length = self.add("Shape", "input_ids", start=1, end=2)
            queries = self.add("Unsqueeze", self.add("Mod", "head_positions", length), self.constant([1]))  # (B, 1)
            relative = self.add("Transpose", self.relative(queries), perm=[1, 0, 2])  # (B, H, T)
            bias = self.add("Add", bias, self.add("Unsqueeze", relative, self.constant([2])))  # (B, H, 1, T)
        (query,) = self.projected(self.given(rows, name), layer, range(1))
        both = self.projected(self.given(hidden, name), layer, range(1, 3))
        return self.attend([query, *both], bias, once=True)

    def projected(self, given: Operand, layer: str, parts: range) -> list[str]:
        """Return the requested queries (0), keys (1) and values (2), (…, C) each.

        In int8, each is a separate product, because splitting a large result copies it, and only the queries get a
        bias. The key bias adds the same number to all scores of a query, so softmax cancels it. The value bias passes
        through attention unchanged, so `attention_output` adds it.
        """
        name, C = f"{layer}.qkv", self.config.hidden_size
        if self.precision == "int8" and len(parts) > 1:
            return [found for part in parts for found in self.projected(given, layer, range(part, part + 1))]
        own = slice(parts.start * C, parts.stop * C)
        factor = np.ones(3 * C, np.float32)  # folds the attention scale 1/√D into the query weights
        factor[:C] = (C // self.config.num_attention_heads) ** -0.5
        weight = (self.weights[f"{name}.weight"] * factor[:, None])[own]
        bias = None if self.precision == "int8" and parts.start else (self.weights[f"{name}.bias"] * factor)[own]
        joined = self.product(given, weight, bias, f"{name}.{parts.start}-{parts.stop}")
        if len(parts) == 1:
            return [joined]
        outputs = [self.fresh("Split") for _ in parts]
        self.nodes.append(helper.make_node("Split", [joined, self.constant([C] * len(parts))], outputs, axis=-1))
        return outputs

    def fused(self, parts: Sequence[str]) -> str:
        """Attention with ONNX Runtime's fused kernel for long windows, which keeps scores in cache; without a mask."""
        H = self.config.num_attention_heads
        parts = [self.add("Reshape", part, self.batch_shape) for part in parts]
        mixed = self.add("MultiHeadAttention", *parts, domain=CONTRIB, num_heads=H, scale=1.0)
        return self.add("Reshape", mixed, self.hidden_shape)

    def branch(self, body: Callable[[], str]) -> onnx.GraphProto:
        """Return the nodes that `body` adds as a subgraph, for one branch of an If."""
        outer, self.nodes = self.nodes, []
        output = helper.make_tensor_value_info(body(), TensorProto.FLOAT, None)
        made, self.nodes = helper.make_graph(self.nodes, f"branch_{output.name}", [], [output]), outer
        return made

    def attend(self, parts: Sequence[str], mask: str, *, once: bool = False) -> str:
        """Scaled dot-product attention of queries, keys and values (Vaswani et al. 2017, 3.2) with plain operators.

        With `once`, each window has one query: (B, C) -> (B, C).
        """
        C, H = self.config.hidden_size, self.config.num_attention_heads
        of_queries = self.constant([-1, 1, H, C // H]) if once else self.heads_shape
        shapes = (of_queries, self.heads_shape, self.heads_shape)
        heads = [self.add("Reshape", part, shape) for part, shape in zip(parts, shapes, strict=True)]
        query, value = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (heads[0], heads[2]))
        key = self.add("Transpose", heads[1], perm=[0, 2, 3, 1])  # (B, H, D, T)
        shares = self.add("Softmax", self.add("Add", self.add("MatMul", query, key), mask), axis=-1)  # (B, H, T, T)
        self.shares.append(shares)
        mixed = self.add("Transpose", self.add("MatMul", shares, value), perm=[0, 2, 1, 3])  # (B, T, H, D)
        return self.add("Reshape", mixed, self.constant([-1, C]) if once else self.hidden_shape)

    def attention_output(self, mixed: str, layer: str) -> str:
        """The linear layer after attention."""
        name = f"{layer}.attention_output"
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        if self.precision == "int8":
            bias = bias + weight @ self.weights[f"{layer}.qkv.bias"][-self.config.hidden_size :]  # value bias
        return self.product(self.given(mixed, name), weight, bias, name)

    def read(self, hidden: str) -> str:
        """Hidden states -> (K, C)."""
        rows = (
            hidden
            if self.precision == "int8"
            else self.add("Reshape", hidden, self.constant([-1, self.config.hidden_size]))
        )
        return self.add("Gather", rows, "head_positions")

    def head(self, head: str, rows: str) -> str:
        """(K, C) -> (K, L), like the modules in model/heads.py; in fp32 except for the embedding table."""
        config, rules = self.config, self.config.rules
        if "encoder.pooler.weight" in self.weights:
            rows = self.activate(self.plain(rows, "encoder.pooler"), "tanh")
        if head in ("hidden", "pooled"):
            return rows
        if head == "masked":
            inner = self.activate(self.plain(rows, "head.dense"), rules.masked_activation or config.hidden_act)
            table, bias = self.weights[WORDS], self.weights["head.bias"]
            inner = self.norm(inner, "head.norm")
            if self.precision == "int8":
                rows, scales = self.table()
                matrix = self.add("Transpose", rows, perm=[1, 0])  # computed once, when a session is opened
                return self.product_int8(self.given(inner, "head.table"), matrix, scales, bias, "head.table")
            product = self.add("MatMul", inner, self.constant(table.T, "head.table"))
            return self.add("Add", product, self.weight("head.bias"))
        if "head.dense.weight" in self.weights:
            rows = self.activate(self.plain(rows, "head.dense"), rules.head_activation)
        return self.plain(rows, "head.output")

    def linear(self, hidden: str, name: str) -> str:
        """A large linear layer in the model's precision."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.product(self.given(hidden, name), weight, bias, name)

    def given(self, hidden: str, name: str) -> Operand:
        """Return the input of linear layer `name` in the model's precision; several products may share it."""
        if self.precision == "fp32":
            return (hidden,)
        if self.precision == "int8":
            return self.scaled_rows(hidden, activated=name.endswith(".outer") and self.config.hidden_act != "tanh")
        low, high = self.ranges[name]
        low, high = min(low, 0.0), max(high, 1e-6)
        scale = self.constant(np.float32((high - low) / 255), f"{name}.input_scale")
        zero = self.constant(np.uint8(round(-low / (high - low) * 255)), f"{name}.input_zero")
        return (self.add("DequantizeLinear", self.add("QuantizeLinear", hidden, scale, zero), scale, zero),)

    def scaled_rows(self, hidden: str, *, activated: bool) -> Operand:
        """(N, C) -> 8-bit numbers (N, C) and the scale of each row (N, 1), so that its largest number is ±127.

        `activated`: after GELU or ReLU no value is below `MIN_ACTIVATED`, so only the maximum is computed. A row of
        zeros has scale 0, so its products are 0 for any 8-bit numbers.
        """
        columns = self.constant([1])
        largest = self.add("ReduceMax", hidden if activated else self.add("Abs", hidden), columns, keepdims=0)
        if activated:
            largest = self.add("Max", largest, self.constant(np.float32(-MIN_ACTIVATED)))
        scale = self.add("Mul", largest, self.constant(np.float32(1 / 127)))  # (N,)
        middle = numpy_helper.from_array(np.array([MIDDLE], np.uint8))
        zeros = self.add("ConstantOfShape", self.add("Shape", scale), value=middle)
        return self.add("QuantizeLinear", hidden, scale, zeros, axis=0), self.add("Unsqueeze", scale, columns)

    def product(self, given: Operand, weight: np.ndarray, bias: np.ndarray | None, name: str) -> str:
        """Product of (…, C), prepared by `given`, and (M, C) weights -> (…, M)."""
        if self.precision == "fp32":
            product = self.add("MatMul", *given, self.constant(weight.T, f"{name}.matrix"))
        else:
            rows, row_scales = quantized(weight)
            matrix, scales = self.constant(rows.T, f"{name}.matrix"), self.constant(row_scales, f"{name}.scales")
            if self.precision == "int8":
                return self.product_int8(given, matrix, scales, bias, name)
            zeros = self.constant(np.zeros(len(rows), np.int8), f"{name}.zeros")
            matrix = self.add("DequantizeLinear", matrix, scales, zeros, axis=1)
            product = self.add("MatMul", *given, matrix)
        return product if bias is None else self.add("Add", product, self.constant(bias, f"{name}.bias"))

    def product_int8(self, given: Operand, matrix: str, scales: str, bias: np.ndarray | None, name: str) -> str:
        """Product of 8-bit numbers with one scale per row and an 8-bit matrix (C, M) with column scales (M,)."""
        numbers, scale = given
        one, zero = self.constant(np.float32(1), "one"), self.constant(np.uint8(MIDDLE), "middle")
        product = self.add("MatMulIntegerToFloat", numbers, matrix, one, scales, zero, domain=CONTRIB)
        product = self.add("Mul", product, scale)
        return product if bias is None else self.add("Add", product, self.constant(bias, f"{name}.bias"))

    def plain(self, hidden: str, name: str) -> str:
        """A linear layer in fp32, in every precision."""
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


def share(model: onnx.ModelProto, files: Mapping[str, Callable[[str], bool]]) -> dict[str, dict[str, np.ndarray]]:
    """Move weights shared by several models out of a graph: each to the first file whose rule accepts its name.

    Returns the weights of each file; `OnnxModelRecord.shared` names the files.
    """
    taken: dict[str, dict[str, np.ndarray]] = {file: {} for file in files}
    for tensor in model.graph.initializer:
        file = next((file for file, rule in files.items() if rule(tensor.name)), None)
        if file is not None:
            array = numpy_helper.to_array(tensor)
            taken[file][tensor.name] = array
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", file), ("offset", "0"), ("length", str(array.nbytes))):
                tensor.external_data.add(key=key, value=value)
    return taken
