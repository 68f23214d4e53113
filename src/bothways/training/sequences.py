"""What of a corpus is read together: pairs of segments for next-sentence prediction, or full sentences.

BERT (Devlin et al. 2019, 3.1 and A.2; their data preparation):
[CLS] A: some sentences [SEP] B: the sentences behind them, or in half of the pairs those of another document [SEP]
Nine in ten are as long as fits, the others shorter, so that positions and short texts are both learned.
RoBERTa (Liu et al. 2019, 4.2, "full sentences"): [CLS] sentences, across documents with a [SEP] between [SEP]

The other document's sentences are what stood behind the first segment of another such pair, of about the same
length: so in an epoch every piece is read once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bothways.errors import DataError
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.corpus import Corpus, Text

SHARDS_MIXED = 16  # shards whose sequences are shuffled together
SHORT_SHARE = 0.1
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
    shards = [number for number, shard in enumerate(corpus.shards) if shard[part]["pieces"]]
    if seed:
        shards = np.random.default_rng(seed).permutation(shards).tolist()
    return [shards[at : at + SHARDS_MIXED] for at in range(0, len(shards), SHARDS_MIXED)]


def plan(
    corpus: Corpus, part: str, shards: Sequence[int], *, room: int, pairs: bool, seed: tuple[int, ...]
) -> Sequences:
    """The sequences of some shards in random order, each of at most `room` pieces besides the special ones.

    Raises `DataError` for pairs where there are not two documents.
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
    """Rows of which half have their second segments exchanged among each other, never within a document."""
    if len(np.unique(owners)) < 2:
        raise DataError(
            "next-sentence prediction needs sentences of two documents, found one; put blank lines between "
            "documents, or leave it out with --no-nsp"
        )
    chosen = rng.permutation(len(rows))[: len(rows) // 2]
    lengths = rows[chosen, 5] - rows[chosen, 4]
    chosen = chosen[np.argsort(-lengths, kind="stable")]  # a neighbour's segment is as long, or a little shorter
    partner = np.roll(chosen, -1)
    for shift in (1, 2, 3, 5, 8, 13, 21, 34):
        for place in np.flatnonzero(owners[chosen] == owners[partner]).tolist():
            other = (place + shift) % len(chosen)
            if owners[chosen[other]] != owners[partner[place]] and owners[chosen[place]] != owners[partner[other]]:
                partner[[place, other]] = partner[[other, place]]
    for place in np.flatnonzero(owners[chosen] == owners[partner]).tolist():  # one document is most of the corpus
        partner[place] = rng.choice(np.flatnonzero(owners != owners[chosen[place]]))
    changed = rows.copy()
    changed[chosen, 3:6], changed[chosen, 6] = rows[partner, 3:6], 1
    left = room - (changed[:, 2] - changed[:, 1])
    changed[:, 5] = np.minimum(changed[:, 5], changed[:, 4] + left)
    return changed


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
    """The sequences `chosen` with their special pieces, as windows; `target` is 0 if the second segment follows."""
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
    """Pieces `start` to `end` with a [SEP] wherever a document ends between."""
    first, last = np.searchsorted(text.ends, [start, end - 1], side="right")
    owners = text.documents[first : last + 1]
    edges = text.ends[first:last][np.diff(owners) != 0] - start
    return np.insert(text.ids[start:end], edges, sep_id)
