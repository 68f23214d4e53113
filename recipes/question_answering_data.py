"""Training data of the question answering model: SQuAD 1.1 with questions that the paragraph does not answer.

    python recipes/question_answering_data.py DATA TRAIN.json DEV.json [--questions N] [--others N]

DEV.json holds 500 questions of the dev set of SQuAD 1.1 and 700 of that of SQuAD 2.0. No training data of SQuAD 2.0 is
used. Questions without an answer are made from answerable ones:

- a name or a number of the question is replaced by another one of the same article;
- one word is replaced by its opposite (first, last), or the question is negated;
- the question is asked of another paragraph of its article that does not contain the answer, half of the time the one
  that has most words of the question.

The answerable question is kept beside the changed one, so that the model learns what the change does.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
import sys
from pathlib import Path
from typing import Any

NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'-]+(?: (?:of |the |de |von )?[A-Z][\w'-]+)*")
NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
PAIRS = (
    "first last;before after;largest smallest;highest lowest;most least;north south;east west;northern southern;"
    "eastern western;increase decrease;increased decreased;win lose;won lost;beginning end;more fewer;oldest youngest;"
    "earlier later;maximum minimum;inside outside;above below;men women;male female;public private;positive negative;"
    "best worst;old new;rich poor;high low;large small;long short;early late;strong weak;common rare;major minor;"
    "same different;started ended;begin stop;began stopped;allowed forbidden;accepted rejected;upper lower;major minor;"
    "easiest hardest;longest shortest;earliest latest;gained lost;internal external;legal illegal;always never;"
    "husband wife;father mother;son daughter;king queen;open closed;cold hot;warm cool;born killed;buy sell;north west"
)
OPPOSITE = {one: other for pair in PAIRS.split(";") for one, other in (pair.split(), pair.split()[::-1])}
NEGATED = re.compile(r"\b(is|are|was|were|did|does|do|can|could|has|have|had|will|would)\b(?! not)")


def names_in(text: str) -> list[str]:
    """Runs of capitalized words inside sentences, and numbers."""
    return sorted({*NAME.findall(text), *NUMBER.findall(text)})


def swapped(question: str, near: list[str], others: list[str], rng: random.Random) -> str | None:
    """The question with a name or a number replaced by another one, of the paragraph (`near`) if it has one."""
    found = [*NAME.finditer(question), *NUMBER.finditer(question)]
    rng.shuffle(found)
    for match in found:
        number = NUMBER.fullmatch(match[0]) is not None
        for source in (near, others) if rng.random() < 0.7 else (others,):
            able = [
                one
                for one in source
                if one not in question
                and match[0] not in one
                and number == (NUMBER.fullmatch(one) is not None)
                and (len(one) == len(match[0]) if number else len(one.split()) == len(match[0].split()))
            ]
            if able:
                return question[: match.start()] + rng.choice(able) + question[match.end() :]
    return None


def opposed(question: str, rng: random.Random) -> str | None:
    """The question with one word replaced by its opposite, or with a negation.

    >>> opposed("Which river is the longest?", random.Random(0))
    'Which river is the shortest?'
    """
    words = [match for match in re.finditer(r"[a-z]+", question) if match[0] in OPPOSITE]
    if words:
        match = rng.choice(words)
        return question[: match.start()] + OPPOSITE[match[0]] + question[match.end() :]
    verb = NEGATED.search(question)
    if verb is None or rng.random() < 0.5:
        return None
    if verb[0] in ("did", "does", "do"):  # after the subject
        rest = question[verb.end() :].split(" ")
        return None if len(rest) < 5 else f"{question[: verb.end()]} not{question[verb.end() :]}"
    return f"{question[: verb.end()]} not{question[verb.end() :]}"


def dev_set(data: Path) -> dict[str, Any]:
    """Questions of both dev sets, each with a paragraph of its own."""
    rng, made = random.Random(1), list[dict[str, Any]]()
    for name, count in (("dev-v1.1", 500), ("dev-v2.0", 700)):
        articles = json.loads((data / f"squad/{name}.json").read_text(encoding="utf-8"))["data"]
        asked = [
            (part["context"], one) for article in articles for part in article["paragraphs"] for one in part["qas"]
        ]
        for context, question in rng.sample(asked, count):
            known = {"is_impossible": False} | question | {"id": f"{question['id']}-{len(made)}"}
            made.append({"title": name, "paragraphs": [{"context": context, "qas": [known]}]})
    return {"version": "v2.0", "data": made}


def main(data: Path, out: Path, dev: Path, *, questions: int, others: int) -> None:
    """Write both files in the layout of SQuAD 2.0."""
    dev.write_text(json.dumps(dev_set(data), ensure_ascii=False), encoding="utf-8")
    rng = random.Random(0)
    with lzma.open(data / "squad/train-v1.1.json.xz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    asked: list[tuple[int, int, dict[str, Any]]] = [
        (number, place, question)
        for number, article in enumerate(articles)
        for place, paragraph in enumerate(article["paragraphs"])
        for question in paragraph["qas"]
        if question.get("start_certain", True)
    ]
    chosen = rng.sample(asked, min(questions, len(asked)))
    kept: dict[tuple[int, int], list[dict[str, Any]]] = {}
    names = [names_in(" ".join(part["context"] for part in article["paragraphs"])) for article in articles]
    counts = {"answerable": 0, "swapped": 0, "opposed": 0, "other paragraph": 0}

    def add(number: int, place: int, question: str, answers: list[dict[str, Any]], kind: str) -> None:
        counts[kind] += 1
        entry = {"id": f"{kind.split()[0]}-{counts[kind]}", "question": question, "answers": answers}
        kept.setdefault((number, place), []).append(entry | {"is_impossible": not answers})

    for number, place, question in chosen:
        text, answers = question["question"], question["answers"]
        add(number, place, text, answers, "answerable")
        opposite = opposed(text, rng)
        near = names_in(articles[number]["paragraphs"][place]["context"])
        other = swapped(text, near, names[number], rng)
        if other is not None and (opposite is None or rng.random() < 0.6):
            add(number, place, other, [], "swapped")
        elif opposite is not None:
            add(number, place, opposite, [], "opposed")
    for number, place, question in rng.sample(chosen, min(others, len(chosen))):
        answer = question["answers"][0]["text"].casefold()
        parts = articles[number]["paragraphs"]
        able = [spot for spot, part in enumerate(parts) if spot != place and answer not in part["context"].casefold()]
        if able:
            words = set(re.findall(r"\w{4,}", question["question"].casefold()))
            like = max(able, key=lambda spot: sum(word in parts[spot]["context"].casefold() for word in words))
            add(number, like if rng.random() < 0.5 else rng.choice(able), question["question"], [], "other paragraph")
    made = []
    for (number, place), questions in kept.items():
        paragraph = {"context": articles[number]["paragraphs"][place]["context"], "qas": questions}
        made.append({"title": articles[number]["title"], "paragraphs": [paragraph]})
    out.write_text(json.dumps({"version": "v2.0", "data": made}, ensure_ascii=False), encoding="utf-8")
    print(counts, file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("data", "out", "dev"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--questions", type=int, default=1_000_000, help="answerable questions to read, at most")
    parser.add_argument("--others", type=int, default=20_000, help="questions to ask of another paragraph")
    main(**vars(parser.parse_args()))
