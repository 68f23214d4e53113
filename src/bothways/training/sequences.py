"""Pretraining sequences of a corpus: pairs of segments for next-sentence prediction, or full sentences.

BERT (Devlin et al. 2019, 3.1 and A.2; their data preparation):
[CLS] A: some sentences [SEP] B: the next sentences or, in half of the pairs, sentences of another document [SEP]
90 % of the sequences are as long as possible, the others shorter, to train on all positions and on short texts.
RoBERTa (Liu et al. 2019, 4.2, "full sentences"): [CLS] sentences, across documents with a [SEP] between [SEP]

Pairs exchange second segments of about the same length with pairs of other documents, so an epoch never reads a token
twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.corpus import Corpus, Text

SHARDS_MIXED = 16  # shards whose sequences are shuffled together
SHORT_SHARE = 0.1
LARGE_SHARE = 0.4  # of one document; up to this, all rows find partners in other documents
NEAR = 64
_NONE, _NO_TEXTS = np.zeros(0, np.int32), np.zeros(0, np.int8)


@dataclass(frozen=True, slots=True)
class Sequences:
    """S sequences of some shards.

    A row is shard, start and end of the first segment, the same of the second (empty without pairs), then 0 if the
    second segment follows the first, else 1.
    """

    rows: np.ndarray  # (S, 7) int64
    texts: dict[int, Text]

    def __len__(self) -> int:
        return len(self.rows)


def groups(corpus: Corpus, part: str, seed: tuple[int, ...]) -> list[list[int]]:
    """Return the shards with text of a part, in groups that are shuffled together; in random order if `seed` is set."""
    shards = [number for number, shard in enumerate(corpus.shards) if shard[part]["tokens"]]
    if seed:
        shards = np.random.default_rng(seed).permutation(shards).tolist()
    count = max(1, -(-len(shards) // SHARDS_MIXED))
    return [group.tolist() for group in np.array_split(np.array(shards, np.int64), count)]


def plan(
    corpus: Corpus, part: str, shards: Sequence[int], *, room: int, pairs: bool, seed: tuple[int, ...]
) -> Sequences:
    """Return the sequences of some shards in random order, each of at most `room` tokens without special tokens.

    In half of the pairs, or as many as possible, the second segment comes from another document.
    """
    rng = np.random.default_rng(seed)
    texts = {shard: corpus.text(shard, part) for shard in shards}
    if pairs:
        found = [_pairs(text, shard, room, rng) for shard, text in texts.items()]
        rows = np.concatenate([rows for rows, _ in found])
        rows = _exchanged(rows, np.concatenate([owners for _, owners in found]), room, rng)
    else:
        rows = np.concatenate([_full(text, shard, room) for shard, text in texts.items()])
    return Sequences(rows[rng.permutation(len(rows))], texts)


def _pairs(text: Text, shard: int, room: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (S, 7) rows of consecutive segments within documents, and their (S,) document numbers."""
    ends, documents = text.ends.tolist(), np.asarray(text.documents)
    edges = [0, *(np.flatnonzero(np.diff(documents)) + 1).tolist(), len(ends)]
    rows, owners = [], []
    for first, last in pairwise(edges):
        unit, start = first, ends[first - 1] if first else 0
        while unit < last:
            short = room > 4 and rng.random() < SHORT_SHARE
            limit = start + (int(rng.integers(2, room)) if short else room)
            behind = bisect_right(ends, limit, unit, last)  # the first unit that does not fit
            whole = behind - unit
            end = ends[behind - 1] if whole else limit
            middle = ends[unit + int(rng.integers(whole - 1))] if whole > 1 else start + (end - start) // 2
            if middle > start:
                rows.append((shard, start, middle, shard, middle, end, 0))
                owners.append(documents[first])
            unit, start = behind, end
    return np.array(rows, np.int64).reshape(-1, 7), np.array(owners, np.int64)


def _exchanged(rows: np.ndarray, owners: np.ndarray, room: int, rng: np.random.Generator) -> np.ndarray:
    """Exchange the second segments of half of the rows, never within a document.

    If one document has more than `LARGE_SHARE` of the rows, its rows exchange with as many rows of other documents.
    """
    if not len(rows):
        return rows
    order = rng.permutation(len(rows))
    documents, counts = np.unique(owners, return_counts=True)
    if counts.max() > LARGE_SHARE * len(rows):
        largest = owners[order] == documents[counts.argmax()]
        some = min(int((~largest).sum()), len(rows) // 4)
        chosen = np.concatenate([_longest_first(rows, part[:some]) for part in (order[largest], order[~largest])])
        partner = np.roll(chosen, some)
    else:
        chosen = _longest_first(rows, order[: len(rows) // 2])
        partner = _apart(chosen, np.roll(chosen, -1), owners)  # the next segment is as long or a little shorter
        fit = owners[chosen] != owners[partner]
        chosen, partner = chosen[fit], partner[fit]
    changed = rows.copy()
    changed[chosen, 3:6], changed[chosen, 6] = rows[partner, 3:6], 1
    left = room - (changed[:, 2] - changed[:, 1])
    changed[:, 5] = np.minimum(changed[:, 5], changed[:, 4] + left)
    return changed


def _longest_first(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sort the chosen rows by the length of the second segment, longest first."""
    return chosen[np.argsort(rows[chosen, 4] - rows[chosen, 5], kind="stable")]


def _apart(chosen: np.ndarray, partner: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Swap neighbors in `partner` so that, if possible, no row has a partner of the same document."""
    partner = partner.copy()
    for place in np.flatnonzero(owners[chosen] == owners[partner]).tolist():
        for reach in (NEAR, len(chosen)):
            near = slice(max(0, place - reach), place + reach + 1)
            theirs, given = owners[chosen[near]], owners[partner[near]]
            able = (given != owners[chosen[place]]) & (theirs != owners[partner[place]])
            if able.any():
                other = near.start + int(able.argmax())
                partner[[place, other]] = partner[[other, place]]
                break
    return partner


def _full(text: Text, shard: int, room: int) -> np.ndarray:
    """Return (S, 7) rows of as many whole sentences as fit, including a [SEP] between documents."""
    documents = np.asarray(text.documents)
    changes = np.concatenate(([0], np.cumsum(np.diff(documents) != 0)))
    ends, costs = text.ends.tolist(), (text.ends + changes).tolist()
    rows, unit, start = [], 0, 0
    while unit < len(ends):
        begin = start + int(changes[unit])
        behind = bisect_right(costs, begin + room, unit)
        end = ends[behind - 1] if behind > unit else start + room
        rows.append((shard, start, end, shard, end, end, 0))
        unit, start = behind, end
    return np.array(rows, np.int64).reshape(-1, 7)


def windows(sequences: Sequences, chosen: np.ndarray, tokenizer: Tokenizer, *, pairs: bool) -> list[Encoded]:
    """Return the `chosen` sequences with special tokens as windows; `target` is 0 if the second segment follows."""
    layout = tokenizer.layout(2 if pairs else 1)
    made = []
    for shard, start, end, other, start2, end2, label in sequences.rows[chosen].tolist():
        first = (
            sequences.texts[shard].ids[start:end]
            if pairs
            else _joined(sequences.texts[shard], start, end, tokenizer.sep_id)
        )
        segments = (first, sequences.texts[other].ids[start2:end2])
        parts = [np.array([slot.id]) if slot.text < 0 else segments[slot.text] for slot in layout]
        types = np.repeat([slot.type_id for slot in layout], [len(part) for part in parts])
        ids = np.concatenate(parts).astype(np.int32)
        made.append(Encoded(ids, types.astype(np.int32), _NONE, _NONE, _NO_TEXTS, 0, 0, target=label))
    return made


def _joined(text: Text, start: int, end: int, sep_id: int) -> np.ndarray:
    """Return the tokens from `start` to `end` with a [SEP] between documents."""
    first, last = np.searchsorted(text.ends, [start, end - 1], side="right")
    owners = text.documents[first : last + 1]
    edges = text.ends[first:last][np.diff(owners) != 0] - start
    return np.insert(text.ids[start:end], edges, sep_id)
