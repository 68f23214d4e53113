"""The pretraining model: an encoder with both heads, and an efficient loss for large vocabularies.

K masked tokens, B sequences, C hidden width, E embedding width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.errors import CheckpointError
from bothways.model.config import EncoderConfig
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.encoder import Encoder
from bothways.model.heads import LinearHead, MaskedHead
from bothways.model.layout import Layout

ROWS_AT_ONCE = 512  # rows of 30,522 logits in fp32: 60 MB


class PretrainModel(nn.Module):
    """An encoder with the masked-token head and, with `pairs`, the next-sentence head.

    Raises `CheckpointError` if the family has no next-sentence head.
    """

    head_name = "masked"

    def __init__(self, config: EncoderConfig, *, pairs: bool) -> None:
        super().__init__()
        rules = config.rules
        if pairs and "next" not in rules.heads:
            raise CheckpointError(
                f"models of the family {config.family} have no head for next sentences; leave them out with --no-nsp"
            )
        self.config = config
        self.encoder = Encoder(config, pooler=pairs)
        self.head = MaskedHead(config)
        self.next = LinearHead(config, 2, rules.next_dropout) if pairs else None

    def forward(
        self,
        ids: Tensor,
        type_ids: Tensor,
        positions: Tensor,
        layout: Layout,
        head_positions: Tensor,
        firsts: Tensor,
        dropout: Dropout = NO_DROPOUT,
    ) -> tuple[Tensor, Tensor | None]:
        """Packed (N,) tokens, indices of the tokens read; `firsts` marks first tokens, the others are masked tokens.

        -> (K, E) inputs of the tied output layer, (B, 2) next-sentence logits or None.
        """
        rows = self.encoder(ids, type_ids, positions, layout, dropout, keep=head_positions)
        masked = rows if self.next is None else rows[~firsts]
        head = self.head
        guess = head.norm(head.activate(head.dense(masked.float())))
        if self.next is None:
            return guess, None
        return guess, self.next(self.encoder.pool(rows[firsts]), self.encoder, dropout)

    def masked_losses(self, guess: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(K, E) output-layer inputs, (K,) masked token ids -> sum of cross-entropies, number of correct predictions.

        `dtype` is the type of the products with the embedding table.
        """
        table = self.encoder.embeddings.word.weight
        loss, right = _TiedCrossEntropy.apply(guess, table, self.head.bias, targets, dtype)  # type: ignore[no-untyped-call]
        return loss, right


class _TiedCrossEntropy(torch.autograd.Function):
    """The sum of cross-entropies of `guess` @ `table`ᵀ + `bias`, computed in blocks of rows.

    The forward pass also computes the gradients of each block, so logits are never stored: 30,522 numbers per masked
    token are most of the memory traffic of a small model.
    """

    @staticmethod
    def forward(
        ctx: Any, guess: Tensor, table: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        matrix = table.to(dtype)
        wanted = any(ctx.needs_input_grad)
        loss, right = guess.new_zeros(()), torch.zeros((), dtype=torch.int64, device=guess.device)
        to_guess, to_bias = torch.empty_like(guess), torch.zeros_like(bias)
        to_table = torch.zeros_like(table) if wanted else None
        for rows, reference, given in zip(
            *(torch.split(part, ROWS_AT_ONCE) for part in (guess.to(dtype), targets, to_guess)), strict=True
        ):
            logits = F.linear(rows, matrix).float().add_(bias)
            own = reference[:, None]
            best, given_logit = logits.amax(1, keepdim=True), logits.gather(1, own)
            right += (given_logit == best).sum()
            shares = logits.sub_(best).exp_()  # in place: memory traffic dominates the cost
            total = shares.sum(1, keepdim=True)
            loss += (total.log() + best - given_logit).sum()
            if to_table is not None:
                shares.div_(total).scatter_add_(1, own, torch.full_like(total, -1.0))
                to_bias += shares.sum(0)
                shares = shares.to(dtype)
                given.copy_(shares @ matrix)
                to_table += shares.t() @ rows
        ctx.save_for_backward(to_guess, to_table, to_bias)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        to_guess, to_table, to_bias = ctx.saved_tensors
        return to_guess.mul_(grad), to_table.mul_(grad), to_bias.mul_(grad), None, None
