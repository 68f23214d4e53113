"""Fine-tuning against `transformers`: the same texts, model, recipe and seed, one after the other in one run.

    python benchmarks/finetune.py TRAIN DEV [--shape minilm-l6] [--texts 3000] [--dev-texts 872]

Four contestants, each in a process of its own: transformers' Trainer as it comes (fp32, random batches), the
same tuned as an expert would (bf16 autocast, batches grouped by length, fused AdamW), ours, and ours in fp32.
Counted are useful tokens a second: pieces of text that were trained on, padding not counted, start-up and
evaluation not timed. Speed does not depend on the weights, so shapes without weights here get random ones.
Run it on an idle machine: a second busy process ruins two-thread timings. Needs the `train` and `dev` extras.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTESTANTS = ("transformers default", "transformers tuned", "bothways", "bothways fp32")
BATCH, LR, SEED = 32, 5e-5, 0


def read(options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The first texts of a seeded shuffle of the train file, and of the dev file."""
    import numpy as np

    from bothways.tasks import Classify
    from bothways.text.files import Columns

    rng = np.random.default_rng(SEED)
    parts = []
    for path, most in ((options.train, options.texts), (options.dev, options.dev_texts)):
        examples = Classify.read(path, Columns())
        parts.append([examples[place] for place in rng.permutation(len(examples))[:most]])
    return parts[0], parts[1]


def base_directory(shape: str, folder: Path) -> Path:
    """The catalogue's model, or one of its shape with random weights where the weights are not here."""
    import torch

    from bothways.errors import ModelNotFoundError
    from bothways.model.catalogue import CATALOGUE, find_model
    from bothways.model.checkpoint import tensor_names, write_safetensors
    from bothways.model.encoder import Encoder, initialise
    from bothways.text.tokenizer import Tokenizer

    try:
        return find_model(shape)
    except ModelNotFoundError:
        config = CATALOGUE[shape].config
    encoder = Encoder(config, pooler=config.rules.pooler)
    initialise(encoder, config, torch.Generator().manual_seed(SEED))
    tensors = {}
    for name, parameter in encoder.named_parameters():
        names = tensor_names(config, f"encoder.{name}")
        tensors |= dict(zip(names, parameter.detach().chunk(len(names)), strict=True))
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    Tokenizer.packaged(CATALOGUE[shape].vocabulary).save(folder)
    return folder


def run_transformers(options: argparse.Namespace, *, tuned: bool) -> dict[str, float]:
    """Transformers' Trainer on the texts."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    train, dev = read(options)
    labels = sorted({example.gold for example in train})
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=len(labels))

    def rows(examples: list[Any]) -> list[dict[str, Any]]:
        encoded = tokenizer([example.texts[0] for example in examples], truncation=True, max_length=256)["input_ids"]
        return [
            {"input_ids": ids, "length": len(ids), "labels": labels.index(example.gold)}
            for ids, example in zip(encoded, examples, strict=True)
        ]

    train_rows, dev_rows = rows(train), rows(dev)
    extra = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"} if tuned else {}
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            weight_decay=0.01,
            warmup_steps=0.1,
            seed=SEED,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **extra,
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=train_rows, data_collator=collator)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        answered = trainer.predict(dev_rows)  # grouped by length, it answers in another order than it was asked
        right = answered.predictions.argmax(-1) == answered.label_ids
    tokens = options.epochs * sum(row["length"] for row in train_rows)
    return {"seconds": seconds, "tokens": tokens, "accuracy": float(right.mean())}


def run_bothways(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Our loop on the texts: random batches, nothing grouped by length."""
    import torch

    from bothways.model.checkpoint import load_model
    from bothways.model.engine import TorchEngine, set_precision
    from bothways.predictor import Predictor
    from bothways.tasks import Classify
    from bothways.terminal import Reporter
    from bothways.text.tokenizer import Tokenizer
    from bothways.training.loop import Job, fit
    from bothways.training.recipe import Recipe

    train, dev = read(options)
    task = Classify.learn(train, max_pieces=256, long="cut")
    tokenizer = Tokenizer.from_directory(Path(options.base))
    windows = task.encode(train, tokenizer)
    model, _ = load_model(Path(options.base), task.head, task.outputs, torch.Generator().manual_seed(SEED))
    recipe = Recipe(epochs=options.epochs, batch_size=BATCH, lr=LR, seed=SEED, eval_every=10**9)
    with tempfile.TemporaryDirectory() as out:
        ended: list[float] = []

        def judge() -> dict[str, float]:  # asked once, after the last step; dev texts are predicted below, untimed
            ended.append(time.perf_counter())
            return {"accuracy": 0.0}

        job = Job(windows, task.loss, judge, "accuracy", recipe, Path(out), "benchmark", precision)
        began = time.perf_counter()
        state = fit(model, job, Reporter(quiet=True))
        seconds = ended[0] - began
    set_precision(model.encoder, precision)
    predictions = Predictor(task, tokenizer, TorchEngine(model)).predict(dev)
    right = [prediction.label == example.gold for prediction, example in zip(predictions, dev, strict=True)]
    return {"seconds": seconds, "tokens": state.tokens, "accuracy": sum(right) / len(right)}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One contestant, in this process."""
    if options.contestant == "transformers default":
        return run_transformers(options, tuned=False)
    if options.contestant == "transformers tuned":
        return run_transformers(options, tuned=True)
    return run_bothways(options, "fp32" if options.contestant.endswith("fp32") else "bf16")


def main() -> None:
    """Measure all contestants on all shapes and print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--shape", action="append", help="a name from `bothways models`; may be repeated")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--dev-texts", type=int, default=872)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", action="append", choices=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(measure(options)))
        return
    import torch
    import transformers

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {os.cpu_count()} cores, ", end="")
    print(f"load before the start {os.getloadavg()[0]:.2f}; {options.texts} texts, {options.epochs} epoch(s)\n")
    for shape in options.shape or ["minilm-l6"]:
        with tempfile.TemporaryDirectory() as folder:
            base = base_directory(shape, Path(folder))
            results = {}
            for contestant in options.only or CONTESTANTS:
                command = [sys.executable, __file__, str(options.train), str(options.dev), "--base", str(base)]
                command += ["--texts", str(options.texts), "--dev-texts", str(options.dev_texts)]
                command += ["--epochs", str(options.epochs), "--contestant", contestant]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{contestant} failed:\n{done.stderr[-2000:]}")
                results[contestant] = json.loads(done.stdout.strip().splitlines()[-1])
        print_table(shape, results)


def print_table(shape: str, results: dict[str, dict[str, float]]) -> None:
    """Tokens a second, ratios against both of transformers, dev accuracy."""
    speed = {name: result["tokens"] / result["seconds"] for name, result in results.items()}
    print(f"| {shape} | useful tokens/s | x default | x tuned | seconds | dev accuracy |\n|---|---|---|---|---|---|")
    for name, result in results.items():
        against = [speed[name] / speed[rival] if rival in speed else float("nan") for rival in CONTESTANTS[:2]]
        ratios = f"{against[0]:.2f} | {against[1]:.2f}"
        print(f"| {name} | {speed[name]:,.0f} | {ratios} | {result['seconds']:.1f} | {result['accuracy']:.3f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
