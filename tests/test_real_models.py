"""What people try first, on models that were really fine-tuned (docs/results.md says how).

They are too large for this repository; without them these tests are skipped and say so.
"""

from pathlib import Path

import pytest

from bothways import pipeline

pytestmark = pytest.mark.slow
RUNS = Path(__file__).resolve().parents[1] / "runs"


def trained(name: str) -> Path:
    directory = RUNS / name
    if not (directory / "bothways.json").is_file():
        pytest.skip(f"no fine-tuned model in runs/{name}; docs/results.md has the command that makes it")
    return directory


@pytest.mark.parametrize(
    ("model", "text", "entities"),
    [
        (
            "wnut",  # of 2017; the news of 1996 do not know him, see docs/results.md
            "Elon Musk founded Tesla in California.",
            [("person", "Elon Musk"), ("corporation", "Tesla"), ("location", "California")],
        ),
        (
            "conll",
            "Apple CEO Tim Cook announced a new product at their Cupertino headquarters.",
            [("ORG", "Apple"), ("PER", "Tim Cook"), ("LOC", "Cupertino")],
        ),
    ],
)
def test_entities_of_the_examples(model, text, entities):
    found = pipeline("ner", trained(model), aggregation_strategy="first")(text)
    assert [(one["entity_group"], one["word"]) for one in found] == entities
    assert all(text[one["start"] : one["end"]] == one["word"] for one in found)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Where is it located?", {"Paris", "Paris, France", "the Champ de Mars in Paris", "Champ de Mars in Paris"}),
        ("Who designed it?", {"Gustave Eiffel", "the engineer Gustave Eiffel"}),
        ("When was it built?", {"1889", "between 1887 and 1889", "1887 and 1889", "1887"}),
    ],
)
def test_questions_of_the_examples(question, answers):
    passage = (
        "The Eiffel Tower is located in Paris, France. It was designed by the engineer Gustave Eiffel and was built "
        "between 1887 and 1889."
    )
    found = pipeline("question-answering", trained("squad"))(question=question, context=passage)
    assert found["answer"] in answers
    assert found["answer"] == passage[found["start"] : found["end"]]


def test_classes_that_nobody_trained():
    labels = ["sport", "politics", "business"]
    zero = pipeline("zero-shot-classification", trained("nli"))
    texts = ["The team won the match in extra time.", "Parliament votes on the new law tomorrow."]
    assert [one["labels"][0] for one in zero(texts, candidate_labels=labels)] == ["sport", "politics"]
