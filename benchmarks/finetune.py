"""Fine-tuning against `transformers`: the same texts, model, recipe and seed, one after the other in one run.

    python benchmarks/finetune.py TRAIN DEV [--task classify] [--shape minilm-l6] [--texts 3000] [--dev-texts 872]
        [--device cuda] [--batch-size 32]

Four contestants, each in a separate process: transformers' Trainer as it comes (fp32, random batches), the
same tuned as an expert would (bf16 autocast, batches grouped by length, fused AdamW), ours, and ours in fp32.
Counted are useful tokens a second: tokens of text that were trained on, padding not counted, start-up and
evaluation not timed. Quality is accuracy, or the entity F1 of `tag`; for `answer`, for which transformers has
no evaluation any more, speed alone is measured. Speed does not depend on the weights, so shapes without
weights here get random ones.
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
SEED = 0
IGNORE = -100


def read(options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The first texts of a seeded shuffle of the train file, and of the dev file."""
    import numpy as np

    from bothways.data.tables import Columns
    from bothways.tasks import TRAINED

    rng = np.random.default_rng(SEED)
    parts = []
    for path, most in ((options.train, options.texts), (options.dev, options.dev_texts)):
        examples = TRAINED[options.task].read(str(path), Columns())
        parts.append([examples[place] for place in rng.permutation(len(examples))[:most]])
    return parts[0], parts[1]


def base_directory(shape: str, folder: Path) -> Path:
    """The catalogue's model, or one of its shape with random weights where the weights are not here."""
    import torch

    from bothways.errors import ModelNotFoundError
    from bothways.model.catalogue import CATALOGUE, find_model
    from bothways.model.checkpoint import model_tensors, write_safetensors
    from bothways.model.encoder import initialize
    from bothways.model.heads import TaskModel
    from bothways.text.tokenizer import Tokenizer

    try:
        return find_model(shape)
    except ModelNotFoundError:
        config = CATALOGUE[shape].config
    model = TaskModel(config, "pooled" if config.rules.pooler else "hidden", 0)
    initialize(model, config, torch.Generator().manual_seed(SEED))
    write_safetensors(folder / "model.safetensors", model_tensors(model), {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    Tokenizer.packaged(CATALOGUE[shape].vocabulary).save(folder)
    return folder


def their_rows(task: str, examples: list[Any], tokenizer: Any, labels: list[str]) -> list[dict[str, Any]]:
    """Texts as the example scripts of transformers encode them, with their targets."""
    if task == "tag":
        words = [[example.texts[0][start:end] for start, end in example.details.places] for example in examples]
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=256)
        targets = []
        for row, example in enumerate(examples):
            owner = encoded.word_ids(row)
            first = [word is not None and word != before for word, before in zip(owner, [None, *owner], strict=False)]
            pairs = zip(owner, first, strict=True)
            targets.append([labels.index(example.reference[word]) if begins else IGNORE for word, begins in pairs])
        return [{"input_ids": ids, "labels": own} for ids, own in zip(encoded["input_ids"], targets, strict=True)]
    texts = [[example.texts[place] for example in examples] for place in range(len(examples[0].texts))]
    if task != "answer":
        encoded = tokenizer(*texts, truncation=True, max_length=256)
        columns = zip(encoded["input_ids"], encoded["token_type_ids"], examples, strict=True)
        return [{"input_ids": a, "token_type_ids": b, "labels": labels.index(one.reference)} for a, b, one in columns]
    options = {"truncation": "only_second", "max_length": 384, "stride": 128}
    encoded = tokenizer(*texts, **options, return_overflowing_tokens=True, return_offsets_mapping=True)
    rows = []
    for row, owner in enumerate(encoded["overflow_to_sample_mapping"]):
        answer, sequence = examples[owner].reference[0], encoded.sequence_ids(row)
        spans = encoded["offset_mapping"][row]
        inside = [place for place, which in enumerate(sequence) if which == 1]
        begin, end = answer.start, answer.start + len(answer.text)
        start = stop = 0
        if spans[inside[0]][0] <= begin and spans[inside[-1]][1] >= end:
            start = next(place for place in inside if spans[place][1] > begin)
            stop = next(place for place in reversed(inside) if spans[place][0] < end)
        target = {"start_positions": start, "end_positions": stop}
        rows.append({"input_ids": encoded["input_ids"][row], "token_type_ids": encoded["token_type_ids"][row]} | target)
    return rows


def quality_of(task: str, labels: list[str], answered: Any) -> float:
    """Accuracy or strict entity F1 of what a Trainer predicted; it answers grouped by length, with its own targets."""
    import numpy as np

    from bothways.metrics import tagging

    if task == "answer":
        return float("nan")
    best, reference = answered.predictions.argmax(-1), answered.label_ids
    if task != "tag":
        return float((best == reference).mean())
    pairs = [
        ([labels[x] for x in b[g != IGNORE]], [labels[x] for x in g[g != IGNORE]])
        for b, g in zip(best, reference, strict=True)
    ]
    scores = tagging(
        [reference for _, reference in pairs], [best for best, _ in pairs], rng=np.random.default_rng(0), resamples=2
    )
    return scores.metrics["entity_f1"].value


def run_transformers(options: argparse.Namespace, *, tuned: bool) -> dict[str, float]:
    """Transformers' Trainer on the texts."""
    import torch
    import transformers
    from transformers import AutoTokenizer, Trainer, TrainingArguments

    from bothways.tasks import TRAINED

    train, dev = read(options)
    labels = list(TRAINED[options.task].learn(train).labels)
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    made = {"tag": "AutoModelForTokenClassification", "answer": "AutoModelForQuestionAnswering"}
    maker = getattr(transformers, made.get(options.task, "AutoModelForSequenceClassification"))
    model = maker.from_pretrained(options.base, **({"num_labels": len(labels)} if labels else {}))
    train_rows, dev_rows = (their_rows(options.task, part, tokenizer, labels) for part in (train, dev))
    extra = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"} if tuned else {}
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.lr,
            weight_decay=0.01,
            warmup_steps=0.1,
            seed=SEED,
            save_strategy="no",
            use_cpu=options.device == "cpu",
            disable_tqdm=True,
            dataloader_pin_memory=options.device != "cpu",
            **extra,
        )
        tagging = options.task == "tag"
        collator = (
            transformers.DataCollatorForTokenClassification if tagging else transformers.DataCollatorWithPadding
        )(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=train_rows, data_collator=collator)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        quality = quality_of(options.task, labels, trainer.predict(dev_rows))
    tokens = options.epochs * sum(len(row["input_ids"]) for row in train_rows)
    return {"seconds": seconds, "tokens": tokens, "quality": quality}


def run_bothways(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Our loop on the texts: random batches, nothing grouped by length."""
    import numpy as np
    import torch

    from bothways.inference.engines.torch import TorchEngine
    from bothways.inference.predictor import Predictor
    from bothways.model.checkpoint import load_model
    from bothways.model.forward import set_precision
    from bothways.progress import Reporter
    from bothways.tasks import TRAINED
    from bothways.text.tokenizer import Tokenizer
    from bothways.training.devices import joined
    from bothways.training.finetune import FineTuning, FineTuningJob
    from bothways.training.recipe import Recipe
    from bothways.training.train import train as train_model

    train, dev = read(options)
    made = TRAINED[options.task]
    settings = {} if options.task == "answer" else {"max_length": 256, "truncation": True}
    task = made.learn(train, **settings)
    tokenizer = Tokenizer.from_directory(Path(options.base))
    windows = [one for one in task.encode(train, tokenizer) if one.target is not None and len(one.head_positions)]
    model, _ = load_model(Path(options.base), task.head, task.outputs, torch.Generator().manual_seed(SEED))
    recipe = Recipe(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.lr, seed=SEED, eval_steps=10**9
    )
    with tempfile.TemporaryDirectory() as out, joined(options.device) as devices:
        ended: list[float] = []

        def judge() -> dict[str, float]:  # asked once, after the last step; dev texts are predicted below, untimed
            ended.append(time.perf_counter())
            return {"nothing": 0.0}

        job = FineTuningJob(
            windows, task.loss, judge, "nothing", recipe, Path(out), {"benchmark": "finetune"}, precision
        )
        began = time.perf_counter()
        work = FineTuning(model, job, devices)
        state = train_model(work, work.plan(), Reporter(quiet=True))
        seconds = ended[0] - began
    set_precision(model.encoder, precision)
    predictions = Predictor(task, tokenizer, TorchEngine(model)).predict_examples(dev)
    scores = task.score(predictions, [one.reference for one in dev], rng=np.random.default_rng(0), resamples=2)
    return {"seconds": seconds, "tokens": state.tokens, "quality": scores.metrics[task.headline].value}


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
    parser.add_argument("--task", default="classify", choices=("classify", "pairs", "tag", "answer"))
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--shape", action="append", help="a name from `bothways models`; may be repeated")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--dev-texts", type=int, default=872)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", action="append", choices=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(measure(options)))
        return
    import torch
    import transformers

    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} cores"
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {where}, ", end="")
    print(f"load before the start {os.getloadavg()[0]:.2f}; {options.texts} texts, ", end="")
    print(f"batches of {options.batch_size}, {options.epochs} epoch(s)\n")
    for shape in options.shape or ["minilm-l6"]:
        with tempfile.TemporaryDirectory() as folder:
            base = base_directory(shape, Path(folder))
            results = {}
            for contestant in options.only or CONTESTANTS:
                command = [sys.executable, __file__, str(options.train), str(options.dev), "--base", str(base)]
                command += ["--texts", str(options.texts), "--dev-texts", str(options.dev_texts)]
                command += ["--task", options.task, "--lr", str(options.lr)]
                command += ["--epochs", str(options.epochs), "--contestant", contestant]
                command += ["--batch-size", str(options.batch_size), "--device", options.device]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{contestant} failed:\n{done.stderr[-2000:]}")
                results[contestant] = json.loads(done.stdout.strip().splitlines()[-1])
        print_table(shape, results)


def print_table(shape: str, results: dict[str, dict[str, float]]) -> None:
    """Tokens a second, ratios against both of transformers, quality on dev."""
    speed = {name: result["tokens"] / result["seconds"] for name, result in results.items()}
    print(f"| {shape} | useful tokens/s | x default | x tuned | seconds | dev quality |\n|---|---|---|---|---|---|")
    for name, result in results.items():
        against = [speed[name] / speed[rival] if rival in speed else float("nan") for rival in CONTESTANTS[:2]]
        ratios = f"{against[0]:.2f} | {against[1]:.2f}"
        print(f"| {name} | {speed[name]:,.0f} | {ratios} | {result['seconds']:.1f} | {result['quality']:.3f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
