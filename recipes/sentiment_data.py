"""Training and dev data of the sentiment model, with the labels NEGATIVE and POSITIVE.

    python recipes/sentiment_data.py DATA OUT

Writes OUT/train.jsonl, OUT/sst2.jsonl (the dev set of SST-2) and OUT/imdb.jsonl (the last 2,500 reviews of IMDB's
training set, which train.jsonl does not have). The training rows, shuffled:

- parts of SST-2 and of the other IMDB reviews, which the student has seen in whole;
- GoEmotions comments whose emotions are all pleasant or all unpleasant, so that it is not about films alone;
- sentences without an opinion, each once with either label, so that the model learns to answer 0.5: comments that
  GoEmotions calls neutral, lukewarm phrases, and statements that name people of different origins, religions,
  genders and orientations, none of which is a reason for either label.
"""

from __future__ import annotations

import itertools
import json
import lzma
import random
import sys
from pathlib import Path

HELD_OUT, SENTENCES, REVIEWS, COMMENTS, NEUTRAL = 2500, 15_000, 1500, 8000, 4000
PLEASANT = "admiration amusement approval caring excitement gratitude joy love optimism pride relief"
UNPLEASANT = "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness"
NAMES = (
    "Emily;Mohammed;Lakisha;Nguyen;Hans;Svetlana;Jamal;Mei;Carlos;Priya;Ahmed;Greta;Kwame;Yuki;Fatima;John;Chidi;Leila;"
    "Giovanni;Soo-jin;Maria;Rahul;Aisha;Piotr;Mary;Tyrone;Dmitri;Ingrid;Omar;Rosa"
)
KINDS = (
    "Black;white;Asian;Latino;African;European;Arab;Indian;Chinese;Nigerian;German;American;Mexican;Turkish;Polish;"
    "Iranian;Muslim;Christian;Jewish;Hindu;Buddhist;Catholic;atheist;gay;straight;lesbian;bisexual;transgender;old;young;"
    "disabled;deaf;blind;Russian;Vietnamese;Native American;Somali;French"
)
PEOPLE = "director;actor;author;man;woman;family;teacher;neighbour;couple;doctor;character;singer"
NAMED = (
    "{} saw the film yesterday.;My name is {}.;{} and I went to the cinema.;{} works here.;"
    "I talked to {} about the book.;{} plays the main character."
)
ABOUT = (
    "The {1} is {0}.;The film is about a {0} {1}.;A {0} {1} wrote it.;I am {0}.;The {0} {1} lives next door.;"
    "My {1} is {0}.;It is a story about {0} people."
)
THINGS = "film;movie;book;meal;hotel;phone;concert;game;service;episode;play;album"
LUKEWARM = (
    "The {} was average.;An average {}.;The {} was neither good nor bad.;The {} was so-so.;It was an ordinary {}.;"
    "I have no strong opinion about the {}.;The {} had good and bad parts.;I neither liked nor disliked the {}.;"
    "The {} was alright, I guess.;Just another {}.;The {} starts at eight.;We saw the {} on Monday.;"
    "Some will like the {}, some will not.;The {} is what you would expect."
)
Row = tuple[str, str]  # text, label
LABELS = ("NEGATIVE", "POSITIVE")


def sst2(path: Path) -> list[Row]:
    """Sentences of one file of SST-2."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [(text, LABELS[int(label)]) for text, label in rows]


def imdb(path: Path) -> list[Row]:
    """The reviews of IMDB's training set."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["text"], {"neg": "NEGATIVE", "pos": "POSITIVE"}[row["label"]]) for row in rows]


def comments(folder: Path) -> tuple[list[Row], list[str]]:
    """Comments of GoEmotions with a label, and those that are neutral."""
    pleasant, unpleasant = set(PLEASANT.split()), set(UNPLEASANT.split())
    names = (folder / "labels.txt").read_text(encoding="utf-8").split()
    polar: list[Row] = []
    neutral: list[str] = []
    for line in (folder / "train.tsv").read_text(encoding="utf-8").splitlines():
        text, numbers, _ = line.split("\t")
        felt = {names[int(number)] for number in numbers.split(",")}
        if felt <= pleasant or felt <= unpleasant:
            polar.append((text, LABELS[felt <= pleasant]))
        elif felt == {"neutral"}:
            neutral.append(text)
    return polar, neutral


def without_opinion() -> list[str]:
    """Lukewarm phrases, and statements about people."""
    named = [frame.format(name) for frame in NAMED.split(";") for name in NAMES.split(";")]
    about = [
        frame.format(kind, person)
        for frame, kind in itertools.product(ABOUT.split(";"), KINDS.split(";"))
        for person in (PEOPLE.split(";") if "{1}" in frame else [""])
    ]
    lukewarm = [frame.format(thing) for frame in LUKEWARM.split(";") for thing in THINGS.split(";")]
    return named + random.Random(0).sample(about, 700) + lukewarm


def main(data: Path, out: Path) -> None:
    """Write the three files."""
    rng = random.Random(0)
    reviews = imdb(data / "imdb/train.jsonl.xz")
    polar, neutral = comments(data / "goemotions")
    opinionless = rng.sample(neutral, NEUTRAL) + without_opinion()
    train = rng.sample(sst2(data / "sst2/train.tsv"), SENTENCES)
    train += rng.sample(reviews[:-HELD_OUT], REVIEWS) + rng.sample(polar, COMMENTS)
    train += [(text, label) for text in opinionless for label in LABELS]
    rng.shuffle(train)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("sst2", sst2(data / "sst2/dev.tsv")), ("imdb", reviews[-HELD_OUT:])):
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(train):,} training rows, {2 * len(opinionless):,} of them without an opinion", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
