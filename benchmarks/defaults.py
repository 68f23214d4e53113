"""The default hyperparameters of fine-tuning against the former ones and a grid of learning rates and lengths.

    python benchmarks/defaults.py DATA RESULTS [--sets sst2 trec] [--sizes 300 2000] [--seeds 0 1 2]

DATA is the folder of data sets that docs/results.md names. Each run draws its training examples by the seed and is
scored on the same dev examples, at its best evaluation, as `bothways finetune` keeps it. RESULTS is a file of JSON
lines: a run that is in it is not repeated, so an interrupted benchmark goes on, and more sets, sizes and seeds can be
added later. A table of means over the seeds is printed at the end. Needs the `train` extra.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.inference.engines.torch import TorchEngine
from bothways.inference.predictor import Predictor
from bothways.model.catalogue import find_model
from bothways.model.checkpoint import load_model
from bothways.model.config import EncoderConfig
from bothways.model.forward import best_precision
from bothways.progress import Reporter
from bothways.tasks import TRAINED
from bothways.text.tokenizer import Tokenizer
from bothways.training.devices import joined
from bothways.training.finetune import FineTuning, FineTuningJob
from bothways.training.recipe import Recipe
from bothways.training.train import train as train_model


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where a data set is. Without a dev file, dev is a part of the training file."""

    task: str
    train: str
    dev: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


STSB = {"text_column": "sentence1", "pair_column": "sentence2", "label_column": "score", "kind": "regression"}
GOEMOTIONS = {"header": False, "text_column": "0", "label_column": "1", "separator": ",", "kind": "multi"}
SETS = {
    "sst2": DataSet("classify", "sst2/train.tsv", "sst2/dev.tsv"),
    "trec": DataSet("classify", "trec/train.tsv"),
    "banking77": DataSet("classify", "banking77/train.csv"),
    "goemotions": DataSet("classify", "goemotions/train.tsv", "goemotions/dev.tsv", GOEMOTIONS),
    "nli": DataSet("pairs", "nli/train.jsonl.xz", "nli/dev.jsonl"),
    "stsb": DataSet("pairs", "stsb/train.tsv", "stsb/dev.tsv", STSB),
    "conll2003": DataSet("tag", "conll2003/train.txt", "conll2003/dev.txt"),
}
OLD = Recipe(epochs=3.0, learning_rate=5e-5)  # of a hidden size below 768
LENGTHS = (10.0, 30.0)  # epochs of the grid
MOST_UPDATES = 3000  # of a run of the grid


def read(data: Path, name: str, size: int, seed: int, dev_size: int) -> tuple[list[Example], list[Example]]:
    """`size` training examples (0: all) drawn by the seed, and the dev examples, which are always the same."""
    one = SETS[name]
    columns = Columns(**one.columns)
    train = TRAINED[one.task].read(str(data / one.train), columns)
    rest, order = train, np.random.default_rng(0)
    if one.dev is None:
        places = order.permutation(len(train))
        dev, rest = [train[place] for place in places[:dev_size]], [train[place] for place in places[dev_size:]]
    else:
        dev = TRAINED[one.task].read(str(data / one.dev), columns)
        dev = [dev[place] for place in order.permutation(len(dev))[:dev_size]]
    drawn = np.random.default_rng((1, seed)).permutation(len(rest))
    return [rest[place] for place in drawn[: size or None]], dev


def train_one(
    name: str, train: Sequence[Example], dev: Sequence[Example], base: Path, recipe: Recipe
) -> dict[str, Any]:
    """The dev score of a run at its best evaluation, its updates and its seconds."""
    began = time.process_time()
    kind = TRAINED[SETS[name].task]
    task = kind.learn([*train, *dev])  # a small draw may lack a label of dev
    tokenizer = Tokenizer.from_directory(base)
    windows = [one for one in task.encode(train, tokenizer) if one.target is not None and len(one.head_positions)]
    generator = torch.Generator().manual_seed(recipe.seed)
    model, report = load_model(base, task.head, task.outputs, generator, new_head=True)
    predictor = Predictor(task, tokenizer, TorchEngine(model))
    references = [example.reference for example in dev if example.reference is not None]

    def evaluate() -> dict[str, float]:
        predictions = predictor.predict_examples(dev)
        tuned = task.tune_on(predictions, references)
        scores = tuned.score(tuned.redecided(predictions), references, rng=np.random.default_rng(0), resamples=2)
        return {metric: interval.value for metric, interval in scores.metrics.items()}

    with tempfile.TemporaryDirectory() as out, joined() as devices:
        job = FineTuningJob(
            windows,
            task.loss,
            evaluate,
            task.headline,
            recipe,
            Path(out),
            {"benchmark": name},
            best_precision(devices.device),
            pooler_is_new=any(part.startswith("encoder.pooler.") for part in report.new),
        )
        work = FineTuning(model, job, devices)
        state = train_model(work, work.plan(), Reporter(quiet=True))
    scores = [line["dev"][task.headline] for line in state.history if "dev" in line]
    seconds = round(time.process_time() - began, 1)
    return {"score": state.best, "updates": state.step, "cpu_seconds": seconds, "dev_scores": scores}


def contestants(size: int, options: argparse.Namespace) -> Iterator[tuple[str, Recipe]]:
    """The recipes to try on a data set: old defaults, new ones, the grid."""
    yield "old", OLD
    yield "new", Recipe()
    for rate in options.rates:
        for epochs in options.epochs:
            if size * epochs / Recipe().batch_size <= MOST_UPDATES:
                yield "grid", Recipe(learning_rate=rate, epochs=epochs)


def table(lines: Sequence[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A row for each data set and size: means over the seeds."""
    yield "| data | examples | old | new | best of the grid | new minus best |"
    yield "|---|---|---|---|---|---|"
    for name, size in dict.fromkeys((line["set"], line["size"]) for line in lines):
        own = [line for line in lines if (line["set"], line["size"]) == (name, size)]
        scores = {
            key: [100 * runs[line["key"]]["score"] for line in own if (line["who"], line["recipe"]) == key]
            for key in dict.fromkeys((line["who"], line["recipe"]) for line in own)
        }
        old, new = (next(mean(values) for (who, _), values in scores.items() if who == one) for one in ("old", "new"))
        grid = {recipe: mean(values) for (who, recipe), values in scores.items() if who == "grid"}
        if grid:
            best = max(grid, key=lambda recipe: grid[recipe])
            against = f"{grid[best]:.1f} ({best}) | {new - grid[best]:+.1f}"
        else:
            against = " | "
        yield f"| {name} | {size or 'all'} | {old:.1f} | {new:.1f} | {against} |"


def main() -> None:
    """Train what is not in the results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["sst2", "trec", "conll2003", "stsb", "nli"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[300], help="training examples; 0: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rates", nargs="*", type=float, default=[1e-4, 2e-4, 4e-4])
    parser.add_argument("--epochs", nargs="*", type=float, default=LENGTHS)
    parser.add_argument("--dev-texts", type=int, default=500)
    parser.add_argument("--base", default="minilm-l6")
    options = parser.parse_args()
    base = find_model(options.base)
    config, _, _ = EncoderConfig.read(base)
    runs: dict[str, dict[str, Any]] = {}
    if options.results.is_file():
        runs = {line["key"]: line for line in map(json.loads, options.results.read_text().splitlines())}
    lines = []
    for name in options.sets:
        for size in options.sizes:
            for seed in options.seeds:
                train, dev = read(options.data, name, size, seed, options.dev_texts)
                task = TRAINED[SETS[name].task].learn([*train, *dev])
                for who, recipe in contestants(len(train), options):
                    chosen = recipe.hyperparameters(
                        hidden_size=config.hidden_size, loss=task.loss, outputs=task.outputs, windows=len(train)
                    )
                    shown = f"{chosen.learning_rate:g}, {chosen.epochs:g} epochs"
                    what = {"set": name, "size": size, "seed": seed, "base": options.base, **asdict(chosen)}
                    key = json.dumps(what | {"dev": len(dev)})
                    lines.append({"set": name, "size": size, "who": who, "key": key, "recipe": shown})
                    if key in runs:
                        continue
                    found = train_one(name, train, dev, base, Recipe(**asdict(chosen), seed=seed))
                    runs[key] = what | {"key": key} | found
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(runs[key]) + "\n")
                    print(
                        f"{name}, {len(train)} examples, seed {seed}, {who} ({shown}): {found['score']:.4f}", flush=True
                    )
    print("\n" + "\n".join(table(lines, runs)))


if __name__ == "__main__":
    main()
