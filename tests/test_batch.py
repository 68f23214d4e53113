"""Batches hold every window once, within their budget, and lose nothing between packed and padded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import budgeted, make_batch
from bothways.text.tokenizer import Encoded

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def windows(lengths: list[int]) -> list[Encoded]:
    rng = np.random.default_rng(0)
    made = []
    for example, length in enumerate(lengths):
        ids = rng.integers(1, 99, size=length).astype(np.int32)
        flat = np.zeros(length, np.int32)
        reads = np.flatnonzero(rng.random(length) < 0.5)
        texts = flat.astype(np.int8)
        made.append(
            Encoded(ids, ids % 2, np.zeros((length, 2), np.int32), flat, texts, example, 0, head_positions=reads)
        )
    return made


@given(LENGTHS, st.integers(1, 100))
def test_every_window_is_in_one_batch_within_the_budget_longest_first(lengths, budget):
    groups = list(budgeted(lengths, budget))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= budget or len(group) == 1 for group in groups)
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(flat, reverse=True)


@given(LENGTHS)
def test_packing_keeps_each_window_whole(lengths):
    given_windows = windows(lengths)
    batch = make_batch(given_windows)
    reads = np.split(batch.head_positions, np.cumsum(batch.counts)[:-1])
    starts = np.cumsum(batch.lengths) - batch.lengths
    for start, length, member, read in zip(starts, batch.lengths, batch.members, reads, strict=True):
        window = given_windows[member]
        np.testing.assert_array_equal(batch.ids[start : start + length], window.ids)
        np.testing.assert_array_equal(batch.type_ids[start : start + length], window.type_ids)
        np.testing.assert_array_equal(batch.positions[start : start + length], np.arange(length))
        np.testing.assert_array_equal(read - start, window.head_positions)


@given(LENGTHS)
def test_padding_says_what_is_real(lengths):
    batch = make_batch(windows(lengths))
    ids, mask, type_ids = batch.padded(pad_id=0)
    assert mask.sum(1).tolist() == batch.lengths.tolist()
    np.testing.assert_array_equal(ids[mask == 1], batch.ids)
    np.testing.assert_array_equal(type_ids[mask == 1], batch.type_ids)
    assert (ids[mask == 0] == 0).all()


def test_long_windows_are_groups_of_their_own_where_that_is_wanted():
    groups = list(budgeted([200, 30, 128, 20, 127], 512, 128))
    assert groups == [[0], [2], [4, 1, 3]]


@given(LENGTHS, st.integers(1, 100), st.integers(1, 60))
def test_the_budget_counts_padding_and_is_used(lengths, budget, unbatched_from):
    groups = list(budgeted(lengths, budget, unbatched_from))
    for group, after in zip(groups, [*groups[1:], []], strict=True):
        longest = lengths[group[0]]
        assert len(group) == 1 or len(group) * longest <= budget
        assert longest < unbatched_from or len(group) == 1
        if after:  # one more would not have had room
            assert (len(group) + 1) * longest > budget or longest >= unbatched_from


@given(LENGTHS)
def test_places_that_the_head_reads_are_the_same_tokens_in_the_padded_batch(lengths):
    batch = make_batch(windows(lengths))
    ids, _, type_ids = batch.padded(pad_id=0)
    np.testing.assert_array_equal(ids.ravel()[batch.padded_head_positions()], batch.ids[batch.head_positions])
    np.testing.assert_array_equal(type_ids.ravel()[batch.padded_head_positions()], batch.type_ids[batch.head_positions])


def test_one_window_is_laid_out_as_among_others():
    batch, single = make_batch(windows([7, 3])), make_batch(windows([7]))
    for name in ("ids", "type_ids", "positions", "head_positions"):
        one, part = getattr(single, name), getattr(batch, name)
        np.testing.assert_array_equal(one, part[: len(one)])
        assert one.dtype == part.dtype
    for one, part in zip(single.padded(0), batch.padded(0), strict=True):
        np.testing.assert_array_equal(one, part[:1])
        assert one.dtype == part.dtype
    read = single.padded_head_positions()
    np.testing.assert_array_equal(read, batch.padded_head_positions()[: len(read)])
    assert (single.lengths.tolist(), single.members.tolist(), single.counts.tolist()) == ([7], [0], [len(read)])
