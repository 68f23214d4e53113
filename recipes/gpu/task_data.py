"""The training windows and dev sets of the tasks that teachers and students are trained on (train.py).

| task | data | dev; checkpoints are chosen on those with a star |
|---|---|---|
| sentiment | SST-2, 22,500 IMDB reviews (first 512 tokens) | SST-2 dev*, 2,500 other reviews* |
| ner | CoNLL-2003, wikigold, Broad Twitter Corpus, WNUT-17, EWT | CoNLL-2003 dev*, WNUT-17 dev |
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.tasks import Classify, Tag, Trainable
from bothways.text.tokenizer import Encoded, Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ner_data import FILES, TWEETS, sentences
from sentiment_data import HELD_OUT, LABELS, imdb, sst2

TYPES = ("LOC", "MISC", "ORG", "PER")


@dataclass(frozen=True, slots=True)
class TaskData:
    """What a teacher and its student are trained and evaluated on."""

    task: Trainable
    windows: list[Encoded]  # to train on
    dev: dict[str, list[Example]]
    chosen_on: tuple[str, ...]  # dev sets; the mean of their metrics decides


def sentiment(data: Path, tokenizer: Tokenizer, limit: int | None) -> TaskData:
    """Reviews: negative or positive."""
    reviews = imdb(data / "imdb/train.jsonl.xz")
    rows = sst2(data / "sst2/train.tsv")[:limit] + reviews[:-HELD_OUT][:limit]
    held_out = {"sst2": sst2(data / "sst2/dev.tsv")[:limit], "imdb": reviews[-HELD_OUT:][:limit]}
    task = Classify(labels=LABELS)
    windows = replace(task, truncation=True).encode([Example((text,), label) for text, label in rows], tokenizer)
    dev = {name: [Example((text,), label) for text, label in some] for name, some in held_out.items()}
    return TaskData(task, windows, dev, ("sst2", "imdb"))


def ner(data: Path, tokenizer: Tokenizer, limit: int | None) -> TaskData:
    """Named entities, the types of all sets mapped to four."""

    def read(*names: str) -> list[Example]:
        tagged = [zip(*rows, strict=True) for name in names for rows in list(sentences(data / name))[:limit]]
        return Tag.read([{"words": list(words), "tags": list(tags)} for words, tags in tagged], Columns())

    task = Tag(labels=("O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")), max_length=256)
    windows = [window for window in task.encode(read(*FILES, *TWEETS), tokenizer) if len(window.head_positions)]
    dev = {"conll2003": read("conll2003/dev.txt"), "wnut17": read("wnut17/dev.conll")}
    return TaskData(task, windows, dev, ("conll2003",))


# Each takes the folder of data sets, the tokenizer, and the most examples of each kind, to try it (None: all).
TASK_DATA: dict[str, Callable[[Path, Tokenizer, int | None], TaskData]] = {**{"sentiment": sentiment, "ner": ner}}
