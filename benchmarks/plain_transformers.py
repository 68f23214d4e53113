"""What a plain `transformers` script gives on the same data, written as a tutorial would write it.

    python benchmarks/plain_transformers.py train TRAIN DEV --base DIR [--epochs 3] [--lr 5e-4]
    python benchmarks/plain_transformers.py ner MODEL DEV
    python benchmarks/plain_transformers.py nli MODEL DEV
    python benchmarks/plain_transformers.py zero-shot MODEL DEV --labels World,Sports,Business,Sci/Tech

`train` fine-tunes a tagger with the Trainer as it comes (fp32, batches of 32, labels on the first token of each
word, texts cut at 256 tokens) and scores it with seqeval. The others run `transformers.pipeline` as it comes on a
directory that `bothways finetune` wrote. Extractive question answering is missing: transformers 5 has neither the
pipeline nor the metric any more. Needs the `train` and `dev` extras.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

BATCH, SEED, LONGEST, IGNORE = 32, 0, 256, -100


def sentences(path: Path) -> list[tuple[list[str], list[str]]]:
    """Words and BIO tags of a column file, read as the benchmark's other side reads it."""
    from bothways.data.tables import Columns
    from bothways.tasks import Tag

    found = []
    for one in Tag.read(str(path), Columns()):
        assert isinstance(one.reference, tuple)
        found.append(([one.texts[0][start:end] for start, end in one.details.places], list(one.reference)))
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def entity_f1(references: list[list[str]], predicted: list[list[str]]) -> float:
    """Strict F1 of seqeval."""
    from seqeval.metrics import f1_score  # type: ignore[import-untyped]
    from seqeval.scheme import IOB2  # type: ignore[import-untyped]

    return float(f1_score(references, predicted, mode="strict", scheme=IOB2))


def train(options: argparse.Namespace) -> dict[str, float]:
    """Fine-tune a tagger with the Trainer, score it on dev."""
    import torch
    import transformers

    theirs: Any = transformers
    data, dev = sentences(options.data), sentences(options.dev)
    labels = sorted({tag for _, tags in [*data, *dev] for tag in tags})
    tokenizer = theirs.AutoTokenizer.from_pretrained(options.base)

    def encoded(part: list[tuple[list[str], list[str]]]) -> list[dict[str, Any]]:
        words = [words for words, _ in part]
        found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=LONGEST)
        targets = []
        for row, (_, tags) in enumerate(part):
            owners = [None, *found.word_ids(row)]
            targets.append(
                [IGNORE if word in (None, before) else labels.index(tags[word]) for before, word in pairwise(owners)]
            )
        return [{"input_ids": ids, "labels": own} for ids, own in zip(found["input_ids"], targets, strict=True)]

    torch.manual_seed(SEED)
    model = theirs.AutoModelForTokenClassification.from_pretrained(options.base, num_labels=len(labels))
    with tempfile.TemporaryDirectory() as out:
        arguments = theirs.TrainingArguments(
            out,
            num_train_epochs=options.epochs,
            learning_rate=options.lr,
            per_device_train_batch_size=BATCH,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            seed=SEED,
        )
        collator = theirs.DataCollatorForTokenClassification(tokenizer)
        trainer = theirs.Trainer(model=model, args=arguments, train_dataset=encoded(data), data_collator=collator)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        answered = trainer.predict(encoded(dev))
    references, predicted = [], []
    for (_, tags), scores, targets in zip(dev, answered.predictions, answered.label_ids, strict=True):
        found = [labels[best] for best in scores.argmax(-1)[targets != IGNORE]]
        predicted.append(found + ["O"] * (len(tags) - len(found)))  # what was cut off has no entity
        references.append(tags)
    return {"entity_f1": entity_f1(references, predicted), "seconds": seconds}


def pipeline_of(task: str, model: Path, **options: Any) -> Any:
    """A pipeline of transformers as it comes."""
    import transformers

    make: Any = transformers.pipeline
    return make(task, str(model), **options)


def ner(options: argparse.Namespace) -> dict[str, float]:
    """The pipeline's entities, put on words, against those of a column file."""
    pipe = pipeline_of("ner", options.model, aggregation_strategy="first")
    data = sentences(options.data)
    began = time.perf_counter()
    answers = [pipe(" ".join(words)) for words, _ in data]
    seconds = time.perf_counter() - began
    predicted = []
    for (words, _), entities in zip(data, answers, strict=True):
        tags, place = [], 0
        for word in words:
            own = next((one for one in entities if one["start"] < place + len(word) and place < one["end"]), None)
            tags.append("O" if own is None else f"{'B' if own['start'] >= place else 'I'}-{own['entity_group']}")
            place += len(word) + 1
        predicted.append(tags)
    return {"entity_f1": entity_f1([tags for _, tags in data], predicted), "seconds": seconds}


def nli(options: argparse.Namespace) -> dict[str, float]:
    """The pipeline's classes of pairs."""
    pipe = pipeline_of("text-classification", options.model)
    data = rows(options.data)
    began = time.perf_counter()
    answers = pipe([{"text": row["premise"], "text_pair": row["hypothesis"]} for row in data])
    seconds = time.perf_counter() - began
    right = [answer["label"] == row["label"] for answer, row in zip(answers, data, strict=True)]
    return {"accuracy": sum(right) / len(right), "seconds": seconds}


def zero_shot(options: argparse.Namespace) -> dict[str, float]:
    """The pipeline's first label."""
    pipe = pipeline_of("zero-shot-classification", options.model)
    data = rows(options.data)
    began = time.perf_counter()
    answers = pipe(
        [row["text"] for row in data],
        options.labels.split(","),
        hypothesis_template=options.hypothesis_template,
        multi_label=False,
    )
    seconds = time.perf_counter() - began
    right = [answer["labels"][0] == row["label"] for answer, row in zip(answers, data, strict=True)]
    return {"accuracy": sum(right) / len(right), "seconds": seconds}


def main() -> None:
    """Measure one thing and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, measure in (("train", train), ("ner", ner), ("nli", nli), ("zero-shot", zero_shot)):
        command = commands.add_parser(name)
        command.set_defaults(measure=measure)
        if name == "train":
            command.add_argument("data", type=Path)
            command.add_argument("dev", type=Path)
            command.add_argument("--base", type=Path, required=True)
            command.add_argument("--epochs", type=int, default=3)
            command.add_argument("--lr", type=float, default=5e-4)
        else:
            command.add_argument("model", type=Path)
            command.add_argument("data", type=Path)
        if name == "zero-shot":
            command.add_argument("--labels", required=True)
            command.add_argument("--hypothesis-template", default="This example is {}.")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    import transformers

    print(json.dumps({"transformers": transformers.__version__, "load": load} | options.measure(options)))


if __name__ == "__main__":
    main()
