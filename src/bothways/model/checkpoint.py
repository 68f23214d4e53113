"""Read and write weights with the tensor names of `transformers`, in safetensors only."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bothways.errors import CheckpointError
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.model.encoder import initialize
from bothways.model.heads import TaskModel
from bothways.model.names import HEADS, tensor_names
from bothways.model.pretraining import PretrainModel
from bothways.storage import replacing
from bothways.text.modelfiles import read_json, refuse_pointer

INDEX = "model.safetensors.index.json"  # index of sharded weights
PICKLES = ("pytorch_model.bin", "model.bin", "pytorch_model.pt", "model.pt", "model.ckpt", "tf_model.h5")
_TIED = (
    *("predictions.decoder.weight", "predictions.decoder.bias", "lm_head.decoder.weight", "lm_head.decoder.bias"),
    *("vocab_projector.weight", "generator_lm_head.weight"),
)
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes from distributed training and torch.compile
_LARGE, _MOST_MISSING = 100_000_000, 4  # parameters; maximum parameters in config.json per byte of the file
_BUFFERS = ("position_ids", "token_type_ids")  # saved by old versions of transformers, recomputed by all


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of loading a checkpoint: loaded, newly initialized and unused weights."""

    source: Path
    loaded: int
    new: tuple[str, ...]
    left_over: tuple[str, ...]
    unknown_keys: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()  # shape mismatches of a head with another number of outputs
    untrained_pooler: bool = False  # the pooler bias in the file is exactly zero; any update changes it

    @property
    def head_is_new(self) -> bool:
        """Whether any weight of the head or its pooler is newly initialized."""
        return any(name.startswith((*HEADS, "encoder.pooler.")) for name in self.new)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"loaded {self.loaded} tensors from {self.source}"]
        if self.new:
            lines.append(f"new, to be trained: {', '.join(_modules(self.new))}")
        if self.untrained_pooler:
            anew = "; it is initialized again" if "encoder.pooler.bias" in self.new else ""
            lines.append(f"the pooler in the file was never trained: its bias is exactly zero{anew}")
        if self.left_over:
            lines.append(f"in the file but not used: {', '.join(_modules(self.left_over))}")
        if self.unknown_keys:
            lines.append(f"config keys not understood and ignored: {', '.join(self.unknown_keys)}")
        return lines


def _modules(names: tuple[str, ...]) -> list[str]:
    return sorted({name.rpartition(".")[0] or name for name in names})


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Read all tensors of the directory's safetensors file to the CPU.

    Raises `CheckpointError` if the file is missing, damaged or a pickle, which can run code when loaded.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        pickles = [name for name in PICKLES if (directory / name).is_file()]
        if pickles:
            raise CheckpointError(
                f"{directory / pickles[0]}: loading a pickle can run any code, so bothways does not load it; "
                f"expected {WEIGHTS} (convert it once, where you trust it, with safetensors)"
            )
        exported = any(directory.glob("onnx/*.onnx"))
        if (directory / INDEX).is_file():
            shards = read_json(directory / INDEX).get("weight_map")
            files = len(set(map(str, shards.values()))) if isinstance(shards, dict) else "several"
            raise CheckpointError(
                f"{directory}: the weights are sharded into {files} files ({INDEX}), expected one {WEIGHTS}; save them "
                'with save_pretrained(..., max_shard_size="100GB")'
            )
        only = "; its ONNX models cannot be trained, expected a base such as bothways-base" if exported else ""
        raise CheckpointError(f"{directory}: no {WEIGHTS} there{only}")
    return read_safetensors(path)[0]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and metadata of one file; raises `CheckpointError` if it is damaged."""
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut short ({error}); copy it again") from error


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write to a temporary file, then rename it; a full disk leaves the old file intact."""
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            if len(metadata) > 1:
                _order_metadata(temporary)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from error


def _order_metadata(path: Path) -> None:
    """Sort the randomly ordered metadata of a safetensors file, so that equal contents give equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def load_model(
    directory: Path, head: str, outputs: int, generator: torch.Generator, *, new_head: bool = False
) -> tuple[TaskModel, LoadReport]:
    """Load a model with the encoder's weights from `directory`.

    The head's weights are loaded if their shapes fit, unless `new_head` is set.

    Raises `CheckpointError` for missing encoder weights or shapes that differ.
    """
    config, _, _ = EncoderConfig.read(directory)
    _check_size(config, directory)
    model = TaskModel(config, head, outputs)
    return model, fill_model(model, directory, generator, new_head=new_head)


def load_for_pretraining(
    directory: Path, generator: torch.Generator, *, pairs: bool
) -> tuple[PretrainModel, LoadReport]:
    """Load a model to continue pretraining; heads that `directory` lacks are newly initialized.

    Raises `CheckpointError` like `load_model`.
    """
    config, _, _ = EncoderConfig.read(directory)
    _check_size(config, directory)
    model = PretrainModel(config, pairs=pairs)
    return model, fill_model(model, directory, generator)


def fill_model(
    model: TaskModel | PretrainModel, directory: Path, generator: torch.Generator, *, new_head: bool = False
) -> LoadReport:
    """Load the weights in a directory into a model, initialize missing ones and return a report.

    Raises `CheckpointError` for missing encoder weights or shapes that differ.
    """
    config, head = model.config, model.head_name
    unknown = EncoderConfig.read(directory)[2]
    path = directory / WEIGHTS
    saved = _without_prefix(read_tensors(directory), config.rules.prefix, path)
    initialize(model, config, generator)
    pooler = model.encoder.pooler
    fresh = {} if pooler is None else {name: value.clone() for name, value in pooler.state_dict().items()}
    used: set[str] = set()
    new: list[str] = []
    misfits: list[str] = []
    for ours, parameter in model.named_parameters():
        theirs = tensor_names(config, ours, head)
        of_head = ours.startswith(HEADS)
        if of_head and new_head:
            new.append(ours)
            continue
        if all(name in saved for name in theirs):
            if sum(saved[name].numel() for name in theirs) == parameter.numel():
                value = torch.cat([_checked(saved[name], name, path) for name in theirs])
                if value.shape == parameter.shape:
                    with torch.no_grad():
                        parameter.copy_(value)
                    used.update(theirs)
                    continue
            shapes = f"{theirs[0]} has shape {tuple(saved[theirs[0]].shape)}, expected {tuple(parameter.shape)}"
            if not of_head:
                raise CheckpointError(
                    f"{path}: {theirs[0]} has shape {tuple(saved[theirs[0]].shape)}, "
                    f"config.json means {tuple(parameter.shape)} for {ours}; they belong to different models"
                )
            misfits.append(shapes)
        elif not of_head and not ours.startswith("encoder.pooler."):
            missing = next(name for name in theirs if name not in saved)
            raise CheckpointError(f"{path}: {missing} is missing, so the encoder is not whole")
        new.append(ours)
    if head == "masked":
        used |= _tied(saved, model, directory)
    left_over = sorted(name for name in set(saved) - used if not name.endswith(_BUFFERS))
    untrained, loaded = False, len(used)
    if pooler is not None and "encoder.pooler.bias" not in new and not pooler.bias.any():
        untrained = True
        if any(name.startswith(HEADS) for name in new):  # a trained head needs the pooler unchanged
            pooler.load_state_dict(fresh)
            new += [f"encoder.pooler.{name}" for name in fresh]
            loaded -= len(fresh)
    return LoadReport(directory, loaded, tuple(new), tuple(left_over), tuple(unknown), tuple(misfits), untrained)


def _check_size(config: EncoderConfig, directory: Path) -> None:
    """Raise `CheckpointError` if the model would be much larger than its file."""
    path = directory / WEIGHTS
    described = config.count_parameters(pooler=False)
    # A parameter takes at least one byte. `fill_model` reports what is missing from smaller models.
    if described > _LARGE and path.is_file() and described > _MOST_MISSING * path.stat().st_size:
        raise CheckpointError(
            f"{path}: has {path.stat().st_size:,} bytes, config.json describes {described:,} parameters; they "
            "belong to different models"
        )


def _checked(tensor: Tensor, name: str, path: Path) -> Tensor:
    """Return a weight tensor; raises `CheckpointError` if it is quantized or contains NaN or infinity."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{path}: {name} is {kind}, so quantized; expected fp32, fp16 or bf16 weights")
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity, so every answer would; its training failed")
    return tensor


def _tied(saved: dict[str, Tensor], model: TaskModel | PretrainModel, directory: Path) -> set[str]:
    """Return the names of tied copies of the embedding table and output bias; raises if they differ."""
    word, bias = model.encoder.embeddings.word.weight, model.get_parameter("head.bias")
    copies = {name: tensor for name, tensor in saved.items() if name.endswith(_TIED)}
    for name, tensor in copies.items():
        own = bias if name.endswith("bias") else word
        if not torch.equal(tensor.to(own.dtype), own.detach()):
            raise CheckpointError(
                f"{directory / WEIGHTS}: {name} differs from the embeddings; bothways computes only tied output layers"
            )
    return set(copies)


def _without_prefix(saved: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    wrapper = next((one for one in _WRAPPERS if saved and all(name.startswith(one) for name in saved)), "")
    for name, tensor in saved.items():
        # Early BERT checkpoints name the LayerNorm parameters gamma and beta.
        short = name.removeprefix(wrapper).removeprefix(prefix)
        short = short.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if short in plain:
            raise CheckpointError(f"{path}: {short} is there twice, with and without {prefix!r}; remove one")
        plain[short] = tensor
    return plain


def model_tensors(model: TaskModel | PretrainModel) -> dict[str, Tensor]:
    """Return the weights of a model in fp32 with the tensor names of `transformers`."""
    tensors: dict[str, Tensor] = {}
    for ours, parameter in model.named_parameters():
        names = tensor_names(model.config, ours, model.head_name)
        prefix = "" if ours.startswith(HEADS) or model.head_name in ("hidden", "pooled") else model.config.rules.prefix
        for name, part in zip(names, parameter.detach().float().chunk(len(names)), strict=True):
            tensors[prefix + name] = part
    return tensors
