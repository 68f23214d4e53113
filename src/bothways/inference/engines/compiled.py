"""The encoder's layers, compiled by PyTorch's Inductor into a library for this machine.

The compiler makes one loop of everything between two matrix products, and calls oneDNN for the products. The library
is called by its C interface: PyTorch's own loader holds Python's lock, so that batches would not run at once.

B windows, T their longest length, K tokens read by the head, C hidden width, H heads, D = C / H.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import warnings
import weakref
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators that Inductor knows 8-bit products by
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.errors import BothwaysError, CheckpointError
from bothways.hardware import environment
from bothways.inference.engines.engine import COMPILED
from bothways.inference.engines.fused import EagerLayers, FusedPrecision, Range, scaled_qkv, steps
from bothways.inference.quantized import quantized
from bothways.model.dropout import NO_DROPOUT
from bothways.model.encoder import Layer
from bothways.model.families import READ_ONCE
from bothways.model.heads import TaskModel
from bothways.storage import replacing

FLASH_FROM = 192  # tokens: below, plain softmax is faster than attention in blocks
MAX_WINDOWS = 1 << 20
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
CLOSE = {"bf16": 0.1, "int8-static": 0.4}  # what numbers may be off, of the root mean square of the eager ones: on
# random tokens, one rounding moves many in 8 bits. `tune` compares the answers to the texts that it is given.


class CompiledLayers:
    """Runs compiled layers, `workers` batches at a time: one library for short windows, one for long ones.

    Raises `CheckpointError` if a library does not load.
    """

    def __init__(self, path: Path, workers: int) -> None:
        self._short, self._long = (_Library(each, workers) for each in libraries(path))
        for library in libraries(path):
            with suppress(OSError):  # the cache may belong to another user
                os.utime(library)  # libraries in use are kept

    def __call__(
        self,
        hidden: Tensor,
        lengths: Sequence[int],  # noqa: ARG002 - the mask says it
        mask: Tensor | None,
        relative: Tensor | None,
        places: Tensor,
    ) -> Tensor:
        """(B, T, C) embeddings, which are used up -> (K, C) hidden states at `places` (K,) of the B·T tokens."""
        B, T, _ = hidden.shape
        mask = hidden.new_zeros(B, 1, 1, T, dtype=torch.float32) if mask is None else mask
        given = [hidden.bfloat16(), mask, places, *([] if relative is None else [relative[None].contiguous()])]
        return (self._short if T < FLASH_FROM else self._long).run(given).float()


def libraries(path: Path) -> tuple[Path, Path]:
    """The files of compiled layers, for short and for long windows."""
    short, long = (path.with_suffix(suffix) for suffix in COMPILED)
    return short, long


class _Library:
    def __init__(self, path: Path, workers: int) -> None:
        self._container = ctypes.c_void_p()
        try:
            library = ctypes.CDLL(str(path))
            create, self._run, delete = (
                getattr(library, f"AOTInductorModelContainer{name}") for name in ("CreateWithDevice", "Run", "Delete")
            )
        except (OSError, AttributeError) as error:
            raise CheckpointError(f"{path}: it cannot be loaded ({str(error).splitlines()[0][:200]})") from error
        if create(ctypes.byref(self._container), ctypes.c_size_t(workers), b"cpu", None):
            raise CheckpointError(f"{path}: PyTorch {torch.__version__} cannot open it")
        weakref.finalize(self, delete, self._container).atexit = False

    def run(self, given: Sequence[Tensor]) -> Tensor:
        handles = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(given))  # the call frees them
        inputs = (ctypes.c_void_p * len(given))(*(_address(handle, None) for handle in handles))
        outputs, count = (ctypes.c_void_p * 1)(), ctypes.c_size_t
        if self._run(self._container, inputs, count(len(given)), outputs, count(1), None, None):
            raise BothwaysError(f"compiled layers failed on a batch of {tuple(given[0].shape)}")
        found: Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule(outputs[0], None, None))
        return found


_address, _capsule = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def compile_layers(model: TaskModel, precision: FusedPrecision, ranges: Mapping[str, Range], path: Path) -> None:
    """Compile the layers of a model, and write the library; takes some seconds a layer, and a C++ compiler.

    Raises `BothwaysError` if there is no compiler, or if the numbers are not those of the layers that are not compiled.
    """
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise BothwaysError("found no C++ compiler (g++ or clang++)")
    config, encoder = model.config, model.encoder
    relative = encoder.relative is not None
    B, T, H = 3, 8, config.num_attention_heads
    once = model.head_name in READ_ONCE
    windows = torch.export.Dim("B", min=1, max=MAX_WINDOWS)
    tokens = torch.export.Dim("T", min=1, max=config.max_position_embeddings)
    read = windows if once else torch.export.Dim("K", min=1, max=MAX_WINDOWS)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (B, T), generator=generator)
    with torch.no_grad():
        hidden = encoder.embeddings(ids, torch.zeros_like(ids), torch.arange(T).expand(B, T), NO_DROPOUT).clone()
    mask = torch.zeros(B, 1, 1, T)
    mask[1:, :, :, -2:] = float("-inf")
    places = torch.arange(B) * T if once else torch.arange(B * T - 2 * B)
    given = (hidden.bfloat16(), mask, places, *([torch.randn(1, H, T, T, generator=generator)] if relative else []))
    dims = (
        {0: windows, 1: tokens},
        {0: windows, 3: tokens},
        {0: read},
        *([{2: tokens, 3: tokens}] if relative else []),
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, environment("TORCHINDUCTOR_CACHE_DIR", folder):
        parts = libraries(Path(folder) / "layers")
        for attend, library in zip((_plain, _flash), parts, strict=True):
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                layers = _Layers(model, precision, ranges, attend).eval()
                exported = torch.export.export(layers, given, dynamic_shapes=dims)
            _compile(exported, library)
        _check(model, precision, ranges, [_Library(each, 1) for each in parts], given)
        for library, target in zip(parts, libraries(path), strict=True):
            with replacing(target) as temporary:
                shutil.copyfile(library, temporary)


def _compile(exported: torch.export.ExportedProgram, library: Path) -> None:
    for node in list(exported.graph.nodes):  # they hide products from Inductor's patterns
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            exported.graph.erase_node(node)
    with torch.no_grad(), warnings.catch_warnings():  # with gradients, nothing is frozen
        warnings.simplefilter("ignore")  # PyTorch's, of its own code
        package = torch._inductor.aoti_compile_and_package(
            exported,
            package_path=str(library.with_suffix(".pt2")),
            inductor_configs={"freezing": True, "cpp.threads": 1},
        )
    with zipfile.ZipFile(package) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        library.write_bytes(archive.read(name))


def _check(
    model: TaskModel,
    precision: FusedPrecision,
    ranges: Mapping[str, Range],
    made: Sequence[_Library],
    given: Sequence[Tensor],
) -> None:
    """Raise `BothwaysError` if a library does not give the numbers of eager layers."""
    eager = EagerLayers(model, precision, ranges)
    hidden, mask, places, *relative = given
    B, T, _ = hidden.shape
    bias = relative[0][0] if relative else None
    with torch.inference_mode():
        expected = eager(hidden, [T, *[T - 2] * (B - 1)], mask, bias, places).float()
        offs = [library.run([hidden.clone(), *given[1:]]).float() - expected for library in made]
    off = max(float((each.square().mean() / expected.square().mean()).sqrt()) for each in offs)
    if not off < CLOSE[precision]:
        raise BothwaysError(f"the compiled layers of PyTorch {torch.__version__} gave wrong numbers ({off:.2g} off)")


class _Int8Linear(nn.Module):
    """A linear layer on 8-bit numbers, in the operators that Inductor makes one product of; (..., C) -> (..., M)."""

    rows: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, given: Range) -> None:
        super().__init__()
        rows, scales = quantized(weight.numpy())
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("scales", torch.from_numpy(scales))
        self.register_buffer("zeros", torch.zeros(len(rows), dtype=torch.int64))
        self.register_buffer("bias", bias.bfloat16())
        self._steps = (*steps(given), 0, 255, torch.uint8)

    def forward(self, hidden: Tensor) -> Tensor:
        operators = torch.ops.quantized_decomposed
        whole = operators.quantize_per_tensor.default(hidden.float(), *self._steps)
        given = operators.dequantize_per_tensor.default(whole, *self._steps)
        weight = operators.dequantize_per_channel.default(self.rows, self.scales, self.zeros, 0, -128, 127, torch.int8)
        return F.linear(given.bfloat16(), weight.bfloat16(), self.bias)


class _Layers(nn.Module):
    """What is compiled: embeddings to the hidden states that the head reads, in bf16."""

    def __init__(
        self, model: TaskModel, precision: FusedPrecision, ranges: Mapping[str, Range], attend: Attend
    ) -> None:
        super().__init__()
        config = model.config
        self._count, self._distinct = config.num_hidden_layers, config.distinct_layers
        own = [layer for layer in model.encoder.layers if isinstance(layer, Layer)]
        self.layers = nn.ModuleList(
            _Layer(layer, precision, ranges, f"encoder.layers.{number}", attend) for number, layer in enumerate(own)
        )
        self._once = model.head_name in READ_ONCE

    def forward(self, hidden: Tensor, mask: Tensor, places: Tensor, relative: Tensor | None = None) -> Tensor:
        bias = mask if relative is None else mask + relative
        for number in range(self._count):
            last = number == self._count - 1
            layer = self.layers[number * self._distinct // self._count]
            hidden = layer(hidden, bias, places if last else None, self._once)
        return hidden


class _Layer(nn.Module):
    def __init__(
        self, layer: Layer, precision: FusedPrecision, ranges: Mapping[str, Range], name: str, attend: Attend
    ) -> None:
        super().__init__()
        self._attend = attend

        def linear(part: str, weight: Tensor, bias: Tensor) -> nn.Module:
            weight, bias = weight.detach().float(), bias.detach().float()
            if precision == "int8-static":
                return _Int8Linear(weight, bias, ranges[f"{name}.{part}"])
            made = nn.Linear(weight.shape[1], weight.shape[0])
            made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
            return made.bfloat16()

        self._heads, C = layer.config.num_attention_heads, layer.config.hidden_size
        weight, bias = scaled_qkv(layer)
        self.query, self.both = linear("qkv", weight[:C], bias[:C]), linear("qkv", weight[C:], bias[C:])
        self.qkv = linear("qkv", weight, bias)
        self.output = linear("attention_output", layer.attention_output.weight, layer.attention_output.bias)
        self.inner = linear("inner", layer.inner.weight, layer.inner.bias)
        self.outer = linear("outer", layer.outer.weight, layer.outer.bias)
        self.attention_norm, self.norm = layer.attention_norm, layer.norm
        self._activation = layer.config.hidden_act

    def forward(self, hidden: Tensor, bias: Tensor, places: Tensor | None, once: bool) -> Tensor:
        B, T, C = hidden.shape
        H = self._heads
        if places is not None and once:
            rows = hidden.reshape(B * T, C)[places]
            query = self.query(rows).view(B, 1, H, -1).transpose(1, 2)
            key, value = self.both(hidden).view(B, T, 2, H, -1).permute(2, 0, 3, 1, 4).unbind(0)
            if bias.shape[2] != 1:  # relative positions: the row of each query
                bias = bias[torch.arange(B), :, places % T].unsqueeze(2)
            return self._after(rows, _plain(query, key, value, bias).reshape(B, C))
        query, key, value = self.qkv(hidden).view(B, T, 3, H, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self._attend(query, key, value, bias).reshape(B, T, C)
        if places is not None:
            hidden, mixed = hidden.reshape(B * T, C)[places], mixed.reshape(B * T, C)[places]
        return self._after(hidden, mixed)

    def _after(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = self._normed(self.attention_norm, hidden + self.output(mixed))
        inner = self.inner(hidden)
        if self._activation == "relu":
            inner = F.relu(inner)
        else:
            inner = F.gelu(inner, approximate="tanh" if self._activation == "gelu_tanh" else "none")
        return self._normed(self.norm, hidden + self.outer(inner))

    def _normed(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        weight, bias = norm.weight, norm.bias
        return F.layer_norm(hidden.float(), norm.normalized_shape, weight, bias, norm.eps).bfloat16()


def _plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """(B, H, T, D) each -> (B, T, H, D), with all scores at once."""
    scores = (query @ key.transpose(-1, -2)).float() + bias
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2)


def _flash(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The same in blocks."""
    bias = bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0).transpose(1, 2)
