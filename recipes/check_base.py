"""Compare fill-mask and next-sentence in int8 with the base model in fp32, and note the result in models/base/.

    python recipes/check_base.py DATA

DATA is the folder of data sets. One word is masked in each of 1,000 sentences of Wikipedia; the pairs are 500 sentences
with the one that follows and 500 with one of another article. Accuracy and agreement are noted.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import bothways

MODELS = Path(__file__).resolve().parents[1] / "models"
sys.path.insert(0, str(MODELS))
import build  # noqa: E402

COUNT = 1000


def paragraphs(data: Path, rng: random.Random) -> list[list[str]]:
    """Sentences of paragraphs of the last shard of Wikipedia, one paragraph of an article."""
    with lzma.open(data / "corpus/wiki-07.txt.xz", "rt", encoding="utf-8") as file:
        articles = file.read().split("\n\n")
    split = [re.split(r"(?<=[.!?]) (?=[A-Z])", article.strip().split("\n")[0]) for article in articles]
    return rng.sample(
        [one for one in split if len(one) > 2 and all(30 < len(text) < 300 for text in one[:2])], 2 * COUNT
    )


def main(data: Path) -> None:
    """Write accuracy and agreement into the two records."""
    rng = random.Random(0)
    chosen = paragraphs(data, rng)
    masked, words = [], []
    for first, *_ in chosen[:COUNT]:
        place = rng.choice(list(re.finditer(r"(?<=[a-z] )[a-z]{2,}(?= [a-z])", first)) or [re.search(r"\w+", first)])
        assert place is not None
        masked.append(f"{first[: place.start()]}[MASK]{first[place.end() :]}")
        words.append(place[0].lower())
    pairs, follows = [], []
    for number, (first, second, *_) in enumerate(chosen[:COUNT]):
        other = second if number % 2 else chosen[COUNT + number][1]
        pairs.append((first, other))
        follows.append("is_next" if number % 2 else "not_next")
    with tempfile.TemporaryDirectory() as temporary:
        for name, task, inputs, references in (
            ("fill-mask", "fill", masked, words),
            ("next-sentence", "next_sentence", pairs, follows),
        ):
            build.build_one(Path(temporary), name)
            forms = []
            served: Any = bothways.load(Path(temporary) / name)
            plain: Any = bothways.load(build.BASE, task=task, engine="torch", precision="fp32")
            for model in (served, plain):
                found = model(inputs)
                forms.append([one.summary()[0] for one in found])
            right = [
                sum(answer == reference for answer, reference in zip(form, references, strict=True)) / COUNT
                for form in forms
            ]
            same = sum(one == other for one, other in zip(*forms, strict=True)) / COUNT
            check = {
                "metric": "accuracy",
                "reference": right[1],
                "value": right[0],
                "agreement": same,
                "examples": COUNT,
            }
            record = {"task": task, "accuracy_check": check}
            (build.HERE / "base" / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            print(name, check)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
