"""Training and dev data of the sentiment model: SST-2 and IMDB with the labels NEGATIVE and POSITIVE.

    python recipes/sentiment_data.py DATA OUT

Writes OUT/train.jsonl (SST-2 and the first 22,500 IMDB reviews, shuffled), OUT/sst2.jsonl (the dev set of SST-2) and
OUT/imdb.jsonl (the last 2,500 reviews of IMDB's training set, which train.jsonl does not have).
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from pathlib import Path

HELD_OUT = 2500
Row = tuple[str, str]  # text, label


def sst2(path: Path) -> list[Row]:
    """Sentences of one file of SST-2."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [(text, ("NEGATIVE", "POSITIVE")[int(label)]) for text, label in rows]


def imdb(path: Path) -> list[Row]:
    """The reviews of IMDB's training set."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["text"], {"neg": "NEGATIVE", "pos": "POSITIVE"}[row["label"]]) for row in rows]


def main(data: Path, out: Path) -> None:
    """Write the three files."""
    reviews = imdb(data / "imdb/train.jsonl.xz")
    train = sst2(data / "sst2/train.tsv") + reviews[:-HELD_OUT]
    random.Random(0).shuffle(train)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("sst2", sst2(data / "sst2/dev.tsv")), ("imdb", reviews[-HELD_OUT:])):
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
