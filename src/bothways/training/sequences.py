"""What of a corpus is read together: pairs of segments for next-sentence prediction, or full sentences.

BERT (Devlin et al. 2019, 3.1 and A.2; their data preparation):
[CLS] A: some sentences [SEP] B: the sentences after them, or in half of the pairs those of another document [SEP]
Nine in ten are as long as fits, the others shorter, so that positions and short texts are both learned.
RoBERTa (Liu et al. 2019, 4.2, "full sentences"): [CLS] sentences, across documents with a [SEP] between [SEP]

The other document's sentences are what followed the first segment of another such pair, of about the same
length: so in an epoch no token is read twice.
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
LARGE_SHARE = 0.4  # of one document; with less, rows of other documents are found for all
NEAR = 64
_NONE, _NO_TEXTS = np.zeros(0, np.int32), np.zeros(0, np.int8)


@dataclass(frozen=True, slots=True)
class Sequences:
    """S sequences of some shards.

    Rows are shard, start, end of the first segment, then of the second (empty without pairs), then 0 if it
    follows and 1 if not.
    """

    rows: np.ndarray  # (S, 7) int64
    texts: dict[int, Text]

    def __len__(self) -> int:
        return len(self.rows)


def groups(corpus: Corpus, part: str, seed: tuple[int, ...]) -> list[list[int]]:
    """The shards that hold any of a part, in random order, in groups that are shuffled together."""
    shards = [number for number, shard in enumerate(corpus.shards) if shard[part]["tokens"]]
    if seed:
        shards = np.random.default_rng(seed).permutation(shards).tolist()
    count = max(1, -(-len(shards) // SHARDS_MIXED))
    return [group.tolist() for group in np.array_split(np.array(shards, np.int64), count)]


def plan(
    corpus: Corpus, part: str, shards: Sequence[int], *, room: int, pairs: bool, seed: tuple[int, ...]
) -> Sequences:
    """The sequences of some shards in random order, each of at most `room` tokens besides the special ones.

    Of pairs half do not follow, or as many as can be from two documents.
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
    """(S, 7) rows of segments that do follow each other, within documents, and (S,) their documents."""
    ends, documents = text.ends.tolist(), np.asarray(text.documents)
    edges = [0, *(np.flatnonzero(np.diff(documents)) + 1).tolist(), len(ends)]
    rows, owners = [], []
    for first, last in pairwise(edges):
        unit, start = first, ends[first - 1] if first else 0
        while unit < last:
            short = room > 4 and rng.random() < SHORT_SHARE
            limit = start + (int(rng.integers(2, room)) if short else room)
            behind = bisect_right(ends, limit, unit, last)  # the first unit that does not fit whole
            whole = behind - unit
            end = ends[behind - 1] if whole else limit
            middle = ends[unit + int(rng.integers(whole - 1))] if whole > 1 else start + (end - start) // 2
            if middle > start:
                rows.append((shard, start, middle, shard, middle, end, 0))
                owners.append(documents[first])
            unit, start = behind, end
    return np.array(rows, np.int64).reshape(-1, 7), np.array(owners, np.int64)


def _exchanged(rows: np.ndarray, owners: np.ndarray, room: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of which half have their second segments exchanged among each other, never within a document.

    Where one document has most of the rows, its rows exchange with those of others, as many as there are.
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
        partner = _apart(chosen, np.roll(chosen, -1), owners)  # a neighbour's segment is as long, or a little shorter
        fit = owners[chosen] != owners[partner]
        chosen, partner = chosen[fit], partner[fit]
    changed = rows.copy()
    changed[chosen, 3:6], changed[chosen, 6] = rows[partner, 3:6], 1
    left = room - (changed[:, 2] - changed[:, 1])
    changed[:, 5] = np.minimum(changed[:, 5], changed[:, 4] + left)
    return changed


def _longest_first(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows, those with the longest second segments first."""
    return chosen[np.argsort(rows[chosen, 4] - rows[chosen, 5], kind="stable")]


def _apart(chosen: np.ndarray, partner: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """`partner` with changes among neighbours, so that if it can be none is of the document of the row it is for."""
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
    """(S, 7) rows of as many whole sentences as fit, with room for a [SEP] between documents."""
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
    """The sequences `chosen` with their special tokens, as windows; `target` is 0 if the second segment follows."""
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
    """Tokens `start` to `end` with a [SEP] wherever a document ends between."""
    first, last = np.searchsorted(text.ends, [start, end - 1], side="right")
    owners = text.documents[first : last + 1]
    edges = text.ends[first:last][np.diff(owners) != 0] - start
    return np.insert(text.ids[start:end], edges, sep_id)
