"""Put a trained model into models/, as `pip install ./models` builds it, and check the accuracy of its int8 form.

    python recipes/pack.py MODEL NAME DEV [--calibrate FILE ...] [--labels A,B] [--default-task TASK] [--title TEXT]

MODEL is a directory of `bothways finetune` with the word embeddings of bothways-base (--freeze-embeddings), NAME the
folder in models/. --calibrate divides the logits by the temperature that makes the probabilities of these labeled
files (dev data) most likely. --labels renames the classes, in order.

The int8 model that the wheel will hold is compared with MODEL in fp32 on DEV.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

import bothways
from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.evaluation.accuracy_check import check_accuracy
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.build import WORDS
from bothways.inference.onnx.record import ExportRecord, OnnxModelRecord
from bothways.inference.predictor import Predictor
from bothways.model.config import EncoderConfig
from bothways.model.names import own_weights

MODELS = Path(__file__).resolve().parents[1] / "models"
sys.path.insert(0, str(MODELS))
import build  # noqa: E402

MOST = 2000  # texts of each file that the temperature is chosen on, and that int8 is compared on


def examples(model: Predictor, path: str, columns: Columns) -> list[Example]:
    """Every how-many-eth labeled row, so that there are at most `MOST`."""
    rows = list(model.task.read(path, columns, labeled=True))
    return rows[:: -(-len(rows) // MOST)]


def temperature(model: Predictor, rows: list[Example]) -> float:
    """The divisor of the logits that makes the labels of the rows most likely (Guo et al. 2017)."""
    labels = list(model.labels)
    scores = [one.scores for one in model.predict_examples(rows)]
    logits = np.log(np.array([[score[label] for label in labels] for score in scores]) + 1e-12)
    reference = np.array([labels.index(str(row.reference)) for row in rows])
    best, lowest = 1.0, np.inf
    for divisor in np.geomspace(0.5, 5, 200):
        scaled = logits / divisor
        shares = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
        loss = -float(shares[np.arange(len(reference)), reference].mean())
        if loss < lowest:
            best, lowest = float(divisor), loss
    return best


def main() -> None:
    """Pack one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("name", choices=build.FINE_TUNED)
    parser.add_argument("dev")
    parser.add_argument("--calibrate", nargs="*", default=[])
    parser.add_argument("--labels")
    parser.add_argument("--default-task")
    parser.add_argument("--text-column")
    parser.add_argument("--pair-column")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the task, as JSON")
    parser.add_argument("--facts", type=json.loads, default={}, help="how the model was made, as JSON")
    given = parser.parse_args()
    columns = Columns(text_column=given.text_column, pair_column=given.pair_column)
    task = {"zero-shot": "pairs", "ner": "tag", "question-answering": "answer"}.get(given.name, "classify")
    reference = bothways.load(given.model, task=task, engine="torch", precision="fp32")
    model_directory = reference.model_directory
    assert model_directory is not None
    config = model_directory.config
    tensors = load_file(given.model / "model.safetensors")
    weights = own_weights(config, model_directory.task.head, tensors)
    base = own_weights(EncoderConfig.read(build.BASE)[0], "hidden", load_file(build.BASE / "model.safetensors"))[WORDS]
    if not np.array_equal(weights[WORDS].astype(np.float16), base.astype(np.float16)):
        raise SystemExit(f"{given.model}: its word embeddings are not those of {build.BASE}; use --freeze-embeddings")
    facts: dict[str, Any] = {
        name: value for name, value in model_directory.facts.items() if name != "run"
    } | given.facts
    if given.calibrate:
        rows = [row for path in given.calibrate for row in examples(reference, path, columns)]
        divisor = temperature(reference, rows)
        weights["head.output.weight"] = weights["head.output.weight"] / divisor
        weights["head.output.bias"] = weights["head.output.bias"] / divisor
        facts["temperature"] = round(divisor, 3)
        print(f"temperature {divisor:.3f} from {len(rows):,} rows")
    own = replace(model_directory.task, **given.settings)  # type: ignore[type-var]
    dev = examples(reference, given.dev, columns)
    expected = Predictor(own, reference.tokenizer, reference.engine, model_directory).predict_examples(dev)
    if given.labels:
        own = replace(own, labels=tuple(given.labels.split(",")))  # type: ignore[call-arg]
    folder = MODELS / given.name
    folder.mkdir(exist_ok=True)
    (folder / "weights.safetensors").write_bytes(save(build.packed(weights)))
    raw = ModelDirectory(folder, config, own, model_directory.tokenizer)._config_json()
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    record: dict[str, Any] = {"task": own.name, "settings": own.as_json(), "facts": facts}  # type: ignore[attr-defined]
    record |= {"default_task": given.default_task} if given.default_task else {}
    (folder / "model.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        build.build_one(Path(temporary), given.name)
        served = bothways.load(Path(temporary) / given.name, task=task)
        found = served.predict_examples(dev)
        export = ExportRecord.read(Path(temporary) / given.name)
        assert export is not None
    if given.labels:  # the names of the dev file, to compare
        names = dict(zip(given.labels.split(","), model_directory.task.labels, strict=True))  # type: ignore[attr-defined]
        found = [replace(one, label=names[one.label]) for one in found]
    onnx_model: OnnxModelRecord = check_accuracy(export.models["int8"], reference.task, dev, expected, found)
    record["accuracy_check"] = {
        name: value for name, value in asdict(onnx_model).items() if name not in ("sha256", "shared", "rejected")
    }
    (folder / "model.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if onnx_model.rejected:
        raise SystemExit(f"{folder}: the int8 model is rejected: {onnx_model.rejected}")
    print(f"{folder}: {onnx_model.measured()}")


if __name__ == "__main__":
    main()
