"""Masked-token prediction, BERT's pretraining task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from bothways.data.examples import Example
from bothways.errors import CheckpointError, OptionError
from bothways.tasks.classify import NOT_A_NUMBER
from bothways.tasks.picture import Mark, Picture
from bothways.tasks.task import Prediction, Task, grouped, log_softmax, reading_stats, with_most_context
from bothways.text.tokenizer import Encoded, Tokenizer


class Guess(NamedTuple):
    """A candidate for a mask: its probability, token id and text, and the whole text with the mask replaced."""

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True, slots=True)
class FillPrediction(Prediction):
    """The best guesses for each mask in the text, and the (start, end) of each mask."""

    masks: tuple[tuple[Guess, ...], ...] = ()
    places: tuple[tuple[int, int], ...] = ()

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """masks: a list of guesses per mask."""
        return {"masks": [[guess._asdict() for guess in guesses] for guesses in self.masks]}

    def summary(self) -> tuple[str, float]:
        """The best guess for each mask, and the lowest of their scores."""
        return ", ".join(guesses[0].token_str for guesses in self.masks), min(
            (guesses[0].score for guesses in self.masks), default=0.0
        )

    def picture(self, example: Example) -> Picture:
        """The text with its masks marked, and a bar per guess."""
        marks = tuple(
            Mark(*place, guesses[0].token_str, guesses[0].score)
            for place, guesses in zip(self.places, self.masks, strict=True)
        )
        several = len(self.masks) > 1
        bars = tuple(
            (f"{number}: {guess.token_str}" if several else guess.token_str, guess.score)
            for number, guesses in enumerate(self.masks, start=1)
            for guess in guesses
        )
        return Picture((("", example.texts[0]),), marks, bars, self.note(), self.error)


@dataclass(frozen=True, slots=True)
class Fill(Task):
    """The `top_k` most probable tokens for each mask, chosen from `targets` if there are any."""

    name = "fill"
    head = "masked"
    top_k: int = 5
    targets: tuple[str, ...] = ()
    max_length: int = 512
    stride: int = 128
    truncation: bool = False

    def failure(self, reason: str) -> FillPrediction:
        """Return a prediction without guesses, with the reason as its error."""
        return FillPrediction(error=reason, windows=0)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return each example's windows; each mask is predicted in the window with the most context around it.

        Raises `CheckpointError` if the vocabulary has no mask, `OptionError` for a target that is not a single token.
        """
        if tokenizer.mask_id is None:
            raise CheckpointError("the vocabulary has no mask token, so this model was not pretrained by masking")
        targets = self._targets(tokenizer)
        found = []
        for _, group in grouped(self.windows(examples, tokenizer)):
            for window, own in with_most_context(group, 0):
                masks = own[window.ids[own] == tokenizer.mask_id]
                found.append(replace(window, head_positions=masks, target=targets))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> list[tuple[np.ndarray, np.ndarray]]:
        """(K, V) logits -> the best token ids and their probabilities for each mask."""
        found = []
        for row in rows:
            shares = np.exp(log_softmax(row))
            among = np.arange(len(row)) if window.target is None else window.target  # ids of the targets
            best = among[np.argsort(-shares[among], kind="stable")[: self.top_k]]
            found.append((best, shares[best]))
        return found

    def decode(
        self,
        example: Example,
        parts: Sequence[list[tuple[np.ndarray, np.ndarray]]],
        windows: Sequence[Encoded],
        tokenizer: Tokenizer,
    ) -> FillPrediction:
        """Return the guesses for all masks of one example."""
        text = example.texts[0]
        places = [tuple(window.offsets[mask].tolist()) for window in windows for mask in window.head_positions]
        found = [guesses for part in parts for guesses in part]
        more = reading_stats(windows)
        backend, mask = tokenizer.backend, tokenizer.mask_id
        assert mask is not None  # `encode` rejects vocabularies without a mask
        if not found:
            return FillPrediction(error=f"there is no mask in the text ({backend.id_to_token(mask)})", **more)
        if not all(np.isfinite(shares).all() for _, shares in found):
            return FillPrediction(error=NOT_A_NUMBER, **more)
        # If the mask token absorbs the space before it, the guess includes a space or continues the previous word.
        takes_space = backend.get_added_tokens_decoder()[mask].lstrip
        masks = []
        for (start, end), (best, shares) in zip(places, found, strict=True):
            guesses = []
            for id, token, share in zip(
                best.tolist(), tokenizer.convert_ids_to_tokens(best), shares.tolist(), strict=True
            ):
                name = backend.decode([id], skip_special_tokens=False)
                joins = token.startswith("##") or (takes_space and not token.startswith("\u2581"))
                before = text[:start].rstrip() if joins else text[:start]
                guesses.append(Guess(share, id, name, before + name.removeprefix("##") + text[end:]))
            masks.append(tuple(guesses))
        return FillPrediction(masks=tuple(masks), places=tuple(places), **more)

    def _targets(self, tokenizer: Tokenizer) -> np.ndarray | None:
        if not self.targets:
            return None
        numbers = []
        for target in self.targets:
            number = tokenizer.backend.token_to_id(target)
            ids = tokenizer.backend.encode(target, add_special_tokens=False).ids if number is None else [number]
            if len(ids) != 1 or ids[0] == tokenizer.unk_id:
                raise OptionError(f"the target {target!r} is not a single token in the vocabulary; choose another")
            numbers += ids
        return np.array(list(dict.fromkeys(numbers)))
