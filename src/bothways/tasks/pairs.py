"""Classification of text pairs: entailment, similarity, paraphrase, next sentence. Only the columns differ.

[CLS] premise [SEP] hypothesis [SEP]
  0      0      0        1       1      segment ids (BERT; RoBERTa has none)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from bothways.tasks.classify import Classify


@dataclass(frozen=True, slots=True)
class Pairs(Classify):
    """Classification or regression of a pair of texts."""

    name = "pairs"
    split_by = 0  # all hypotheses of a premise go to the same split
    texts = (
        ("premise", "sentence1", "text1", "question1", "text_a", "question"),
        ("hypothesis", "sentence2", "text2", "question2", "text_b", "sentence", "answer"),
    )


@dataclass(frozen=True, slots=True)
class NextSentence(Pairs):
    """Next-sentence prediction, with the head from pretraining (Devlin et al. 2019, 3.1)."""

    name = "next_sentence"
    head = "next"

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Return the task with the two classes of BERT's pretraining, in BERT's order."""
        return cls(labels=("is_next", "not_next"), **settings)
