"""PyTorch with fused layers on a CPU: oneDNN products with prepacked weights, in bf16 or 8 bits.

One call computes a product, its bias and its activation; in 8 bits, the inner layer also returns 8-bit numbers.
PyTorch's compiler emits the same operators. They are not public, so they are tested when an engine is opened; if they
fail, `TorchEngine` runs the model.

B windows, T maximum length, N tokens with padding, K of them read by the head, C hidden width, H heads, D = C / H.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bothways.batch import NEVER, Batch
from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import cores, multiplies_bf16, multiplies_bytes
from bothways.inference.engines.torch import first_process, heed_fork, trained_model
from bothways.inference.quantized import quantized
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.model.dropout import NO_DROPOUT
from bothways.model.encoder import Layer, relative_biases
from bothways.model.families import READ_ONCE
from bothways.model.heads import TaskModel
from bothways.progress import Reporter

if TYPE_CHECKING:
    from bothways.inference.engines.compiled import CompiledLayers

FusedPrecision = Literal["bf16", "int8-static"]
Range = tuple[float, float]  # minimum and maximum input of a layer
ROWS = 16  # row counts are rounded up to a multiple: each count needs its own kernel
USUAL_ROWS = 512  # the weights are packed for products of this size
SHORT = 64  # tokens: below, fp32 softmax with strided heads is faster than bf16 with copied heads
MAX_SCORES = 1_800_000  # per group of heads: they stay in cache, in reused memory (8.2 us per token instead of 20.5)
CLOSE = 0.05  # tolerance of the trial product
POSTS = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "relu": ("relu", "")}
NO_POST = ("none", "")


def why_not_fused(precision: FusedPrecision, activation: str) -> str | None:
    """Return why this PyTorch cannot run fused layers in a precision on this CPU, or None if it can."""
    if activation not in POSTS:
        return f"fused layers have no {activation}"
    if precision == "bf16" and not multiplies_bf16():
        return "this processor has no bf16 products"
    if precision == "int8-static" and not multiplies_bytes():
        return "this processor has no exact 8-bit products (VNNI)"
    try:
        off = _probe(precision)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        return f"PyTorch {torch.__version__} has no fused layers ({str(error).splitlines()[0][:120]})"
    return (
        None if off < CLOSE else f"the fused layers of PyTorch {torch.__version__} gave wrong numbers ({off:.2g} off)"
    )


def _probe(precision: FusedPrecision) -> float:
    """Return the largest error of a small product with activation."""
    given = torch.linspace(-1, 1, 4 * 64).view(4, 64)
    weight, bias = torch.linspace(-1, 1, 32 * 64).view(32, 64).flip(0) / 8, torch.linspace(-1, 1, 32)
    with torch.inference_mode():
        product = _Maker(precision, {"": (-1.0, 1.0)}).product("", weight, bias, "gelu")
        found = product(product.ready(given)).float()
        return float((found - nn.functional.gelu(given @ weight.t() + bias)).abs().max())


def open_fused_engine(
    directory: Path,
    head: str,
    outputs: int,
    precision: FusedPrecision,
    ranges: Mapping[str, Range],
    reporter: Reporter,
    *,
    workers: int,
    max_tokens: int,
    threads: int | None = None,
    compiled: Path | None = None,
) -> FusedEngine | None:
    """Open the trained model in a directory with fused layers; None, with a note, if they cannot run.

    `ranges` holds the input range of each linear layer by name, for int8-static. `compiled` is the library of the
    compiled layers, if any.

    Raises `CheckpointError` for a model that is not trained.
    """
    heed_fork(torch.device("cpu"))
    config, _, _ = EncoderConfig.read(directory)
    reason = why_not_fused(precision, config.hidden_act)
    if reason is None and precision == "int8-static" and not ranges:
        reason = (
            "the int8-static model was exported by an older version, without what fused layers need (bothways export "
            f"{directory} --precision int8-static writes it)"
        )
    if reason is not None:
        reporter.note(f"{reason}, so {directory} runs on PyTorch's standard layers, which are slower")
        return None
    model, layers = trained_model(directory, head, outputs, reporter), None
    if compiled is not None:
        from bothways.inference.engines.compiled import CompiledLayers

        try:
            layers = CompiledLayers(compiled, workers)
        except CheckpointError as problem:
            reporter.note(f"{problem}; layers that are not compiled run instead, more slowly")
    numbers: dict[str, Any] = {"workers": workers, "max_tokens": max_tokens, "threads": threads}
    made = FusedEngine(model, precision, ranges, compiled=layers, **numbers)
    made.weights = directory / WEIGHTS
    made.reopen = partial(
        open_fused_engine,
        directory.absolute(),
        head,
        outputs,
        precision,
        dict(ranges),
        Reporter(quiet=True),
        **numbers,
        compiled=compiled,
    )
    return made


class FusedEngine:
    """Runs a model with fused layers, one batch per worker, each with its own threads.

    It can be pickled if it was opened from a directory; unpickling opens the model again. After a fork it uses one
    thread per batch.
    """

    unbatched_from = NEVER

    def __init__(
        self,
        model: TaskModel,
        precision: FusedPrecision,
        ranges: Mapping[str, Range],
        *,
        workers: int,
        max_tokens: int,
        threads: int | None = None,
        compiled: CompiledLayers | None = None,
    ) -> None:
        """Pack the layers of `model` (unless they are `compiled`) and remove them from it."""
        self.workers, self.max_tokens = workers, max_tokens
        self.weights: Path | None = None
        self.reopen: Callable[[], FusedEngine | None] | None = None
        self.parameters = sum(part.numel() for part in model.parameters())
        self._threads = max(1, (threads or cores()) // workers)
        self._default = torch.get_num_threads()
        first_process()
        version = torch.__version__.split("+")[0]
        made = "fused" if compiled is None else "compiled"
        self._about = f"PyTorch {version}, {made}, {precision}, {workers} workers of {self._threads} thread(s)"
        self._pad_id = model.config.pad_token_id
        self._layers = EagerLayers(model, precision, ranges) if compiled is None else compiled
        model.encoder.layers = nn.ModuleList()
        self._model = model

    def describe(self) -> str:
        """Return version, precision and threads."""
        return self._about

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._about}>"

    def open(self) -> None:
        """Do nothing: the model is already open."""

    def __reduce__(self) -> tuple[Callable[..., FusedEngine], tuple[Callable[[], FusedEngine | None]]]:
        if self.reopen is None:
            raise BothwaysError("an engine that was made of a model in memory cannot be pickled; load a directory")
        return _reopened, (self.reopen,)

    def run(self, batch: Batch) -> np.ndarray:
        """Packed batch -> (K, L) logits at its head positions, in the batch's order."""
        threads = self._threads if first_process() == os.getpid() else 1  # a fork does not copy PyTorch's threads
        with torch.inference_mode(), _threads(threads, self._default):
            return self._logits(batch).numpy()

    def _logits(self, batch: Batch) -> Tensor:
        ids, mask, type_ids = (torch.from_numpy(each) for each in batch.padded(self._pad_id))
        B, T = ids.shape
        encoder = self._model.encoder
        hidden = encoder.embeddings(ids, type_ids, torch.arange(T).expand(B, T), NO_DROPOUT)
        lengths, bias, relative = batch.lengths.tolist(), None, None
        if lengths[-1] < T:
            bias = torch.zeros(B, T).masked_fill_(mask == 0, float("-inf"))[:, None, None]
        if encoder.relative is not None:
            (relative,) = relative_biases(encoder.relative, [T])
        places = torch.from_numpy(batch.padded_head_positions())
        return self._model.answer(self._layers(hidden, lengths, bias, relative, places), NO_DROPOUT)


def _reopened(reopen: Callable[[], FusedEngine | None]) -> FusedEngine:
    engine = reopen()
    if engine is None:
        raise BothwaysError("fused layers do not run on this machine, though they did where the model was pickled")
    return engine


class EagerLayers:
    """The encoder's layers; Python calls one operator for each product."""

    def __init__(self, model: TaskModel, precision: FusedPrecision, ranges: Mapping[str, Range]) -> None:
        config, maker = model.config, _Maker(precision, ranges)
        self._heads, self._dtype = config.num_attention_heads, torch.bfloat16 if precision == "bf16" else torch.float32
        count, distinct = config.num_hidden_layers, config.distinct_layers
        with torch.inference_mode():
            layers = [layer for layer in model.encoder.layers if isinstance(layer, Layer)]
            own = [_FusedLayer(layer, maker, f"encoder.layers.{number}") for number, layer in enumerate(layers)]
            self._layers = [own[number * distinct // count] for number in range(count)]
            once = model.head_name in READ_ONCE
            self._last = _LastQkv(layers[-1], maker, f"encoder.layers.{distinct - 1}") if once else None

    def __call__(
        self, hidden: Tensor, lengths: Sequence[int], mask: Tensor | None, relative: Tensor | None, places: Tensor
    ) -> Tensor:
        """(B, T, C) embeddings -> (K, C) hidden states at `places` (K,) among the B·T tokens.

        `lengths` are the windows' lengths; `mask` (B, 1, 1, T) and `relative` (H, T, T) are added to the scores.
        """
        B, T, C = hidden.shape
        H = self._heads
        hidden = nn.functional.pad(hidden.view(B * T, C), (0, 0, 0, -B * T % ROWS)).to(self._dtype)
        *layers, last = self._layers
        for layer in layers:
            mixed = attend(layer.qkv(hidden)[: B * T].view(B, T, 3, H, -1), mask, relative, lengths)
            hidden = layer.after(hidden, _joined(mixed, len(hidden)))
        K = len(places)
        keep = nn.functional.pad(places, (0, -K % ROWS))
        rows = hidden.index_select(0, keep)
        if self._last is not None:  # the head reads one token per window: K = B
            query, both = self._last.query(rows)[:B].view(B, H, 1, -1), self._last.both(hidden)[: B * T]
            mixed = attend_once(query, both.view(B, T, 2, H, -1), mask, relative, places % T)
            rows = last.after(rows, _joined(mixed, len(rows)))
        else:
            mixed = attend(last.qkv(hidden)[: B * T].view(B, T, 3, H, -1), mask, relative, lengths)
            rows = last.after(rows, _joined(mixed, B * T).index_select(0, keep))
        return rows[:K]


def attend(qkv: Tensor, mask: Tensor | None, relative: Tensor | None, lengths: Sequence[int]) -> Tensor:
    """(B, T, 3, H, D) scaled queries, keys and values in bf16 -> (B, H, T, D); rows of padding are undefined.

    `mask` (B, 1, 1, T) and `relative` (H, T, T) are added to the scores. Long windows are processed one at a time
    without padding, so they need no mask.
    """
    B, T, _, H, D = qkv.shape
    parts = qkv.permute(2, 0, 3, 1, 4)
    if T < SHORT:
        query, key, value = parts
        scores = (query @ key.transpose(-1, -2)).float()
        for bias in (mask, relative):
            scores = scores if bias is None else scores.add_(bias)
        return scores.softmax(-1).to(value.dtype) @ value
    mixed = qkv.new_zeros(B, H, T, D)
    for window, n in enumerate(lengths):
        query, key, value = parts[:, window, :, :n].contiguous()
        group = max(1, min(H, MAX_SCORES // (n * n)))
        for heads in (slice(first, first + group) for first in range(0, H, group)):
            scores = torch.bmm(query[heads], key[heads].transpose(-1, -2))
            if relative is not None:  # bf16 is too imprecise for biases
                scores = scores.float().add_(relative[heads, :n, :n])
            mixed[window, heads, :n] = torch.bmm(scores.softmax(-1).to(value.dtype), value[heads])
    return mixed


def attend_once(query: Tensor, both: Tensor, mask: Tensor | None, relative: Tensor | None, columns: Tensor) -> Tensor:
    """(B, H, 1, D) queries, one per window, and (B, T, 2, H, D) keys and values, in bf16 -> (B, H, 1, D).

    `columns` (B,) are the positions of the queries in their windows.
    """
    key, value = both.unbind(2)
    scores = (query @ key.permute(0, 2, 3, 1)).float()  # (B, H, 1, T)
    if mask is not None:
        scores = scores.add_(mask)
    if relative is not None:
        scores = scores.add_(relative[:, columns].transpose(0, 1).unsqueeze(2))
    return scores.softmax(-1).to(value.dtype) @ value.transpose(1, 2)


class _Bf16Product:
    """A linear layer with its activation, in bf16."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str | None) -> None:
        self._post, self._algorithm = NO_POST if activation is None else POSTS[activation]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), USUAL_ROWS)
        self._bias = bias.bfloat16()

    def ready(self, hidden: Tensor) -> Tensor:
        """Convert hidden states to the input of `__call__`."""
        return hidden.bfloat16()

    def __call__(self, ready: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            ready, self._weight, self._bias, self._post, [], self._algorithm
        )
        return found


class _Int8Product:
    """A linear layer with its activation in 8 bits: one scale for the input, one per weight row.

    It returns `dtype`, or with `then`, the input range of the next layer, 8-bit inputs for that layer.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, activation: str | None, given: Range, then: Range | None, dtype: torch.dtype
    ) -> None:
        self._post, self._algorithm = NO_POST if activation is None else POSTS[activation]
        rows, scales = quantized(weight.float().numpy())
        self._scale, self._zero = steps(given)
        self._shift = torch.tensor([self._zero + 0.5])  # rounds, as the cast to int truncates
        self._out, self._dtype = ((1.0, 0), dtype) if then is None else (steps(then), torch.uint8)
        self._weight = torch.ops.onednn.qlinear_prepack(torch.from_numpy(rows), None)
        self._scales, self._zeros = torch.from_numpy(scales), torch.zeros(len(rows), dtype=torch.int64)
        self._bias = bias.float()

    def ready(self, hidden: Tensor) -> Tensor:
        """Convert hidden states to 0 to 255: signed inputs take oneDNN a thousand times as long."""
        steps = torch.add(self._shift, hidden.float(), alpha=1 / self._scale).clamp_(0, 255)
        return steps.to(torch.int16).to(torch.uint8)  # directly from fp32 takes four times as long

    def __call__(self, ready: Tensor) -> Tensor:
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(ready, self._scale, self._zero, self._weight, self._scales, self._zeros, self._bias),
            *(*self._out, self._dtype, self._post, [], self._algorithm),
        )
        return found


def steps(given: Range) -> tuple[float, int]:
    """Return the scale and zero point of 8-bit numbers over a range, as in the ONNX model."""
    low, high = min(given[0], 0.0), max(given[1], 1e-6)
    return (high - low) / 255, round(-low / (high - low) * 255)


class _Maker:
    """Makes products in one precision; `ranges` are input ranges by layer name, for int8-static."""

    def __init__(self, precision: FusedPrecision, ranges: Mapping[str, Range]) -> None:
        self.precision, self.ranges = precision, ranges

    def product(
        self, name: str, weight: Tensor, bias: Tensor, activation: str | None = None, then: str | None = None
    ) -> _Bf16Product | _Int8Product:
        """Return the linear layer `name`; the layer `then`, if given, takes its output."""
        if self.precision == "bf16":
            return _Bf16Product(weight, bias, activation)
        dtype = torch.bfloat16 if name.endswith(".qkv") else torch.float32  # attention is computed in bf16
        after = None if then is None else self.ranges[then]
        return _Int8Product(weight, bias, activation, self.ranges[name], after, dtype)


class _FusedLayer:
    """One layer of the encoder; the caller computes attention."""

    def __init__(self, layer: Layer, maker: _Maker, name: str) -> None:
        self._qkv = maker.product(f"{name}.qkv", *scaled_qkv(layer))
        output, inner, outer = layer.attention_output, layer.inner, layer.outer
        self._output = maker.product(f"{name}.attention_output", output.weight, output.bias)
        activation = layer.config.hidden_act
        self._inner = maker.product(f"{name}.inner", inner.weight, inner.bias, activation, f"{name}.outer")
        self._outer = maker.product(f"{name}.outer", outer.weight, outer.bias)
        self._attention_norm, self._norm = layer.attention_norm, layer.norm

    def qkv(self, hidden: Tensor) -> Tensor:
        """(N, C) -> (N, 3C) in bf16."""
        return self._qkv(self._qkv.ready(hidden))

    def after(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Hidden states and the output of attention, (N, C) each -> hidden states."""
        hidden = self._attention_norm(self._output(self._output.ready(mixed)).add_(hidden))
        normed: Tensor = self._norm(self._outer(self._inner(self._inner.ready(hidden))).add_(hidden))
        return normed


class _LastQkv:
    """The last layer's products of queries, and of keys with values: only few tokens need queries."""

    def __init__(self, layer: Layer, maker: _Maker, name: str) -> None:
        weight, bias = scaled_qkv(layer)
        C = layer.config.hidden_size
        self._query = maker.product(f"{name}.qkv", weight[:C], bias[:C])
        self._both = maker.product(f"{name}.qkv", weight[C:], bias[C:])

    def query(self, rows: Tensor) -> Tensor:
        """(K, C) -> (K, C) in bf16."""
        return self._query(self._query.ready(rows))

    def both(self, hidden: Tensor) -> Tensor:
        """(N, C) -> (N, 2C) in bf16."""
        return self._both(self._both.ready(hidden))


def scaled_qkv(layer: Layer) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of queries, keys and values, with the attention scale 1/√D in the queries."""
    config = layer.config
    factor = torch.ones(3 * config.hidden_size, 1)
    factor[: config.hidden_size] = (config.hidden_size // config.num_attention_heads) ** -0.5
    return layer.qkv.weight.float() * factor, layer.qkv.bias.float() * factor[:, 0]


def _joined(mixed: Tensor, rows: int) -> Tensor:
    """(B, H, T, D) -> (rows, C), padded with zeros."""
    B, H, T, D = mixed.shape
    made = mixed.new_empty(rows, H * D)
    made[: B * T].view(B, T, H, D).copy_(mixed.transpose(1, 2))
    made[B * T :].zero_()
    return made


@contextmanager
def _threads(count: int, default: int) -> Iterator[None]:
    """Set PyTorch's number of threads to `count` for this thread while the block runs.

    The setting is per thread, but new threads inherit the last value set in any thread, so the process default is
    restored.
    """
    if torch.get_num_threads() == count == default:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(default)
