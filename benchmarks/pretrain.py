"""Pretraining against `transformers`: the same sequences, shape, first weights and batch, in one run.

    python benchmarks/pretrain.py CORPUS ... [--size mini] [--updates 60] [--batch-size 32] [--tokens 128]
        [--judged 512]

Four contestants, each in a separate process: transformers' Trainer with BertForPreTraining and
DataCollatorForLanguageModeling as they come (fp32), the same tuned (bf16 autocast, batches grouped by length, fused
AdamW), ours, and ours in fp32. Counted are useful tokens a second, padding not counted, start-up not timed. The loss is
that of masked tokens and next sentences on held-out sequences, all models judged by the same code on the same masks.
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
SEED, LR, WARMUP = 0, 1e-3, 0.05


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The first weights, as a directory that everybody loads, and how many tokens a run reads."""
    import numpy as np
    import torch

    from bothways.jobs.pretrain import _config
    from bothways.model.checkpoint import model_tensors, write_safetensors
    from bothways.model.encoder import initialize
    from bothways.model.pretraining import PretrainModel
    from bothways.text.tokenizer import Tokenizer
    from bothways.training.sequences import windows

    tokenizer = Tokenizer.packaged("bert-base-uncased")
    config = _config(options.size, tokenizer)
    model = PretrainModel(config, pairs=True)
    initialize(model, config, torch.Generator().manual_seed(SEED))
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", model_tensors(model), {"format": "pt"})
    settings = config.to_json() | {"architectures": ["BertForPreTraining"]}
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer.save(folder)
    work, sequences = opened(options, folder, "fp32")
    del work
    made = windows(sequences, np.arange(options.updates * options.batch_size), tokenizer, pairs=True)
    return {"tokens": sum(len(window.ids) for window in made), "parameters": sum(p.numel() for p in model.parameters())}


def opened(options: argparse.Namespace, directory: Path, precision: Any) -> tuple[Any, Any]:
    """Our work with the model in `directory`, and the sequences that everybody reads."""
    import torch

    from bothways.model.checkpoint import load_for_pretraining
    from bothways.progress import Reporter
    from bothways.text.tokenizer import Tokenizer
    from bothways.training.corpus import open_corpus
    from bothways.training.devices import UNBATCHED_FROM
    from bothways.training.pretrain import Pretraining

    tokenizer = Tokenizer.from_directory(directory)
    corpus = open_corpus(options.corpus, tokenizer, options.shards, Reporter())
    model, _ = load_for_pretraining(directory, torch.Generator().manual_seed(SEED), pairs=True)
    work = Pretraining(model, corpus, tokenizer, recipe_of(options), precision, UNBATCHED_FROM)
    sequences, _ = work._next(options.batch_size)
    work.state |= {"place": 0, "seen": 0}
    return work, sequences


def recipe_of(options: argparse.Namespace) -> Any:
    """What all contestants are asked for."""
    from bothways.training.recipe import PretrainRecipe

    return PretrainRecipe(
        steps=options.updates,
        batch_size=options.batch_size,
        max_length=str(options.tokens),
        learning_rate=LR,
        warmup_ratio=WARMUP,
        eval_steps=10**9,
        seed=SEED,
    )


def run_transformers(options: argparse.Namespace, out: Path, *, tuned: bool) -> dict[str, float]:
    """Transformers' Trainer on the sequences."""
    import numpy as np
    import torch
    from transformers import (
        AutoTokenizer,
        BertForPreTraining,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    from bothways.training.sequences import windows

    work, sequences = opened(options, Path(options.base), "fp32")
    made = windows(sequences, np.arange(options.updates * options.batch_size), work.tokenizer, pairs=True)
    rows = [
        {
            "input_ids": one.ids.tolist(),
            "token_type_ids": one.type_ids.tolist(),
            "attention_mask": [1] * len(one.ids),
            "next_sentence_label": one.target,
        }
        for one in made
    ]
    del work, sequences, made
    torch.manual_seed(SEED)
    model = BertForPreTraining.from_pretrained(options.base)
    extra = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"} if tuned else {}
    arguments = TrainingArguments(
        output_dir=str(out / "run"),
        num_train_epochs=1,
        per_device_train_batch_size=options.batch_size,
        learning_rate=LR,
        weight_decay=0.01,
        warmup_steps=WARMUP,
        seed=SEED,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **extra,
    )
    collator = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(options.base), mlm_probability=0.15)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model.float().save_pretrained(out)
    return {"seconds": seconds}


def run_bothways(options: argparse.Namespace, out: Path, precision: Any) -> dict[str, float]:
    """Our loop on the sequences."""
    from bothways.model.checkpoint import model_tensors, write_safetensors
    from bothways.progress import Reporter
    from bothways.training.pretrain import pretrain_model

    work, _ = opened(options, Path(options.base), precision)
    spent: list[float] = []
    work.evaluate = lambda: (
        spent.append(time.perf_counter()) or {}
    )  # before the first update and after the last: not timed
    (out / "run").mkdir()
    state = pretrain_model(work, Reporter(quiet=True), directory=out / "run", identity="benchmark", learning_rate=LR)
    write_safetensors(out / "model.safetensors", model_tensors(work.model), {"format": "pt"})
    return {"seconds": spent[-1] - spent[0], "tokens": state.tokens}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One contestant, in this process; then its model is judged."""
    out = Path(options.base).with_name(options.contestant.replace(" ", "-"))
    out.mkdir()
    if options.contestant.startswith("transformers"):
        answer = run_transformers(options, out, tuned=options.contestant.endswith("tuned"))
    else:
        answer = run_bothways(options, out, "fp32" if options.contestant.endswith("fp32") else "bf16")
    return answer


def evaluate(options: argparse.Namespace) -> dict[str, float]:
    """The held-out losses of what a contestant trained."""
    out = Path(options.base).with_name(options.contestant.replace(" ", "-"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((Path(options.base) / name).read_bytes())
    work, _ = opened(options, out, "fp32")
    work._held_out = work._plan_held_out()[: options.evaluated]
    return work.evaluate()


def main() -> None:
    """Run all contestants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--size", default="mini")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--judged", type=int, default=512, help="held-out sequences")
    parser.add_argument("--shards", default="runs/benchmark-shards")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    for hidden in ("--contestant", "--base", "--judge"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(json.dumps(evaluate(options) if options.evaluate else measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        facts = prepare(options, base)
        print(
            f"{options.size}, {facts['parameters'] / 1e6:.1f} million parameters, {options.updates} updates of "
            f"{options.batch_size} sequences, {facts['tokens']:,} tokens; load {os.getloadavg()[0]:.2f}"
        )
        print(
            "| contestant | tokens/s | x default | x tuned | held-out mlm loss | nsp loss |\n|---|---|---|---|---|---|"
        )
        rates: dict[str, float] = {}
        for contestant in options.contestants.split(","):
            command = [sys.executable, "-W", "ignore", __file__, *options.corpus, "--base", str(base)]
            command += ["--size", options.size, "--updates", str(options.updates), "--tokens", str(options.tokens)]
            command += [
                "--judged",
                str(options.evaluated),
                "--batch-size",
                str(options.batch_size),
                "--shards",
                options.shards,
                "--contestant",
                contestant,
            ]
            answers = []
            for more in ([], ["--judge", "yes"]):
                done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
                answers.append(json.loads(done.stdout.splitlines()[-1]))
            answer, losses = answers
            rates[contestant] = answer.get("tokens", facts["tokens"]) / answer["seconds"]
            ratios = [f"{rates[contestant] / rates[one]:.2f}" if one in rates else "-" for one in CONTESTANTS[:2]]
            cells = [contestant, f"{rates[contestant]:,.0f}", *ratios]
            print(
                "| " + " | ".join([*cells, f"{losses['mlm_loss']:.3f}", f"{losses['nsp_loss']:.3f}"]) + " |", flush=True
            )


if __name__ == "__main__":
    main()
