# %% [markdown]
# # Twenty movie reviews
#
# `bothways.pipeline("sentiment-analysis")` answers POSITIVE or NEGATIVE with a confidence. This example tries it on
# twenty short reviews, counts its errors, and looks for the words that cause them. The reviews were written for this
# example before any model had seen them; ten are positive and ten negative. All but a few are harder than a usual
# review: each tries one thing that is known to confuse sentiment models.

# %%
import math
import re

from IPython.display import Markdown, display
from rich.text import Text

import bothways
from bothways.metrics import wilson

# %% tags=["parameters"]
MODEL = None  # the included model; or the directory of another one

# %%
REVIEWS = [  # gold label, what the review tries, text
    ("POSITIVE", "plain", "A warm, funny film with wonderful actors. I would watch it again tomorrow."),
    ("POSITIVE", "negation", "I did not expect to like it, and I was not bored for a single minute."),
    ("POSITIVE", "sarcastic tone", "Oh great, now everybody knows that I cry over a cartoon penguin. Go and see it."),
    (
        "POSITIVE",
        "mixed feelings",
        "The first half hour drags and the music is too loud, but the ending is so good that I forgave everything.",
    ),
    ("POSITIVE", "comparison", "Better than the book, and far better than the two sequels that came after it."),
    (
        "POSITIVE",
        "sad plot",
        "A murder, a grieving mother, a town full of hatred and lies: the best thriller of the year.",
    ),
    ("POSITIVE", "slang", "This movie slaps. The chase at the end goes so hard, no notes."),
    ("POSITIVE", "understatement", "Not bad at all. There is hardly a scene that I would cut."),
    ("POSITIVE", "sad plot", "Two hours of war, hunger and death, and I could not look away."),
    (
        "POSITIVE",
        "no opinion word",
        "My grandfather has slept through every film since 1998. He stayed awake for this one.",
    ),
    ("NEGATIVE", "plain", "A dull, badly acted film. I want my two hours back."),
    ("NEGATIVE", "negation", "It is not funny, it is not moving, and I did not care about anybody in it."),
    ("NEGATIVE", "sarcasm", "Brilliant idea, to spend a hundred million dollars and forget to hire a writer."),
    ("NEGATIVE", "sarcasm", "I loved every minute of the trailer. Sadly there is a film attached to it."),
    (
        "NEGATIVE",
        "mixed feelings",
        "Beautiful pictures, a great cast and a lovely score, and still the story goes nowhere.",
    ),
    (
        "NEGATIVE",
        "comparison",
        "The original was charming, witty and full of heart. This remake has the same title.",
    ),
    (
        "NEGATIVE",
        "happy plot",
        "A happy young couple, an adorable dog and a sunny island, and not one good idea in two hours.",
    ),
    ("NEGATIVE", "slang", "Mid at best. The plot is a hot mess and half of the cast is on autopilot."),
    ("NEGATIVE", "wish", "It could have been a wonderful film if anyone had cared about the ending."),
    ("NEGATIVE", "no opinion word", "I looked at my watch four times before the title appeared."),
]
GOLDS = [gold for gold, _, _ in REVIEWS]
KINDS = [kind for _, kind, _ in REVIEWS]
TEXTS = [text for _, _, text in REVIEWS]

# %% [markdown]
# ## Predictions
#
# One call answers all of them. `top_k=None` gives the probabilities of both labels, from which the rest is computed.

# %%
classifier = bothways.pipeline("sentiment-analysis", model=MODEL)


def positive(texts):
    """The probability of POSITIVE for each text."""
    answers = classifier(texts, top_k=None)
    return [next(one["score"] for one in answer if one["label"] == "POSITIVE") for answer in answers]


def table(header, rows):
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


scores = positive(TEXTS)
predicted = ["POSITIVE" if score >= 0.5 else "NEGATIVE" for score in scores]
confidences = [max(score, 1 - score) for score in scores]
wrong = [number for number, gold in enumerate(GOLDS) if predicted[number] != gold]
marks = ["**wrong**" if number in wrong else "" for number in range(len(REVIEWS))]
display(
    table(
        ["", "review", "what it tries", "gold", "predicted", "confidence", ""],
        [
            [number + 1, text, kind, gold, predicted[number], f"{confidences[number]:.3f}", marks[number]]
            for number, (gold, kind, text) in enumerate(REVIEWS)
        ],
    )
)

# %%
accuracy = wilson(len(REVIEWS) - len(wrong), len(REVIEWS))
display(
    Markdown(
        f"{len(REVIEWS) - len(wrong)} of {len(REVIEWS)} are right: an accuracy of {100 * accuracy.value:.0f} % "
        f"(95 % interval {100 * accuracy.low:.0f} to {100 * accuracy.high:.0f} %). The lowest confidence of a right "
        f"answer is {min(c for place, c in enumerate(confidences) if place not in wrong):.3f}, "
        f"the highest of a wrong one {max((confidences[place] for place in wrong), default=0):.3f}."
    )
)

# %% [markdown]
# Twenty texts measure little: the interval is wide. And they were chosen to be hard, so the accuracy on usual reviews
# is higher. What the list shows is which kinds of text go wrong.

# %% [markdown]
# ## Which words decide
#
# Each word is left out once, and the model answers again. If the probability of POSITIVE falls without a word, the
# word spoke for POSITIVE. The difference is taken between log-odds, log(p / (1 - p)): between probabilities near 0 or
# 1 there would be nothing to see. All variants of all reviews are one call, which batches them.


# %%
def log_odds(probability):
    """The logarithm of the odds, within what float32 can express."""
    probability = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(probability / (1 - probability))


parts = [re.findall(r"\w+|\W+", text) for text in TEXTS]  # words, and what is between them
places = [(review, part) for review, line in enumerate(parts) for part, word in enumerate(line) if word[0].isalnum()]
variants = ["".join(parts[review][:part] + parts[review][part + 1 :]) for review, part in places]
effects, deciding = {}, set()
for (review, part), without in zip(places, positive(variants), strict=True):
    effects[review, part] = log_odds(scores[review]) - log_odds(without)
    if (scores[review] >= 0.5) != (without >= 0.5):
        deciding.add((review, part))
print(f"{len(variants)} variants of {len(REVIEWS)} reviews")

# %% [markdown]
# Blue words speak for POSITIVE, orange ones for NEGATIVE, and the stronger the color, the more. An underlined word
# decides: without it the answer is the other label.

# %%
STRONGEST = 2.0  # a difference of log-odds of this size or more has the full color


def colored(review):
    """One review: its number, gold label and answer, and its words colored by what they do to the answer."""
    line = Text(f"{review + 1:>2}. gold {GOLDS[review]}, predicted {predicted[review]} {confidences[review]:.3f}")
    line.stylize("bold red" if review in wrong else "dim")
    line.append("\n    ")
    for part, word in enumerate(parts[review]):
        effect = effects.get((review, part), 0.0)
        share = round(min(abs(effect) / STRONGEST, 1.0), 1)
        full = (86, 180, 233) if effect > 0 else (230, 159, 0)  # of Okabe and Ito, for the color-blind
        red, green, blue = (round(255 + share * (channel - 255)) for channel in full)
        underline = "underline " if (review, part) in deciding else ""
        line.append(word, style=f"{underline}#000000 on rgb({red},{green},{blue})")
    return line


display(Text("\n").join(colored(review) for review in range(len(REVIEWS))))

# %% [markdown]
# ## The errors
#
# For each wrong answer, the three words that spoke most for it, with the difference of log-odds, and the words
# without which the answer would be right.

# %%
rows = []
for review in wrong:
    sign = 1 if predicted[review] == "POSITIVE" else -1
    own = {part: sign * effect for (place, part), effect in effects.items() if place == review}
    strongest = [f"{parts[review][part]} ({own[part]:.1f})" for part in sorted(own, key=lambda part: -own[part])[:3]]
    right_without = [parts[review][part] for part in own if (review, part) in deciding]
    row = [review + 1, KINDS[review], predicted[review], f"{confidences[review]:.3f}"]
    rows.append([*row, ", ".join(strongest), ", ".join(right_without) or "none"])
display(table(["review", "what it tries", "predicted", "confidence", "strongest words", "right without"], rows))

# %% [markdown]
# ## What confuses the model
#
# - **Slang** (7): "slaps", "goes so hard" and "no notes" are praise, but probably rare in the reviews that the model
#   learned from. It takes "no" for a negation. No single word turns the answer, and this is its most confident error.
# - **Understatement** (8): "Not bad" is understood, as both words are blue. But "hardly" before "scene" is read as a
#   complaint, and "would cut", which turns the sentence into praise, counts for little.
# - **No opinion word** (10): "slept" and "stayed awake" are taken for signs of boredom. That the second sentence
#   contrasts with the first is missed. Review 20, which has no opinion word either, is right.
# - **Sarcasm** (14): "loved" outweighs "Sadly", although it is about the trailer. In 13 "forget" and "idea" reveal
#   the sarcasm.
# - **Comparison** (16): the praise of the original is counted for the remake. "remake" speaks against it, but too
#   weakly.
#
# Negation (2, 12), sad and happy plots (6, 9, 17) and mixed feelings (4, 15) are right: "murder" and "death" have
# hardly any color, and "good" and "nowhere", which close the reviews with mixed feelings, decide them. In 9 the
# model knows the phrase "not look away": without "not" or "away" it answers NEGATIVE.
#
# Reviews 1 and 11 have no color because several words say the same, so that none of them is needed. For the same
# reason the effects of single words do not add up: leaving out one word shows what the other words cannot replace.
#
# Two of the errors (8, 10) have a lower confidence than every right answer, so low confidence is a sign of trouble.
# But sarcasm and comparison are wrong with a confidence of about 0.9, and the slang with one about as high as those
# of the plain reviews.
