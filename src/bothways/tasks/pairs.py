"""Two texts at once: entailment, similarity, paraphrase. All but the columns is classification.

[CLS] premise [SEP] hypothesis [SEP]
  0      0      0        1       1      segment ids (BERT; RoBERTa has none)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bothways.tasks.classify import Classify


@dataclass(frozen=True, slots=True)
class Pairs(Classify):
    """The classification of two texts, or a number for them."""

    name: ClassVar[str] = "pairs"
    texts: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("premise", "sentence1", "text1", "question1", "text_a", "question"),
        ("hypothesis", "sentence2", "text2", "question2", "text_b", "sentence", "answer"),
    )
