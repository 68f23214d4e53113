"""Training data of the entity model: five annotated sets with four types, copies with other names, and Wikipedia.

    python recipes/ner_data.py DATA TEACHER OUT

DATA is the folder of data sets (docs/models.md lists them), TEACHER a model directory with the types PER, ORG, LOC
and MISC. OUT/dev.conll holds the dev sets of CoNLL-2003 and WNUT-17, types mapped. The training sentences, shuffled:

- in OUT/first.conll and OUT/second.conll: CoNLL-2003, WNUT-17, Broad Twitter Corpus, wikigold and EWT, types mapped to
  the four;
- in both (of the second, 6,000): these sentences once more, half of their names replaced by titles of Wikipedia
  articles of the same type, so that the model learns from the context and not from the names of 1996;
- in the first: sentences of Wikipedia articles about a person, an organization or a place. The article's title is an
  entity of that type, all other entities are the teacher's, where it is sure of every word;
- in the second: frames of news about companies, filled with such titles.
"""

from __future__ import annotations

import lzma
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import bothways

TYPES = {
    **{"PER": "PER", "PERSON": "PER", "LOC": "LOC", "LOCATION": "LOC", "FACILITY": "LOC", "ORG": "ORG"},
    **{"CORPORATION": "ORG", "GROUP": "ORG", "MISC": "MISC", "PRODUCT": "MISC", "CREATIVE-WORK": "MISC"},
}
FILES = ("conll2003/train.txt", "wikigold/wikigold.conll.txt", "wnut17/train.conll", "uner_ewt/dev.iob2")
DEV = ("conll2003/dev.txt", "wnut17/dev.conll")
TWEETS = tuple(f"btc/{section}.conll" for section in "abefgh")
KINDS = {
    "ORG": r"company|corporation|manufacturer|airline|bank|retailer|newspaper|magazine|publisher|organization|"
    r"organisation|agency|foundation|charity|political party|trade union|university|college|record label|"
    r"football club|basketball team|rock band|band|software developer|firm|startup|broadcaster",
    "LOC": r"village|town|city|municipality|commune|district|river|lake|mountain|island|suburb|hamlet|county|province",
}
BORN = re.compile(r"\((?:[^()]*\bborn\b|[^()]*\b[12]\d{3}\s*[–-]\s*(?:[^()]*\b)?[12]\d{3}\b)")
ABOUT = {
    kind: re.compile(rf"\b(?:is|was) (?:an?|the) (?:[\w'-]+ ){{0,5}}?(?:{words})\b") for kind, words in KINDS.items()
}
WORD = re.compile(r"\w+(?:[-'’.&]\w+)*|[^\w\s]")
FRAMES = (  # of news about companies, which the annotated sets have little of; filled with titles of articles
    "{PER} founded {ORG} in {LOC} .;{PER} founded {ORG} in 1998 .;{PER} , who founded {ORG} , lives in {LOC} .;"
    "{ORG} was founded by {PER} and {PER} in {LOC} .;{PER} started {ORG} with a loan of $ 5,000 .;"
    "{ORG} chief executive {PER} resigned on Monday .;{ORG} CEO {PER} spoke at a conference in {LOC} .;"
    "{PER} , CEO of {ORG} , said sales had doubled .;{PER} , the chairman of {ORG} , was born in {LOC} .;"
    "{ORG} opened its {LOC} headquarters .;{ORG} will close its plant in {LOC} .;"
    "The {LOC} headquarters of {ORG} were sold .;"
    "{ORG} unveiled a new product at its {LOC} office .;{PER} bought a third of {ORG} .;{PER} sold shares of {ORG} .;"
    "{ORG} hired {PER} from {ORG} .;{PER} left {ORG} to join {ORG} .;{ORG} sued {PER} in a {LOC} court .;"
    "{ORG} workers in {LOC} went on strike .;{PER} leads the {LOC} branch of {ORG} .;{PER} invested in {ORG} .;"
    "Employees of {ORG} met {PER} in {LOC} .;{PER} runs {ORG} from {LOC} .;"
    "{ORG} 's {LOC} campus was designed by {PER} ."
)
COPIES, FILLED = 6000, 3000  # in the second file
SURE, PER_KIND = 0.8, {"PER": 5000, "ORG": 5000, "LOC": 2500}
Words = list[tuple[str, str]]  # a sentence: words and their tags


def sentences(path: Path) -> Iterator[Words]:
    """The sentences of a file in columns, tags in BIO with the four types."""
    numbered, rows = path.suffix == ".iob2", list[tuple[str, str]]()
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if (numbered and line.startswith("# ")) or line.startswith("-DOCSTART-"):
            continue
        if line.strip():
            parts = line.split("\t") if "\t" in line else line.split(" ")
            word, tag = (parts[1], parts[2]) if numbered else (parts[0], parts[-1])
            if word.strip():
                rows.append((word, tag if tag == "O" else f"{tag[:2]}{TYPES[tag[2:].upper()]}"))
        elif rows:
            yield begun(rows)
            rows = []


def begun(rows: Words) -> Words:
    """An I- that continues nothing becomes a B-.

    >>> begun([("a", "I-PER"), ("b", "I-PER"), ("c", "I-LOC")])
    [('a', 'B-PER'), ('b', 'I-PER'), ('c', 'B-LOC')]
    """
    before, made = "O", []
    for word, tag in rows:
        if tag[0] == "I" and before[2:] != tag[2:]:
            tag = f"B{tag[1:]}"
        made.append((word, tag))
        before = tag
    return made


def articles(data: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """(type, title, how the first sentence names it, paragraphs) of articles on persons, organizations and places."""
    titles: dict[str, list[str]] = {}
    with lzma.open(data / "corpus/wiki-index.tsv.xz", "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            shard, _, title = line.rstrip("\n").split("\t")
            titles.setdefault(shard, []).append(title)
    for shard, names in titles.items():
        with lzma.open(data / f"corpus/wiki-{shard}.txt.xz", "rt", encoding="utf-8") as file:
            for title, document in zip(names, file.read().split("\n\n"), strict=True):
                name = re.sub(r" \(.*\)$|, .*$", "", title)
                first = document.lstrip("\n")[:300]
                if not first.startswith(name) or not name[0].isupper() or len(name) > 40:
                    continue
                if BORN.search(first[:150]) and 2 <= len(name.split()) <= 3 and not re.search(r"\d", name):
                    yield "PER", title, name, document.split("\n")
                else:
                    found = [kind for kind, about in ABOUT.items() if about.search(first)]
                    if len(found) == 1:
                        yield found[0], title, name, document.split("\n")


def renamed(rows: Words, names: dict[str, list[str]], rng: random.Random) -> Words:
    """A sentence with about half of its names replaced by others of the same type."""
    made: Words = []
    place = 0
    while place < len(rows):
        end = place + 1
        kind = rows[place][1][2:]
        while kind and end < len(rows) and rows[end][1] == f"I-{kind}":
            end += 1
        if kind in names and rng.random() < 0.5:
            words = WORD.findall(rng.choice(names[kind]))
            if kind == "PER" and end - place == 1:
                words = words[-1:]
            made += [(word, f"{'I' if number else 'B'}-{kind}") for number, word in enumerate(words)]
        else:
            made += rows[place:end]
        place = end
    return made


def filled(names: dict[str, list[str]], rng: random.Random) -> Words:
    """A frame with names in its places."""
    rows: Words = []
    for word in rng.choice(FRAMES.split(";")).split():
        kind = word.strip("{}")
        words = WORD.findall(rng.choice(names[kind])) if kind in names else [word]
        words = words[-1:] if kind == "PER" and rng.random() < 0.2 else words
        rows += [
            (one, f"{'I' if number else 'B'}-{kind}" if kind in names else "O") for number, one in enumerate(words)
        ]
    return rows


def silver(found: list[tuple[str, str, str, list[str]]], teacher: Path, rng: random.Random) -> list[Words]:
    """Sentences that name the subject of their article, the other entities by the teacher."""
    model = bothways.load(teacher)
    texts: list[tuple[str, str, str]] = []
    for kind, _, name, paragraphs in found:
        own = [one for line in paragraphs for one in re.split(r"(?<=[.!?]) (?=[A-Z])", line) if 30 < len(one) < 250]
        short = name.split()[-1] if kind == "PER" else name
        able = [one for one in own if re.search(rf"(?<!\w){re.escape(short)}(?!\w)", one)]
        texts += [(one, kind, name) for one in rng.sample(able, min(2, len(able)))]
    rng.shuffle(texts)
    counts = dict.fromkeys(PER_KIND, 0)
    made: list[Words] = []
    for (text, kind, name), answer in zip(texts, model([text for text, _, _ in texts]), strict=True):
        spans = [(one.start, one.end, one.entity_group) for one in answer.entities]
        short = name.split()[-1] if kind == "PER" else name
        subjects = [
            one.span() for form in (name, short) for one in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", text)
        ]
        kept: list[tuple[int, int, str]] = []
        for start, end in subjects:
            if not any(start < other and before < end for before, other, _ in kept):
                kept.append((start, end, kind))
        clean = True
        for start, end, group in spans:
            touching = [one for one in kept if start < one[1] and one[0] < end]
            if any(start < one[0] or one[1] < end for one in touching):
                clean = False  # a longer name around the subject: which of both is right is not known
            elif not touching:
                kept.append((start, end, group))
        doubtful = any(score < SURE for score, tag in zip(answer.scores, answer.tags, strict=True) if tag == "O")
        doubtful |= any(
            one.score < SURE for one in answer.entities if not any(one.start < e and s < one.end for s, e in subjects)
        )
        if not clean or doubtful or counts[kind] >= PER_KIND[kind]:
            continue
        counts[kind] += 1
        rows: Words = []
        for match in WORD.finditer(text):
            inside = next((one for one in kept if one[0] <= match.start() < one[1]), None)
            tag = "O" if inside is None else f"{'B' if match.start() == inside[0] else 'I'}-{inside[2]}"
            rows.append((match[0], tag))
        made.append(begun(rows))
    print(f"Wikipedia: {counts}", file=sys.stderr)
    return made


def write(path: Path, every: list[Words]) -> None:
    """Sentences as a file in columns."""
    with path.open("w", encoding="utf-8") as file:
        for rows in every:
            file.write("".join(f"{word}\t{tag}\n" for word, tag in rows) + "\n")


def main(data: Path, teacher: Path, out: Path) -> None:
    """Write the three files."""
    rng = random.Random(0)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "dev.conll", [rows for name in DEV for rows in sentences(data / name)])
    reference = [rows for name in (*FILES, *TWEETS) for rows in sentences(data / name)]
    found = list(articles(data))
    names = {kind: [name for of, _, name, _ in found if of == kind] for kind in PER_KIND}
    print(
        f"{len(reference):,} annotated; titles: { {kind: len(ones) for kind, ones in names.items()} }", file=sys.stderr
    )
    copies = [renamed(rows, names, rng) for rows in reference if any(tag != "O" for _, tag in rows)]
    first = reference + copies + silver(found, teacher, rng)
    second = reference + rng.sample(copies, COPIES) + [filled(names, rng) for _ in range(FILLED)]
    for name, every in (("first", first), ("second", second)):
        rng.shuffle(every)
        write(out / f"{name}.conll", every)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
