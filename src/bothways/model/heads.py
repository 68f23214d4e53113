"""The heads and losses of each kind of task.

A head reads some tokens of each window (`Encoded.head_positions`) and returns one row of outputs per token.
B windows, K tokens read, K_b of one window, C hidden width, E embedding width, L outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.errors import CheckpointError
from bothways.model.config import EncoderConfig
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.encoder import ACTIVATE, Encoder
from bothways.model.layout import Layout

NOTHING = -1e30  # a logit with probability 0; unlike for -inf, differences are finite


class ClassifyHead(nn.Module):
    """(K, C) first tokens, pooled or not -> (K, L) logits, in fp32."""

    def __init__(self, config: EncoderConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        rules, C = config.rules, config.hidden_size
        self.dense = None if rules.classify_from_pooler else nn.Linear(C, C)
        self.output = nn.Linear(C, outputs)

    def forward(self, rows: Tensor, encoder: Encoder, dropout: Dropout) -> Tensor:
        rules, rate = self.config.rules, self.config.head_dropout
        if self.dense is not None:
            rows = dropout(rows, rate) if rules.dropout_before_head_dense else rows
            rows = ACTIVATE[rules.head_activation](self.dense(rows))
        return self.output(dropout(rows, rate))


class LinearHead(nn.Module):
    """(K, C) tokens -> (K, L) logits, in fp32, for tags, answer spans or the next sentence."""

    def __init__(self, config: EncoderConfig, outputs: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.output = nn.Linear(config.hidden_size, outputs)

    def forward(self, rows: Tensor, encoder: Encoder, dropout: Dropout) -> Tensor:
        return self.output(dropout(rows, self.rate))


class MaskedHead(nn.Module):
    """(K, C) masked tokens -> (K, V) logits, in fp32, with the embedding table as the output layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        E = config.embedding_width
        self.activate = ACTIVATE[config.rules.masked_activation or config.hidden_act]
        self.dense = nn.Linear(config.hidden_size, E)
        self.norm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, rows: Tensor, encoder: Encoder, dropout: Dropout) -> Tensor:
        return F.linear(self.norm(self.activate(self.dense(rows))), encoder.embeddings.word.weight, self.bias)


class HiddenHead(nn.Module):
    """(K, C) -> (K, C): the hidden states themselves."""

    def forward(self, rows: Tensor, encoder: Encoder, dropout: Dropout) -> Tensor:
        return rows


def _head(config: EncoderConfig, name: str, outputs: int) -> nn.Module:
    if name == "classify":
        return ClassifyHead(config, outputs)
    if name == "masked":
        return MaskedHead(config)
    if name in ("hidden", "pooled"):
        return HiddenHead()
    rates = {"tokens": config.head_dropout, "spans": config.rules.span_dropout, "next": config.rules.next_dropout}
    return LinearHead(config, outputs, rates[name])


class TaskModel(nn.Module):
    """An encoder with the head named `head` (`Family.heads`) and `outputs` outputs per row.

    Raises `CheckpointError` if the family does not have this head.
    """

    def __init__(self, config: EncoderConfig, head: str, outputs: int) -> None:
        super().__init__()
        rules = config.rules
        if head not in rules.heads or (head == "pooled" and not rules.pooler):
            raise CheckpointError(f"models of the family {config.family} have no {head!r} head")
        self.config, self.head_name = config, head
        pooled = head in ("next", "pooled") or (head == "classify" and rules.classify_from_pooler)
        self.encoder = Encoder(config, pooler=pooled)
        self.head = _head(config, head, outputs)

    def forward(
        self,
        ids: Tensor,
        type_ids: Tensor,
        positions: Tensor,
        layout: Layout,
        head_positions: Tensor,
        dropout: Dropout = NO_DROPOUT,
    ) -> Tensor:
        """Packed (N,) tokens, (K,) indices of the tokens read -> (K, L) logits, fp32."""
        return self.answer(self.encoder(ids, type_ids, positions, layout, dropout, keep=head_positions), dropout)

    def padded(self, ids: Tensor, attention_mask: Tensor, type_ids: Tensor) -> Tensor:
        """(B, T) ids, 1/0 mask, segment ids -> (B, L) logits of the first tokens, fp32."""
        return self.answer(self.encoder.padded(ids, attention_mask, type_ids)[:, 0], NO_DROPOUT)

    def answer(self, rows: Tensor, dropout: Dropout) -> Tensor:
        """(K, C) hidden states of the tokens read -> (K, L) logits."""
        rows = rows.float() if self.encoder.pooler is None else self.encoder.pool(rows)
        return self.head(rows, self.encoder, dropout)


def single_loss(logits: Tensor, targets: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """(B, L) logits, (B,) class indices -> (B,) cross-entropies."""
    return F.cross_entropy(logits, targets, weight=class_weights, reduction="none")


def multi_loss(logits: Tensor, targets: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """(B, L) logits, (B, L) 0/1 targets -> (B,) binary cross-entropies, mean over labels."""
    targets = targets.view_as(logits).float()
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights, reduction="none").mean(-1)


def regression_loss(logits: Tensor, targets: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """(B, 1) predictions, (B,) targets -> (B,) squared errors."""
    return torch.square(logits[:, 0] - targets.float())


def tokens_loss(logits: Tensor, targets: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """(K, L) logits, (K,) class indices -> (B,) cross-entropies, mean over the tokens read of each window."""
    return _window_means(F.cross_entropy(logits, targets, weight=class_weights, reduction="none"), counts)


def spans_loss(logits: Tensor, targets: Tensor, counts: Tensor, class_weights: Tensor | None) -> Tensor:
    """(K, 2) logits, (2B,) start and end indices among each window's tokens -> (B,) mean of both cross-entropies."""
    shares = F.log_softmax(_by_window(logits, counts), -1)  # (B, 2, K_max)
    return -shares.gather(-1, targets.view(-1, 2, 1)).mean((1, 2))


def _by_window(logits: Tensor, counts: Tensor) -> Tensor:
    """(K, L) logits, (B,) number of tokens read per window -> (B, L, K_max), padded with `NOTHING`."""
    ends = counts.cumsum(0)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts, output_size=len(logits))
    column = torch.arange(len(logits), device=counts.device) - (ends - counts)[owner]
    table = logits.new_full((len(counts), logits.shape[1], int(counts.max())), NOTHING)
    table[owner, :, column] = logits
    return table


def _window_means(losses: Tensor, counts: Tensor) -> Tensor:
    """(K,) losses of the tokens read -> (B,) mean per window."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts, output_size=len(losses))
    return losses.new_zeros(len(counts)).index_add_(0, owner, losses) / counts.clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "single": single_loss,
    "multi": multi_loss,
    "regression": regression_loss,
    "tokens": tokens_loss,
    "spans": spans_loss,
}


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(…, L) logits of both -> (…) Kullback-Leibler divergence KL(teacher || student).

    Both are softened by the temperature; multiplying by its square keeps the gradients' scale (Hinton et al. 2015, 2).
    """
    own, theirs = (F.log_softmax(each / temperature, -1) for each in (logits, teacher))
    return (theirs.exp() * (theirs - own)).sum(-1) * temperature**2


def soft_single_loss(logits: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(B, L) logits of both -> (B,) divergences."""
    return divergence(logits, teacher, temperature)


def soft_multi_loss(logits: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(B, L) logits of both -> (B,) divergences of one binary distribution per label, mean over labels."""
    own, theirs = (torch.stack([each, torch.zeros_like(each)], -1) for each in (logits, teacher))  # (B, L, 2)
    return divergence(own, theirs, temperature).mean(-1)


def soft_regression_loss(logits: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(B, 1) values of both -> (B,) squared differences; the temperature is not used."""
    return torch.square(logits - teacher)[:, 0]


def soft_tokens_loss(logits: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(K, L) logits of both -> (B,) divergences, mean over the tokens read of each window."""
    return _window_means(divergence(logits, teacher, temperature), counts)


def soft_spans_loss(logits: Tensor, teacher: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(K, 2) logits of both -> (B,) divergences over the tokens of each window, mean of start and end."""
    return divergence(_by_window(logits, counts), _by_window(teacher, counts), temperature).mean(-1)


SOFT_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "single": soft_single_loss,
    "multi": soft_multi_loss,
    "regression": soft_regression_loss,
    "tokens": soft_tokens_loss,
    "spans": soft_spans_loss,
}
