"""Training data of the zero-shot model: entailment pairs from NLI, topics of running text, and labeled texts.

    python recipes/zero_shot_data.py DATA OUT.jsonl

DATA is the folder of data sets (docs/models.md lists them). Three kinds of rows, shuffled:

- the NLI training set as it is;
- sentences of Wikipedia and of Reuters news (CoNLL-2003, train) with topics. A text gets the topic group whose names
  are nearest to it in the sentence vectors of minilm-l6, if no other group is close. It entails "This example is
  {name}." for names
  of this group and contradicts it for names of groups that are far away. No labeled text is used for these rows;
- intents, emotions, question types and sentiments of labeled training sets: a text entails its own label and
  contradicts another.
"""

from __future__ import annotations

import csv
import json
import lzma
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bothways

TOPICS = {
    "world": "world;world news;world affairs;international affairs;international news;international relations;"
    "foreign affairs;foreign policy;diplomacy;war;conflict;peace;terrorism;the middle east;the military",
    "politics": "politics;government;elections;political news;the president;parliament;congress;laws;public policy;"
    "a political party",
    "business": "business;business news;economics;the economy;finance;money;companies;the stock market;banking;trade;"
    "industry;markets;corporate earnings;jobs and work;real estate",
    "science and technology": "sci/tech;science and technology;technology;tech;science;computers;software;the internet;"
    "gadgets;video games;space;research;mobile phones;artificial intelligence;electronics",
    "sports": "sports;sport;sports news;football;soccer;baseball;basketball;tennis;hockey;golf;cricket;racing;"
    "athletics;the olympics;a match",
    "entertainment": "entertainment;movies;film;television;celebrities;music;theatre;show business;concerts;a tv show",
    "health": "health;medicine;disease;health care;fitness;nutrition;mental health;doctors and hospitals",
    "education": "education;schools;universities;teaching;students",
    "crime and law": "crime;law;justice;police;courts;the legal system;a trial",
    "travel": "travel;tourism;hotels;holidays;flights",
    "food": "food;cooking;restaurants;drinks;recipes",
    "religion": "religion;the church;faith;christianity;islam",
    "history": "history;archaeology;ancient history;the past",
    "art and literature": "art;literature;books;painting;poetry;culture;architecture;writing",
    "nature and environment": "nature;the environment;animals;plants;wildlife;climate change;biology;conservation",
    "geography": "geography;places;a town or village;rivers and mountains;a region",
    "weather": "weather;natural disasters;storms;floods",
    "transport": "transport;cars;trains;roads;ships;aviation;vehicles",
    "family and relationships": "family;relationships;love;marriage;children;friendship",
    "people": "a person;a biography;someone's life;someone's career",
}
NAMES = [(group, name) for group, names in TOPICS.items() for name in names.split(";")]
GROUPS = list(TOPICS)
ASKED = "This is a news article about {}."  # nearest to the topics of news in the vectors of minilm-l6, of three tried
ABOUT = ["This text is about {}.", "This example is about {}.", "The topic is {}.", "It is about {}.", "This is {}."]
ABOUT += ["This is a news article about {}.", "This text is {}.", "The subject of this text is {}.", "{}"]
USUAL = "This example is {}."  # the template of transformers
CLOSE = 3  # groups next to the nearest one, which are contradicted only if the nearest stands out
PER_GROUP, CANDIDATES = 1500, 48_000
QUESTIONS = {
    "DESC": ["a description", "a definition", "a reason"],
    "ENTY": ["a thing", "an entity"],
    "ABBR": ["an abbreviation"],
    "HUM": ["a person", "a human being"],
    "LOC": ["a place", "a location"],
    "NUM": ["a number", "an amount"],
}
Row = tuple[str, str, str]  # premise, hypothesis, label


def template(rng: random.Random) -> str:
    """The usual template in four of ten rows, else another."""
    return USUAL if rng.random() < 0.4 else rng.choice(ABOUT)


def encyclopedia(data: Path, rng: random.Random) -> Iterator[str]:
    """One or two sentences of paragraphs of Wikipedia."""
    for shard in sorted((data / "corpus").glob("wiki-*.txt.xz")):
        with lzma.open(shard, "rt", encoding="utf-8") as lines:
            for line in lines:
                if 80 < len(line) < 1500 and rng.random() < 0.08:
                    sentences = re.split(r"(?<=[.!?]) ", line.strip())
                    first = rng.randrange(len(sentences))
                    text = " ".join(sentences[first : first + rng.choice((1, 1, 2))])
                    if 40 < len(text) < 320:
                        yield text


def news(data: Path, rng: random.Random) -> Iterator[str]:
    """One to three sentences of Reuters news in a row, with the spaces before punctuation taken out."""
    documents: list[list[str]] = []
    words: list[str] = []
    for line in (data / "conll2003/train.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("-DOCSTART-"):
            documents.append([])
        elif line:
            words.append(line.split(" ")[0])
        elif words:
            documents[-1].append(" ".join(words))
            words = []
    for document in documents:
        sentences = [one for one in document if len(one) > 30 and one[-1] in '.?!"']
        place = 0
        while place < len(sentences):
            count = rng.choice((1, 1, 2, 3))
            text = re.sub(r" ([.,;:?!%)]|'s\b|n't\b)", r"\1", " ".join(sentences[place : place + count]))
            place += count
            if 40 < len(text) < 400:
                yield text.replace("( ", "(")


def topics(data: Path, rng: random.Random) -> Iterator[Row]:
    """Texts with the topics that are nearest to them, and topics that are not."""
    texts = list(encyclopedia(data, rng))
    rng.shuffle(texts)
    reuters = list(news(data, rng))
    texts = texts[:CANDIDATES] + reuters
    embed = bothways.load("minilm-l6", task="embed")

    def vectors(inputs: list[str]) -> np.ndarray:
        found = np.array([one.vector for one in embed(inputs)], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    near = vectors(texts) @ vectors([ASKED.format(name) for _, name in NAMES]).T
    near -= near.mean(0)  # a popular topic does not win by being popular
    columns = {group: [place for place, (of, _) in enumerate(NAMES) if of == group] for group in GROUPS}
    score = np.stack([np.sort(near[:, columns[group]], 1)[:, -3:].mean(1) for group in GROUPS], 1)
    order = score.argsort(1)[:, ::-1]
    best = np.take_along_axis(score, order[:, :2], 1)
    margin = best[:, 0] - best[:, 1]
    middle = float(np.median(margin))
    for number in range(len(GROUPS)):
        own = np.flatnonzero((order[:, 0] == number) & (margin > middle / 2))
        own = own[np.argsort(-margin[own])][: 2 * PER_GROUP]
        for place in rng.sample(list(own), min(PER_GROUP, len(own))):
            text, group = texts[place], GROUPS[number]
            nearest = max(columns[group], key=lambda column: near[place, column])
            names = TOPICS[group].split(";")
            right = [rng.choice(names[:4]), NAMES[nearest][1] if rng.random() < 0.5 else rng.choice(names[:2])]
            for name in right[: 1 + (rng.random() < 0.3)]:
                yield text, template(rng).format(name), "entailment"
            wrong = [GROUPS[other] for other in rng.sample(list(order[place, 1 + CLOSE :]), 2)]
            if margin[place] > middle:
                wrong[0] = GROUPS[rng.choice(list(order[place, 1 : 1 + CLOSE]))]
            for other in wrong[: 1 + (rng.random() < 0.6)]:
                label = "contradiction" if rng.random() < 0.7 else "neutral"
                yield text, template(rng).format(rng.choice(TOPICS[other].split(";")[:6])), label


def labeled(data: Path, rng: random.Random) -> Iterator[Row]:
    """Labelled training texts as entailment pairs."""
    banking = list(csv.DictReader((data / "banking77/train.csv").open(encoding="utf-8", newline="")))
    clinc = json.loads((data / "clinc150/data_full.json").read_text(encoding="utf-8"))["train"]
    names = (data / "goemotions/labels.txt").read_text(encoding="utf-8").split()
    emotions = [line.split("\t") for line in (data / "goemotions/train.tsv").read_text(encoding="utf-8").splitlines()]
    trec = [line.split("\t") for line in (data / "trec/train.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    sst2 = [line.split("\t") for line in (data / "sst2/train.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    felt = [(row[0], names[int(row[1])]) for row in emotions if "," not in row[1] and names[int(row[1])] != "neutral"]
    intents = [(row["text"], row["category"].lower()) for row in banking], [(text, label) for text, label in clinc]
    asked = [(text, rng.choice(QUESTIONS[label])) for text, label in trec]
    polar = [(text, ("negative", "positive")[int(label)]) for text, label in sst2 if len(text) > 50]
    sets: list[tuple[list[tuple[str, str]], list[str], int]] = [
        (intents[0], ["The customer asks about {}.", "This is about {}."], 5000),
        (intents[1], ["The request is about {}.", "The user wants {}."], 6000),
        (felt, ["The emotion is {}.", "This text expresses {}.", "The author feels {}."], 6000),
        (asked, ["The question asks for {}.", "The answer is {}."], 2000),
        (polar, ["This review is {}.", "The sentiment is {}.", "The opinion is {}."], 3000),
    ]
    for rows, templates, count in sets:
        kinds = sorted({label for _, label in rows})
        for text, label in rng.sample(rows, min(count, len(rows))):
            frame = USUAL if rng.random() < 0.4 else rng.choice(templates)
            yield text, frame.format(label.replace("_", " ")), "entailment"
            if rows is asked:
                others = [name for names in QUESTIONS.values() if label not in names for name in names]
            else:
                others = [kind for kind in kinds if kind != label]
            yield text, frame.format(rng.choice(others).replace("_", " ")), "contradiction"


def main(data: Path, out: Path) -> None:
    """Write the rows of all three kinds."""
    rng = random.Random(0)
    with lzma.open(data / "nli/train.jsonl.xz", "rt", encoding="utf-8") as lines:
        nli = [json.loads(line) for line in lines]
    rows: list[Row] = [(row["premise"], row["hypothesis"], row["label"]) for row in nli]
    for made in (topics(data, rng), labeled(data, rng)):
        before = len(rows)
        rows += made
        print(f"{len(rows) - before:,} rows of {made.__name__}", file=sys.stderr)
    rng.shuffle(rows)
    with out.open("w", encoding="utf-8") as file:
        for premise, hypothesis, label in rows:
            row = {"premise": premise, "hypothesis": hypothesis, "label": label}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
