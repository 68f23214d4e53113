"""The `onnx/` folder of a model directory: its ONNX models and their accuracy checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from bothways.errors import CheckpointError
from bothways.inference.formats import from_format_1
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.storage import write_text
from bothways.text.modelfiles import read_json

OnnxPrecision = Literal["fp32", "int8", "int8-static"]
ONNX_PRECISIONS: tuple[OnnxPrecision, ...] = get_args(OnnxPrecision)
FOLDER, EXPORT = "onnx", "export.json"
FILES: dict[OnnxPrecision, str] = {
    "fp32": "model.onnx",
    "int8": "model_int8.onnx",
    "int8-static": "model_int8_static.onnx",
}
ATTENTIONS = "attentions_fp32.onnx"
FORMAT = 2
_BLOCK, _LONGEST_HEADER = 4096, 10**8  # in bytes
# The config values of an ONNX model; the others (dropout, initialization) affect only training.
SHAPE_KEYS = (
    *("family", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_act", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id"),
    *("embedding_size", "num_hidden_groups"),
)
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class OnnxModelRecord:
    """One ONNX model: the hash of its file and the result of the accuracy check (None: not checked).

    `shared` maps files beside the model directory, which hold weights of several models, to their hashes.
    `reference` and `value` are the metric of fp32 and of this model on `examples` examples; `agreement` is the
    fraction of equal answers. `rejected` is the reason why the ONNX model is not used.
    """

    sha256: str
    metric: str | None = None
    reference: float | None = None
    value: float | None = None
    agreement: float | None = None
    examples: int = 0
    rejected: str | None = None
    shared: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.reference, self.value, self.agreement)
        texts = (self.metric, self.rejected)
        if (
            type(self.sha256) is not str
            or not all(isinstance(each, str | None) for each in texts)
            or not all(isinstance(each, float | int | None) for each in numbers)
            or type(self.examples) is not int
            or (self.metric is not None and None in (self.reference, self.value))
            or not isinstance(self.shared, dict)
            or not all(type(each) is str for pair in self.shared.items() for each in pair)
            or any(name != Path(name).name or not name.endswith(".safetensors") for name in self.shared)
        ):
            raise TypeError(f"found {self!r}")

    def measured(self) -> str:
        """Describe the result of the accuracy check briefly."""
        parts = [] if self.metric is None else [f"{self.metric} {self.value:.4f}, in fp32 {self.reference:.4f}"]
        if self.agreement is not None:
            parts.append(f"{100 * self.agreement:.1f} % of {self.examples:,} answers the same")
        return ", ".join(parts) or "not measured"


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """The contents of `onnx/export.json`: head, config, number of parameters and ONNX models.

    `attentions` is the ONNX model of attention probabilities, if any. `ranges` are the minimum and maximum input of
    each linear layer in int8-static.
    """

    directory: Path
    head: str
    outputs: int
    config: str  # a hash of the shape of the encoder
    weights: str  # a hash of a sample of every tensor; both hashes detect files of another model
    parameters: int
    models: dict[OnnxPrecision, OnnxModelRecord] = field(default_factory=dict)
    attentions: OnnxModelRecord | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> ExportRecord | None:
        """Read the record of a model directory; None if there is none.

        Raises `CheckpointError` if the record is damaged.
        """
        path = directory / FOLDER / EXPORT
        if not path.is_file():
            return None
        try:
            raw = from_format_1(read_json(path))
            if raw["format"] != FORMAT:
                raise ValueError(f"format {raw['format']!r}, expected {FORMAT}")  # noqa: TRY301
            if not isinstance(models := raw["models"], dict):
                raise TypeError(f"models is {models!r}")  # noqa: TRY301
            onnx_models = {name: OnnxModelRecord(**models[name]) for name in ONNX_PRECISIONS if name in models}
            made = {name: raw[name] for name in ("head", "outputs", "config", "weights", "parameters")}
            for name, value in made.items():
                if type(value) is not (int if name in ("outputs", "parameters") else str):
                    raise TypeError(f"{name} is {value!r}")  # noqa: TRY301
            attentions = OnnxModelRecord(**raw["attentions"]) if raw.get("attentions") is not None else None
            ranges = {name: (float(low), float(high)) for name, (low, high) in raw.get("ranges", {}).items()}
            return cls(directory, **made, models=onnx_models, attentions=attentions, ranges=ranges)
        except (CheckpointError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: damaged, or written by a newer bothways ({error!r}); "
                f"bothways export {directory} writes it again"
            ) from error

    def stale(self, config: EncoderConfig) -> str | None:
        """Return why the ONNX models do not belong to the model in the directory, or None if they do.

        The weights may be missing if only the ONNX model is served.
        """
        there = (self.directory / WEIGHTS).is_file()
        shaped = self.config in (shape_of(config), _shape_in_0_1(config))
        if shaped and (not there or self.weights == sample_of(self.directory / WEIGHTS)):
            return None
        return f"the ONNX models in {self.directory / FOLDER} belong to another model than config.json and {WEIGHTS}"

    def as_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {"format": FORMAT} | {name: value for name, value in asdict(self).items() if name != "directory"}

    def write(self) -> None:
        """Write the record, but not the ONNX models."""
        write_text(self.directory / FOLDER / EXPORT, json.dumps(self.as_json(), indent=2) + "\n")

    def with_model(self, precision: OnnxPrecision, onnx_model: OnnxModelRecord) -> ExportRecord:
        """Return the record with one ONNX model added or replaced."""
        return replace(self, models=self.models | {precision: onnx_model})

    def files(self) -> list[Path]:
        """Return the paths of all ONNX models in the record, whether they exist or not."""
        paths = [self.directory / FOLDER / FILES[precision] for precision in self.models]
        return paths if self.attentions is None else [*paths, self.attentions_file()]

    def file(self, precision: OnnxPrecision) -> Path:
        """Return the path of an ONNX model; raises `CheckpointError` if it is missing; `OnnxFile` checks the hash."""
        path = self.directory / FOLDER / FILES[precision]
        if not path.is_file():
            raise CheckpointError(
                f"{path}: not there, though {EXPORT} names it; "
                f"bothways export {self.directory} --precision {precision} writes it again"
            )
        return path

    def attentions_file(self) -> Path:
        """Return the path of the ONNX model of attention probabilities, whether it exists or not."""
        return self.directory / FOLDER / ATTENTIONS

    def attentions_to_open(self) -> OnnxFile | None:
        """Return the ONNX model of attention probabilities for opening; None if there is none."""
        if self.attentions is None:
            return None
        advice = f"bothways export {self.directory} --attentions writes it again"
        return OnnxFile(self.attentions_file(), self.attentions.sha256, advice)

    def to_open(self, precision: OnnxPrecision, path: Path | None = None) -> OnnxFile:
        """Return an ONNX model (`path`, else the file in the folder) and its shared files for opening."""
        advice = f"bothways export {self.directory} --precision {precision} writes it again"
        beside = [
            OnnxFile(self.directory.absolute().parent / name, sha256, f"{self.directory} needs it; copy both again")
            for name, sha256 in self.models[precision].shared.items()
        ]
        return OnnxFile(path or self.file(precision), self.models[precision].sha256, advice, beside)


@dataclass(slots=True)
class OnnxFile:
    """An ONNX model on disk, opened only if its content is the exported one.

    The file is hashed when it is first opened and after every change, so all sessions run the same model.
    """

    path: Path
    sha256: str
    advice: str = "export it again"
    shared: list[OnnxFile] = field(default_factory=list)
    _seen: tuple[int, ...] | None = None

    def opened(self, make: Callable[[Path], Made]) -> Made:
        """Return `make(path)`; raises `CheckpointError` if the file has other content, before or after."""
        self.check()
        made = make(self.path)
        self.check()
        return made

    def check(self) -> None:
        """Raise `CheckpointError` unless the file and its shared files are the exported ones."""
        for each in self.shared:
            each.check()
        try:
            stamp = stamp_of(self.path)
            if stamp == self._seen:
                return
            with self.path.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror}); {self.advice}") from error
        if found != self.sha256:
            raise CheckpointError(
                f"{self.path}: damaged, or not the ONNX model that was exported here (its hash differs); {self.advice}"
            )
        self._seen = stamp


def mapped(path: Path) -> dict[str, np.ndarray]:
    """Memory-map the tensors of a safetensors file: used pages are read once for all processes."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    kinds = {"I8": np.int8, "F32": np.float32}
    return {
        name: np.memmap(path, kinds[each["dtype"]], "r", start + each["data_offsets"][0], tuple(each["shape"]))
        for name, each in header_of(path).items()
        if name != "__metadata__"
    }


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return a stamp that changes when a file is written or replaced."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def shape_of(config: EncoderConfig) -> str:
    """Return a hash of the config values of an ONNX model.

    Defaults are omitted, so a new config key does not change the hash.
    """
    usual = {item.name: item.default for item in fields(EncoderConfig)}
    values = {name: getattr(config, name) for name in SHAPE_KEYS if getattr(config, name) != usual[name]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _shape_in_0_1(config: EncoderConfig) -> str:
    """Return the hash that version 0.1 wrote, of all its config values."""
    others = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range")
    values = {name: getattr(config, name) for name in (*SHAPE_KEYS, *others)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def header_of(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file; empty for other files.

    The key "__metadata__" holds the file's metadata.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def sample_of(path: Path) -> str:
    """Return a hash of the header of a safetensors file and of both ends of every tensor.

    It is faster than a full hash, and training changes it. For other files, only the start is hashed.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _LONGEST_HEADER))
        digest.update(header)
        try:
            places = [each["data_offsets"] for name, each in json.loads(header).items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError):
            places = []
        for start, stop in sorted(places):
            for place in sorted({start, max(start, stop - _BLOCK)}):
                file.seek(8 + length + place)
                digest.update(file.read(min(_BLOCK, stop - place)))
    return digest.hexdigest()
