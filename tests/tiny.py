"""A tiny base model and tiny texts, made in a moment: what tests fine-tune."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import torch

import bothways
from bothways.model.checkpoint import model_tensors, write_safetensors
from bothways.model.config import EncoderConfig
from bothways.model.encoder import initialize
from bothways.model.heads import TaskModel
from bothways.text.tokenizer import Tokenizer

GOOD = ("great film", "a lovely story", "warm and funny", "the best of the year", "well acted", "a joy to watch")
BAD = ("dull film", "an awful story", "cold and tired", "the worst of the year", "badly acted", "a pain to watch")
ROWS = [{"text": text, "label": "good"} for text in GOOD] + [{"text": text, "label": "bad"} for text in BAD]

TINY = EncoderConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=32
)


def write_base(directory: Path, config: EncoderConfig = TINY) -> Path:
    """A base model with random weights and BERT's vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    model = TaskModel(config, "pooled" if config.rules.pooler else "hidden", 0)
    initialize(model, config, torch.Generator().manual_seed(1))
    if model.encoder.pooler is not None:  # one whose bias is zero counts as never trained
        torch.nn.init.constant_(model.encoder.pooler.bias, 0.01)
    write_safetensors(directory / "model.safetensors", model_tensors(model), {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config.to_json()))
    Tokenizer.packaged("bert-base-uncased").save(directory)
    return directory


def write_csv(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    """Rows as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_trained(directory: Path) -> Path:
    """A model that tells good from bad films, with its ONNX model: what is tried without PyTorch."""
    base = write_base(directory / "base")
    recipe = bothways.Recipe(
        epochs=30, batch_size=4, max_length=16, stride=4, precision="fp32", learning_rate=5e-3, dropout=0.0
    )
    bothways.finetune("classify", ROWS, ROWS, base=base, out=directory / "run", recipe=recipe)
    return directory / "run"


if __name__ == "__main__":
    print(write_trained(Path(sys.argv[1])))
