"""Attention sees its own sequence and nothing else, however sequences are laid; dropout drops what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.model.dropout import NO_DROPOUT, Dropout
from bothways.model.layout import MAX_SCORES, Packed, attend, group_edges, rows_for

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda lengths: np.array(sorted(lengths)[::-1]))
HEADS, WIDTH = 2, 8


def plainly(qkv: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
    """Attention sequence by sequence."""
    parts = []
    for one in qkv.split(lengths.tolist()):
        query, key, value = one.view(len(one), 3, HEADS, -1).permute(1, 2, 0, 3)
        parts.append(attend(query, key, value, None, NO_DROPOUT, 0.0).transpose(0, 1).reshape(len(one), -1))
    return torch.cat(parts)


@given(LENGTHS)
@settings(deadline=None, max_examples=50)
def test_packed_attention_and_its_gradient_equal_attention_one_by_one(lengths):
    generator = torch.Generator().manual_seed(0)
    N = int(lengths.sum())
    layout = Packed.from_lengths(lengths, HEADS)
    qkv = torch.randn(N + layout.filler, 3 * WIDTH, generator=generator, requires_grad=True)
    weights = torch.randn(N, WIDTH, generator=generator)
    mixed = layout.attention(qkv, NO_DROPOUT, 0.0)
    expected = plainly(qkv[:N], lengths)
    assert mixed.shape == (N + layout.filler, WIDTH)
    torch.testing.assert_close(mixed[:N], expected, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad((mixed[:N] * weights).sum(), qkv)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), qkv)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@given(LENGTHS)
def test_sequences_in_a_row_do_not_overlap_and_fit(lengths):
    row, column = rows_for(lengths)
    taken = np.zeros((row.max() + 1, lengths[0]), dtype=int)
    for which, start, length in zip(row, column, lengths, strict=True):
        taken[which, start : start + length] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()


def test_groups_of_very_different_lengths_get_rectangles_of_their_own():
    lengths = np.array([512] * 4 + [250] * 16 + [20] * 64)
    assert group_edges(lengths, heads=2) == [4, 20]
    assert group_edges(np.array([30] * 4 + [10] * 20), heads=12) == []


@pytest.mark.parametrize("heads", [1, 4, 12, 16])
def test_a_rectangle_holds_no_more_scores_than_stay_in_cache(heads):
    lengths = np.array([512] * 4 + [250] * 16 + [20] * 64)
    for group in np.split(lengths, group_edges(lengths, heads)):
        assert len(group) == 1 or group.sum() * group[0] * heads <= MAX_SCORES


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    n = 1_000_000
    dropped = Dropout(np.random.default_rng(0))(torch.ones(n), rate)
    zeros = int((dropped == 0).sum())
    assert abs(zeros - rate * n) < 5 * np.sqrt(n * rate * (1 - rate))
    assert float(dropped.max()) == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=5e-3)


def test_dropout_is_its_generators_and_adds_what_it_says():
    x, residual = torch.arange(1.0, 1001.0), torch.full((1000,), 7.0)
    first = Dropout(np.random.default_rng(3))(x, 0.3)
    assert torch.equal(first, Dropout(np.random.default_rng(3))(x, 0.3))
    assert not torch.equal(first, Dropout(np.random.default_rng(4))(x, 0.3))
    torch.testing.assert_close(Dropout(np.random.default_rng(3)).add(residual, x, 0.3), residual + first)
    assert torch.equal(NO_DROPOUT.add(residual, x, 0.3), residual + x)
