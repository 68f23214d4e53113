"""Two texts at once: entailment, similarity, paraphrase, next sentence. All but the columns is classification.

[CLS] premise [SEP] hypothesis [SEP]
  0      0      0        1       1      segment ids (BERT; RoBERTa has none)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from bothways.tasks.classify import Classify


@dataclass(frozen=True, slots=True)
class Pairs(Classify):
    """The classification of two texts, or a number for them."""

    name = "pairs"
    split_by = 0  # one premise with several hypotheses stays on one side
    texts = (
        ("premise", "sentence1", "text1", "question1", "text_a", "question"),
        ("hypothesis", "sentence2", "text2", "question2", "text_b", "sentence", "answer"),
    )


@dataclass(frozen=True, slots=True)
class NextSentence(Pairs):
    """Whether the second text follows the first, as pretraining learned it (Devlin et al. 2019, 3.1)."""

    name = "next_sentence"
    head = "next"

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """The two classes of BERT's pretraining, in its order."""
        return cls(labels=("is_next", "not_next"), **settings)
