"""The whole encoder, top to bottom (Devlin et al. 2019; post-norm layers of Vaswani et al. 2017).

B sequences, T maximum length, N tokens in total, C hidden width, H heads, I inner width, E embedding width.
Tokens are either padded (B, T) or packed (N,); only the layout depends on it (layout.py).
The large matrices may be bf16, everything else is fp32; hidden states have the type of the matrices. GPU kernels do
not mix types, so on a GPU the norms of the layers also have the type of the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.config import EncoderConfig
from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.layout import Layout, Padded, padding_bias
from bothways.model.relative import distance_buckets

ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


class Embeddings(nn.Module):
    """Token + position + segment, normalized: (…) ids -> (…, C) hidden."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        E = config.embedding_width
        self.config = config
        self.word = nn.Embedding(config.vocab_size, E)
        self.position = nn.Embedding(config.max_position_embeddings, E)
        self.segment = nn.Embedding(config.type_vocab_size, E) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.project = nn.Linear(E, config.hidden_size) if config.projects else None

    def forward(self, ids: Tensor, type_ids: Tensor, positions: Tensor, dropout: Dropout) -> Tensor:
        total = self.word(ids) + self.position(positions + self.config.position_offset)
        if self.segment is not None:
            total = total + self.segment(type_ids)
        hidden = dropout(self.norm(total), self.config.hidden_dropout_prob)  # (…, E)
        return hidden if self.project is None else self.project(hidden.to(self.project.weight.dtype))


def relative_biases(table: nn.Embedding, widths: Sequence[int]) -> list[Tensor]:
    """Return the relative-position biases of the attention scores, from a table with one row per bucket.

    Widths T, widest first -> (H, T, T) for each, queries by keys.
    """
    T = widths[0]
    buckets = torch.from_numpy(distance_buckets(T, table.num_embeddings)).to(table.weight.device)
    by_distance = table(buckets).t()  # (H, 2T - 1), for distances from 1 - T to T - 1
    widest = by_distance.unfold(1, T, 1).flip(1)  # (H, T, T): the row of query i starts at distance -i
    return [widest[:, :width, :width] for width in widths]


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each with residual connection and post-norm: (…, C) -> (…, C)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        C, I = config.hidden_size, config.intermediate_size  # noqa: E741
        self.config = config
        self.qkv = nn.Linear(C, 3 * C)  # query, key and value in one product
        self.attention_output = nn.Linear(C, C)
        self.attention_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.inner = nn.Linear(C, I)
        self.outer = nn.Linear(I, C)
        self.norm = nn.LayerNorm(C, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        layout: Layout,
        dropout: Dropout,
        keep: Tensor | None = None,
        relative: Sequence[Tensor] = (),
    ) -> Tensor:
        config, rules = self.config, self.config.rules
        after_attention = config.hidden_dropout_prob if rules.dropout_after_attention else 0.0
        after_feedforward = config.hidden_dropout_prob if rules.dropout_after_feedforward else 0.0
        mixed = layout.attention(self.qkv(hidden), dropout, config.attention_probs_dropout_prob, relative)
        if keep is not None:  # no later step mixes tokens, so unread tokens can be dropped
            hidden, mixed = hidden.index_select(0, keep), mixed.index_select(0, keep)
        hidden = self.attention_norm(dropout.add(hidden, self.attention_output(mixed), after_attention))
        inner = ACTIVATE[config.hidden_act](self.inner(hidden))  # (…, I)
        return self.norm(dropout.add(hidden, self.outer(inner), after_feedforward))


class Encoder(nn.Module):
    """Embeddings and layers; with `pooler`, the dense tanh layer over the first token (BERT and ALBERT)."""

    def __init__(self, config: EncoderConfig, *, pooler: bool) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        buckets, heads = config.rules.relative_buckets, config.num_attention_heads
        self.relative = nn.Embedding(buckets, heads) if buckets else None  # shared by all layers
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.distinct_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None

    def forward(
        self,
        ids: Tensor,
        type_ids: Tensor,
        positions: Tensor,
        layout: Layout,
        dropout: Dropout = NO_DROPOUT,
        keep: Tensor | None = None,
    ) -> Tensor:
        """(…) ids, segment ids and positions from 0 -> (…, C) hidden; … is (B, T) or (N,), depending on the layout.

        With `keep` (K,), indices of packed tokens, the last layer returns only those: (K, C).
        """
        hidden = self.embeddings(ids, type_ids, positions, dropout)
        hidden = hidden.to(next(self.layers.parameters()).dtype)
        relative = () if self.relative is None else relative_biases(self.relative, layout.widths)
        for number in range(self.config.num_hidden_layers):
            layer = self.layers[number * len(self.layers) // self.config.num_hidden_layers]
            last = number == self.config.num_hidden_layers - 1
            hidden = layer(hidden, layout, dropout, keep if last else None, relative)
        return hidden

    def padded(self, ids: Tensor, attention_mask: Tensor, type_ids: Tensor, dropout: Dropout = NO_DROPOUT) -> Tensor:
        """(B, T) ids, 1/0 mask with the padding at the end, segment ids -> (B, T, C) hidden."""
        T = ids.shape[1]
        positions = torch.arange(T, device=ids.device).expand_as(ids)
        layout = Padded(self.config.num_attention_heads, padding_bias(attention_mask.sum(1), T))
        return self(ids, type_ids, positions, layout, dropout)

    def pool(self, first: Tensor) -> Tensor:
        """(B, C) hidden of the first token of each sequence -> (B, C) pooled, in fp32."""
        assert self.pooler is not None
        return torch.tanh(self.pooler(first.to(self.pooler.weight.dtype)))


def initialize(module: nn.Module, config: EncoderConfig, generator: torch.Generator) -> None:
    """Initialize weights as in the paper: normal with `initializer_range`, zero biases, unit norms, zero [PAD]."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, 0.0, config.initializer_range, generator=generator)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        if isinstance(part, Embeddings):
            with torch.no_grad():
                part.word.weight[config.pad_token_id].zero_()
