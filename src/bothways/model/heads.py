"""What stands on the encoder for each kind of task, each with its loss.

B sequences, C hidden width, L labels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.config import EncoderConfig
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.encoder import ACTIVATE, Encoder
from bothways.model.layout import Layout

Kind = Literal["single", "multi", "regression"]


class ClassifyHead(nn.Module):
    """(B, C) first tokens or their pooled form -> (B, L) logits, in fp32."""

    def __init__(self, config: EncoderConfig, labels: int) -> None:
        super().__init__()
        self.config = config
        rules, C = config.rules, config.hidden_size
        self.dense = None if rules.classify_from_pooler else nn.Linear(C, C)
        self.output = nn.Linear(C, labels)

    def forward(self, first: Tensor, dropout: Dropout) -> Tensor:
        rules, rate = self.config.rules, self.config.classifier_dropout
        rate = self.config.hidden_dropout_prob if rate is None else rate
        if self.dense is not None:
            first = dropout(first, rate) if rules.dropout_before_head_dense else first
            first = ACTIVATE[rules.head_activation](self.dense(first))
        return self.output(dropout(first, rate))


class Classifier(nn.Module):
    """An encoder with a classification head over the first token of each sequence."""

    def __init__(self, config: EncoderConfig, labels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, pooler=config.rules.classify_from_pooler)
        self.head = ClassifyHead(config, labels)

    def forward(
        self,
        ids: Tensor,
        type_ids: Tensor,
        positions: Tensor,
        layout: Layout,
        starts: Tensor,
        dropout: Dropout = NO_DROPOUT,
    ) -> Tensor:
        """Packed (N,) tokens and the (B,) place of each sequence's first -> (B, L) logits, fp32."""
        return self.classify(self.encoder(ids, type_ids, positions, layout, dropout, keep=starts), dropout)

    def padded(self, ids: Tensor, attention_mask: Tensor, type_ids: Tensor) -> Tensor:
        """(B, T) ids, 1/0 mask, segment ids -> (B, L) logits, fp32."""
        return self.classify(self.encoder.padded(ids, attention_mask, type_ids)[:, 0], NO_DROPOUT)

    def classify(self, first: Tensor, dropout: Dropout) -> Tensor:
        """(B, C) hidden of the first tokens -> (B, L) logits."""
        first = first.float() if self.encoder.pooler is None else self.encoder.pool(first)
        return self.head(first, dropout)


def classification_loss(logits: Tensor, targets: Tensor, kind: Kind, class_weights: Tensor | None = None) -> Tensor:
    """(B, L) logits, targets -> (B,) losses, one a sequence.

    single: (B,) class numbers, cross-entropy; multi: (B, L) 0/1, binary cross-entropy, mean over labels;
    regression: (B,) numbers, squared error. `class_weights` (L,) weigh each class (single and multi).
    """
    if kind == "single":
        return F.cross_entropy(logits, targets, weight=class_weights, reduction="none")
    if kind == "multi":
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights, reduction="none")
        return losses.mean(-1)
    return torch.square(logits[:, 0] - targets)
