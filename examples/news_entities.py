# %% [markdown]
# # Named entities in a news text
#
# `bothways.pipeline("ner")` finds the names of persons (PER), organizations (ORG), locations (LOC) and others (MISC:
# nationalities, events, works). This example tries it on a paragraph that was written for it in the style of a news
# agency; the people, two of the organizations and the events are invented. It shows the entities in color, lists
# them with their scores, and compares them with the entities that a reader marked.

# %%
import re
from pathlib import Path

from IPython.display import IFrame, Markdown, display

import bothways
from bothways.render.show import ansi, html_page
from bothways.tasks.picture import Mark, Picture

# %% tags=["parameters"]
MODEL = None  # the included model; or the directory of another one

# %% [markdown]
# The text with the gold entities in brackets. It has names that can be several things: Jordan is a person and a
# country, Liverpool a football club, Washington a part of the name of a hotel, Apple a company.

# %%
MARKED = """\
[LISBON|LOC], 4 March - [Maria Oliveira|PER], the finance minister of [Portugal|LOC], said on Tuesday that \
[Nordhavn Energy|ORG] and the [World Bank|ORG] will share the cost of a new harbour in [Setúbal|LOC]. The contract was \
signed at the [Washington Hotel|LOC] by [Jordan Hughes|PER], who played for [Liverpool|ORG] until 2019 and now advises \
the [European Commission|ORG]. [Hughes|PER] flew on to [Amman|LOC], the capital of [Jordan|LOC], where the \
[World Food Programme|ORG] opens an office this week. Shares of [Apple|ORG] rose in [Frankfurt|LOC] after the \
[Portuguese|MISC] newspaper [Correio do Sul|ORG] had reported that its new phones will be sold in the harbour. \
[Ida Lund|PER], the [Danish|MISC] tennis player who is seeded fourth at the [Australian Open|MISC], was not asked for \
a comment, and neither were the fishermen of [Cabo Espichel|LOC], who call the plan the next [Titanic|MISC]."""


def read(marked):
    """The text without its marks, and the type of each gold entity by its place, (start, end)."""
    text, golds = "", {}
    for plain, name, kind in re.findall(r"([^\[]*)(?:\[(.*?)\|(.*?)\])?", marked):
        text += plain
        if name:
            golds[len(text), len(text) + len(name)] = kind
        text += name
    return text, golds


text, golds = read(MARKED)
print(text)

# %% [markdown]
# ## In color
#
# A `Picture` is a text with marks. `ansi` draws it for a terminal, `html_page` as a web page that needs no scripts.

# %%
ner = bothways.pipeline("ner", model=MODEL, aggregation_strategy="simple")
entities = ner(text)
marks = tuple(Mark(one["start"], one["end"], one["entity_group"], one["score"]) for one in entities)
picture = Picture((("", text),), marks)
print(ansi(picture))

# %%
page = Path("news_entities_files/news.html")
page.parent.mkdir(exist_ok=True)
page.write_text("".join(html_page("Entities of a news text", [picture])), encoding="utf-8")
display(IFrame(page, width="100%", height=480))

# %% [markdown]
# The page is in [news_entities_files/news.html](news_entities_files/news.html). On the command line the same pictures
# are made by `bothways predict MODEL --input news.txt --format text` and `--output news.html`.

# %% [markdown]
# ## The entities and their scores


# %%
def table(header, rows):
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


found = {(one["start"], one["end"]): (one["entity_group"], one["score"]) for one in entities}


def judgement(place):
    """What is wrong with an entity that the model found, or "right"."""
    start, end = place
    over = [(text[a:b], kind) for (a, b), kind in golds.items() if a < end and b > start]
    if golds.get(place) == found[place][0]:
        return "right"
    if not over:
        return "no entity"
    if place in golds:
        return f"type: {golds[place]}"
    return "ends: " + ", ".join(f"{name} ({kind})" for name, kind in over)


judgements = {place: judgement(place) for place in found}
display(
    table(
        ["entity", "type", "score", "compared with the gold entities"],
        [
            [text[start:end], kind, f"{score:.3f}", judgements[start, end]]
            for (start, end), (kind, score) in found.items()
        ],
    )
)

# %% [markdown]
# ## What is wrong
#
# An entity is right if its type, its start and its end are right.


# %%
def scores(found):
    """Precision, recall and F1 of entities, {(start, end): (type, score)}, in words."""
    right = sum(golds.get(place) == kind for place, (kind, _) in found.items())
    missed = [
        text[start:end]
        for start, end in golds
        if not any(start < other_end and end > other for other, other_end in found)
    ]
    return (
        f"{right} of the {len(found)} entities found are right, and the text has {len(golds)}: precision "
        f"{right / len(found):.2f}, recall {right / len(golds):.2f}, F1 {2 * right / (len(found) + len(golds)):.2f}. "
        f"Missed altogether: {', '.join(missed) or 'none'}."
    )


print(scores(found))

# %% [markdown]
# - **Liverpool** is taken for the city. That somebody "played for" it makes it a club.
# - **Apple** is found, but as MISC. The model reads lower-case text, so the capital letter does not tell it from the
#   fruit.
# - **World Food Programme** is split: "World" is MISC, with the lowest score of all, and the rest is ORG.
# - **Cabo Espichel**, a cape in Portugal, is taken for a person, and it is split within a word.
#
# The other names that can be several things are right: Jordan is a person in one sentence and a country in the next,
# and Washington is a part of the name of a hotel.

# %% [markdown]
# ## Whole words
#
# `aggregation_strategy="simple"` joins neighbouring tokens of one type, and a token may be a part of a word.
# `"first"` labels whole words by their first tokens, and chooses the best sequence of labels that the tagging scheme
# allows.

# %%
whole = {
    (one["start"], one["end"]): (one["entity_group"], one["score"]) for one in ner(text, aggregation_strategy="first")
}
rows = []
for start, end in sorted(set(found) ^ set(whole)):
    cells = [
        f"{group[start, end][0]} {group[start, end][1]:.3f}" if (start, end) in group else ""
        for group in (found, whole)
    ]
    rows.append([text[start:end], *cells])
display(table(["entity", "simple", "first"], rows))
print(scores(whole))

# %% [markdown]
# No word is split any more, and World Food Programme is right. Three errors are left, and all of them are of the
# type: Liverpool, Apple and Cabo Espichel.
#
# Can the scores warn? Apple has one of the lowest, but Cabo Espichel is wrong with a score as high as those of
# Portugal and Lisbon.
