"""An engine without a model: what it gives depends on the tokens alone, so every answer is known."""

from __future__ import annotations

import threading

import numpy as np

from bothways.batch import NEVER, Batch
from bothways.inference.predictor import Predictor
from bothways.tasks import Embed
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")
POISON = "zebra"
(POISON_ID,) = TOKENIZER.encode(POISON).ids[1:-1].tolist()


class FakeEngine:
    """Gives for each token (id, id²/30000, 1). A batch with the token `zebra` fails. It waits while `gate` is shut."""

    parameters, weights = 0, None

    def __init__(self, *, workers: int = 2, max_tokens: int = 64, unbatched_from: int = NEVER) -> None:
        self.workers, self.max_tokens, self.unbatched_from = workers, max_tokens, unbatched_from
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[Batch] = []

    def describe(self) -> str:
        return "a fake"

    def open(self) -> None:
        pass

    def run(self, batch: Batch) -> np.ndarray:
        self.batches.append(batch)
        assert self.gate.wait(30)
        if POISON_ID in batch.ids:
            raise ZeroDivisionError("the text itself")
        ids = batch.ids[batch.head_positions].astype(np.float32)
        return np.stack([ids, ids**2 / 30_000, np.ones_like(ids)], axis=1)


def fake_predictor(**settings: int) -> Predictor:
    """An embedding model with the fake engine."""
    return Predictor(Embed(max_length=32, stride=8), TOKENIZER, FakeEngine(**settings))
