"""ONNX models from the weights in this folder, when the wheel is built; needs no PyTorch.

Each fine-tuned model is a folder with its config.json, model.json (task, settings, how it was made, accuracy check)
and weights.safetensors: the matrices of the layers in int8 with a scale for each row (`name.scales`), other large
tensors in fp16, the rest in fp32. The word embeddings are those of base/, which no model changed.

The models share two files: the word embeddings in int8, and the layers of the base model, which answer both for
masked words and for next sentences.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save

if TYPE_CHECKING:
    from bothways.inference.onnx.record import OnnxModelRecord
    from bothways.model.config import EncoderConfig
    from bothways.tasks import Task

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # not while a wheel is built, but called by recipes/pack.py
    BuildHookInterface = object

HERE = Path(__file__).parent
BASE = HERE / "base" / "bothways_base" / "model"
FINE_TUNED = ("sentiment", "ner", "question-answering", "zero-shot")
FROM_BASE = {"fill-mask": "masked", "next-sentence": "next"}  # and the head of each
WORDS, LAYERS = "word_embeddings.safetensors", "base_layers.safetensors"
SCALES = ".scales"
Rules = Mapping[str, Callable[[str], bool]]  # a shared file, and which initializers it holds


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Puts the ONNX models into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build into a temporary folder, which `finalize` removes."""
        self.built = Path(tempfile.mkdtemp())
        build(self.built)
        for path in sorted(self.built.rglob("*")):
            if path.is_file():
                build_data["force_include"][str(path)] = f"bothways_models/{path.relative_to(self.built).as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was built."""
        shutil.rmtree(self.built)


def packed(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights as weights.safetensors holds them; the word embeddings are left out."""
    from bothways.inference.onnx.build import WORDS as WORD_TABLE
    from bothways.inference.onnx.build import quantized

    found: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        if name == WORD_TABLE:
            continue
        if value.ndim == 2 and name.startswith("encoder.layers."):
            found[name], found[name + SCALES] = quantized(value)
        else:
            found[name] = value.astype(np.float16 if value.size > 10_000 else np.float32)
    return found


def unpacked(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `packed` kept, in fp32."""
    found: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if not name.endswith(SCALES):
            scales = tensors.get(name + SCALES)
            found[name] = value.astype(np.float32) * (1 if scales is None else scales[:, None])
    return found


def build(out: Path) -> None:
    """Write the directories of all models, and the files that they share, into `out`."""
    for name in (*FROM_BASE, *FINE_TUNED):
        build_one(out, name)


def build_one(out: Path, name: str) -> None:
    """Write the directory of one model into `out`, and there the files that it shares."""
    _find_bothways()
    from bothways.inference.onnx.build import WORDS as WORD_TABLE
    from bothways.model.config import EncoderConfig
    from bothways.model.names import own_weights

    folder = BASE if name in FROM_BASE else HERE / name
    config = EncoderConfig.read(folder)[0]
    base = load_file(BASE / "model.safetensors")
    rules: Rules = {WORDS: lambda tensor: tensor == f"{WORD_TABLE}.rows"}
    if name in FROM_BASE:
        head = FROM_BASE[name]
        rules = {**rules, LAYERS: lambda tensor: tensor.startswith("encoder.layers.") and tensor.endswith(".matrix")}
        write_model(out / name, config, own_weights(config, head, base), head, rules, HERE / "base" / f"{name}.json")
        shutil.copy(HERE / "base" / "README.md", out / name)
    else:
        table = own_weights(EncoderConfig.read(BASE)[0], "hidden", base)[WORD_TABLE]
        weights = unpacked(load_file(folder / "weights.safetensors")) | {WORD_TABLE: table}
        write_model(out / name, config, weights, None, rules, folder / "model.json")
        shutil.copy(folder / "README.md", out / name)


def write_model(
    directory: Path,
    config: EncoderConfig,
    weights: Mapping[str, np.ndarray],
    head: str | None,
    rules: Rules,
    record: Path,
) -> None:
    """Write one model directory; shared weights go into the folder above it.

    `record` is the model.json; `head` is that of a model of the base, whose task is in no bothways.json.
    """
    from bothways.inference.model_directory import ModelDirectory
    from bothways.inference.onnx.build import build as build_onnx
    from bothways.inference.onnx.build import share
    from bothways.inference.onnx.record import FILES, FOLDER, ExportRecord, OnnxModelRecord, shape_of
    from bothways.model.families import ARCHITECTURES
    from bothways.tasks import TASKS, TRAINED
    from bothways.text.tokenizer import Tokenizer

    known = json.loads(record.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    (directory / FOLDER).mkdir(parents=True)
    if head is None:
        task: Task = TRAINED[known["task"]].from_json(known["settings"])
        ModelDirectory(directory, config, task, tokenizer, known["facts"], known.get("default_task")).write()
    else:
        task = TASKS[known["task"]].of_checkpoint({}, max_length=512, stride=128)
        raw = config.to_json() | {"architectures": [config.rules.class_stem + ARCHITECTURES[head]]}
        (directory / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(directory)
    model = build_onnx(config, head or task.head, weights, "int8")
    shared: dict[str, str] = {}
    for file, arrays in share(model, rules).items():
        path = directory.parent / file
        if path.is_file():
            there = load_file(path)
            if set(there) != set(arrays) or not all(np.array_equal(there[name], arrays[name]) for name in there):
                raise ValueError(f"{path}: holds other weights than {directory.name} has")
        else:
            path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
        shared[file] = hashlib.sha256(path.read_bytes()).hexdigest()
    content = model.SerializeToString()
    (directory / FOLDER / FILES["int8"]).write_bytes(content)
    onnx_model: OnnxModelRecord = OnnxModelRecord(hashlib.sha256(content).hexdigest(), shared=shared)
    onnx_model = replace(onnx_model, **known.get("accuracy_check", {}))
    count = sum(value.size for value in weights.values())
    ExportRecord(directory, head or task.head, task.outputs, shape_of(config), "", count, {"int8": onnx_model}).write()


def _find_bothways() -> None:
    """Make bothways importable: that of the clone, else the installed one."""
    source = HERE.parent / "src"
    if source.is_dir() and str(source) not in sys.path:
        sys.path.insert(0, str(source))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
