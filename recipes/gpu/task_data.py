"""The training windows and dev sets of the four tasks that teachers and students are trained on (train.py).

| task | labelled | unlabelled: the teacher labels it | dev; checkpoints are chosen on those with a star |
|---|---|---|---|
| nli | nli/train | 60,000 re-paired texts, 60,000 texts with a topic | nli/dev* |
| squad | SQuAD 1.1, and 12 % of its questions with another paragraph | | SQuAD 1.1 dev* |
| sentiment | SST-2, 22,500 IMDB reviews (first 512 tokens) | | SST-2 dev*, 2,500 other reviews* |
| ner | CoNLL-2003, wikigold, Broad Twitter Corpus, WNUT-17, EWT | | CoNLL-2003 dev*, WNUT-17 dev |
"""

from __future__ import annotations

import csv
import json
import lzma
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.tasks import Answer, Classify, Pairs, Tag, Trainable
from bothways.text.tokenizer import Encoded, Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ner_data import FILES, TWEETS, sentences
from sentiment_data import HELD_OUT, LABELS, imdb, sst2

RE_PAIRED, TOPIC_PAIRS = 20_000, 60_000  # the first for each of three kinds
OTHER_PARAGRAPHS = 0.12  # of the questions of SQuAD
TYPES = ("LOC", "MISC", "ORG", "PER")
TOPICS = (
    "politics;elections;government;law and justice;war;peace;the military;terrorism;diplomacy;international relations;"
    "world news;sports;football;basketball;baseball;tennis;the olympic games;business;economics;the stock market;"
    "finance;banking;money;taxes;insurance;real estate;trade;industry;advertising;work and jobs;technology;computers;"
    "software;the internet;mobile phones;video games;artificial intelligence;robots;science;physics;chemistry;biology;"
    "mathematics;astronomy;space travel;medicine;health;disease;fitness;nutrition;psychology;education;schools;"
    "universities;history;archaeology;geography;religion;philosophy;art;painting;music;film;television;theatre;"
    "literature;books;poetry;dance;photography;fashion;architecture;food;cooking;restaurants;drinks;travel;hotels;"
    "airlines;cars;trains;ships;traffic;the weather;the climate;the environment;energy;oil and gas;agriculture;"
    "animals;birds;fish;plants;nature;mountains;rivers and lakes;the sea;cities;villages;family;children;marriage;"
    "friendship;love;dating;home and garden;shopping;crime;police;accidents;natural disasters;fire;floods;earthquakes;"
    "human rights;immigration;poverty;charity;celebrities;royalty;holidays;birthdays;humour;opinion;advice;joy;"
    "happiness;sadness;anger;fear;surprise;disgust;shame;guilt;pride;gratitude;admiration;disappointment;curiosity;"
    "confusion;excitement;nervousness;relief;remorse;caring;desire;amusement;annoyance;approval;disapproval;grief;"
    "optimism;boredom;envy;a question;a request;a complaint;a compliment;an order;a greeting;a reminder;a definition;"
    "a description;a person;a place;a number;a date;an abbreviation;a company;an organisation;a card payment;"
    "a lost card;a bank transfer;a refund;an exchange rate;a password;booking a flight;booking a table;an alarm;"
    "a shopping list;a recipe;the calendar;playing music;a translation;car maintenance;a credit score;a phone call;"
    "small talk;a review;a positive opinion;a negative opinion;a neutral opinion;medical help;food supply;"
    "water supply;shelter;search and rescue;utilities and power;evacuation;good news;bad news;positive;negative"
)
TEMPLATES = ("This example is about {}.", "This text is about {}.", "This example is {}.")
Pair = tuple[str, str]  # premise, hypothesis


@dataclass(frozen=True, slots=True)
class TaskData:
    """What a teacher and its student are trained and evaluated on."""

    task: Trainable
    windows: list[Encoded]  # to train on; an unlabelled one has no target
    dev: dict[str, list[Example]]
    chosen_on: tuple[str, ...]  # dev sets; the mean of their metrics decides


def nli(data: Path, tokenizer: Tokenizer, limit: int | None) -> TaskData:
    """Natural language inference."""
    rng = random.Random(0)
    train = Pairs.read(data / "nli/train.jsonl.xz", Columns())
    pairs = [(one.texts[0], one.texts[1]) for one in train]
    unlabelled = re_paired(pairs, rng, limit or RE_PAIRED) + topic_pairs(data, tokenizer, rng, limit or TOPIC_PAIRS)
    task = Pairs(labels=("contradiction", "entailment", "neutral"), max_length=256)
    windows = replace(task, truncation=True).encode([*train[:limit], *map(Example, unlabelled)], tokenizer)
    return TaskData(task, windows, {"nli": Pairs.read(data / "nli/dev.jsonl", Columns())[:limit]}, ("nli",))


def re_paired(pairs: list[Pair], rng: random.Random, count: int) -> list[Pair]:
    """`count` pairs exchanged, as many of two hypotheses of one premise, and of texts of two different pairs."""
    hypotheses: dict[str, list[str]] = {}
    for premise, hypothesis in pairs:
        hypotheses.setdefault(premise, []).append(hypothesis)
    several = [group for group in hypotheses.values() if len(group) > 1]
    exchanged = [(hypothesis, premise) for premise, hypothesis in rng.sample(pairs, min(count, len(pairs)))]
    siblings = [(one, other) for one, other in (rng.sample(rng.choice(several), 2) for _ in range(count))]
    crossed = [(rng.choice(pairs)[0], rng.choice(pairs)[1]) for _ in range(count)]
    return exchanged + siblings + crossed


def topic_pairs(data: Path, tokenizer: Tokenizer, rng: random.Random, count: int) -> list[Pair]:
    """Texts of several sources, cut to 24 to 111 tokens, each with a statement about its topic.

    Of the texts that contain a word of the name of a topic, half get one of these topics; the others get any.
    """
    topics = TOPICS.split(";")
    topics_with: dict[str, list[str]] = {}
    for topic in topics:
        for word in re.findall(r"[a-z]{4,}", topic):
            topics_with.setdefault(word.rstrip("s"), []).append(topic)
    texts = [text for some, share in sources(data) for text in rng.sample(some, min(int(count * share), len(some)))]
    cut = tokenizer.backend.encode_batch([text[:1500] for text in texts], add_special_tokens=False)
    found: list[Pair] = []
    for text, encoding in zip(texts, cut, strict=True):
        words = re.findall(r"[a-z]+", text[:700].lower())
        named = [topic for word in words for topic in topics_with.get(word.rstrip("s"), [])]
        statement = rng.choice(TEMPLATES).format(rng.choice(named if named and rng.random() < 0.5 else topics))
        ends = [end for _, end in encoding.offsets[: rng.randrange(24, 112)]]
        if ends:
            found.append((text[: ends[-1]], statement))
    return found


def sources(data: Path) -> list[tuple[list[str], float]]:
    """Training texts of several kinds, and the share of the topic pairs that are made of each."""

    def paragraphs(name: str) -> list[str]:
        with lzma.open(data / "corpus" / name, "rt", encoding="utf-8") as lines:
            return [line.strip() for line in lines if len(line) > 60]

    def first_column(name: str) -> list[str]:
        return [line.split("\t")[0] for line in (data / name).read_text(encoding="utf-8").splitlines()]

    clinc = json.loads((data / "clinc150/data_full.json").read_text(encoding="utf-8"))
    with (data / "banking77/train.csv").open(encoding="utf-8", newline="") as file:
        banking = [row["text"] for row in csv.DictReader(file)]
    return [
        (paragraphs("wiki-07.txt.xz"), 0.30),
        (paragraphs("books-01.txt.xz"), 0.10),
        (first_column("goemotions/train.tsv"), 0.22),
        ([text for text, _ in clinc["train"] + clinc["oos_train"]], 0.13),
        (banking, 0.06),
        (first_column("trec/train.tsv")[1:], 0.05),
        ([text for text, _ in imdb(data / "imdb/train.jsonl.xz")[:-HELD_OUT]], 0.14),
    ]


def squad(data: Path, tokenizer: Tokenizer, limit: int | None) -> TaskData:
    """Question answering; of a question with another paragraph of its article the answer is [CLS]."""
    rng = random.Random(0)
    asked = [(str((one.row or {})["title"]), one) for one in Answer.read(data / "squad/train-v1.1.json.xz", Columns())]
    paragraphs: dict[str, list[str]] = {}  # of each article
    for title, example in asked:
        if example.texts[1] not in paragraphs.setdefault(title, []):
            paragraphs[title].append(example.texts[1])
    asked = asked[:limit]
    unanswered = [
        Example((example.texts[0], paragraph), ())
        for title, example in rng.sample(asked, int(OTHER_PARAGRAPHS * len(asked)))
        if (paragraph := rng.choice(paragraphs[title])) != example.texts[1]
    ]
    task = Answer()
    windows = task.encode([example for _, example in asked], tokenizer)
    windows = [window for window in windows if window.target is not None]  # the place of the answer is certain
    windows += replace(task, truncation=True).encode(unanswered, tokenizer)
    return TaskData(task, windows, {"squad": Answer.read(data / "squad/dev-v1.1.json", Columns())[:limit]}, ("squad",))


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
TASK_DATA: dict[str, Callable[[Path, Tokenizer, int | None], TaskData]] = {
    **{"nli": nli, "squad": squad, "sentiment": sentiment, "ner": ner}
}
