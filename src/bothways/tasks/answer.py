"""Extractive question answering: find the span of a passage that answers a question.

[CLS] question [SEP] passage [SEP]      [CLS] means "no answer" (Devlin et al. 2019, 4.3)
  *                  *  *  *            head positions: candidates for start and end

K head positions in a window: [CLS] and K - 1 passage tokens.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from bothways.data.examples import Example, Reference
from bothways.data.questions import ReferenceAnswer, read_answered, read_questions
from bothways.data.tables import Columns, Source
from bothways.data.words import word_edges
from bothways.errors import DataError
from bothways.metrics import Scores, answer_scores, answering
from bothways.tasks.picture import Mark, Picture
from bothways.tasks.task import Prediction, Trainable, reading_stats
from bothways.text.tokenizer import Encoded, Tokenizer

_CANDIDATES = 20  # kept per window


class Span(NamedTuple):
    """A candidate answer: its logit (start + end) and its character span in the passage."""

    logit: float
    start: int
    end: int


class Part(NamedTuple):
    """The kept part of a window: the best spans, the no-answer logit, the logsumexp of start and end logits."""

    spans: list[Span]
    null: float
    start_sum: float
    end_sum: float


@dataclass(frozen=True, slots=True)
class AnswerPrediction(Prediction):
    """The best answers in a passage, best first; the text of each is `context[start:end]`.

    The answer "" means no answer; if it comes first, the best span follows it.

    `gap` is the no-answer logit minus the logit of the best span; `top_k` is the requested number of answers.
    """

    answers: tuple[dict[str, Any], ...] = ()
    gap: float = 0.0
    top_k: int = 1

    @property
    def best(self) -> str:
        """The text of the best answer; "" for no answer."""
        return str(self.answers[0]["answer"]) if self.answers else ""

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """answer, score, start and end of the best answer; `answers` too if `top_k` > 1 or with `all_scores`."""
        found = [dict(one) for one in self.answers]  # copied: equal questions share a prediction
        first = self.answers[0] if self.answers else {"answer": "", "score": 0.0, "start": 0, "end": 0}
        return first | ({"answers": found} if all_scores or self.top_k > 1 else {})

    def summary(self) -> tuple[str, float]:
        """The best answer and its score."""
        return self.best or "no answer", float(self.answers[0]["score"]) if self.answers else 0.0

    def picture(self, example: Example) -> Picture:
        """The question, and the passage with the answer marked."""
        first = next((one for one in self.answers if one["answer"]), None)
        marks: tuple[Mark, ...] = ()
        note = self.note()
        if first is not None and self.best:
            marks = (Mark(first["start"], first["end"], "", first["score"]),)
        elif self.error is None:
            note = ", ".join(["no answer", note] if note else ["no answer"])
        texts = (("question", example.texts[0]), ("passage", example.texts[1]))
        return Picture(texts, marks, note=note, error=self.error)


@dataclass(frozen=True, slots=True)
class Answer(Trainable):
    """Extractive question answering. With `handle_impossible_answer`, the model predicts no answer if the no-answer
    logit exceeds the logit of the best span by more than `threshold`. A span has at most `max_answer_len` tokens.

    `align_to_words` extends answers to whole words; `top_k` is the number of answers to return. An answer of at most
    `stride` tokens is complete in at least one window.
    """

    name = "answer"
    head = "spans"
    outputs = 2
    loss = "spans"
    headline = "f1"
    window = (384, 128)
    split_by = 1
    handle_impossible_answer: bool = False
    threshold: float = 0.0
    max_answer_len: int = 30
    top_k: int = 1
    align_to_words: bool = True
    max_length: int = 384
    stride: int = 128
    truncation: bool = False

    @classmethod
    def read(cls, source: Source, columns: Columns, *, labeled: bool = True) -> list[Example]:
        """Read questions from SQuAD 1.1 and 2.0 files, or from rows with question, context and answers."""
        return read_answered(source, columns) if labeled else list(cls.inputs(source, columns))

    @classmethod
    def inputs(cls, source: Source, columns: Columns) -> Iterator[Example]:
        """Iterate over the questions of a source, ignoring answers; `row` has the "id" of a SQuAD file."""
        return read_questions(source, columns)

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """Infer from training examples whether some questions have no answer."""
        return cls(handle_impossible_answer=any(example.reference == () for example in examples), **settings)

    def config(self) -> dict[str, Any]:
        """Return {}: `config.json` has no keys for this task."""
        return {}

    def describe(self) -> str:
        """Describe whether the task may predict no answer."""
        return "answers out of a passage" + (
            f", or none (threshold {self.threshold:.2f})" if self.handle_impossible_answer else ""
        )

    @property
    def tunable(self) -> bool:  # type: ignore[override]
        """There is a threshold only if the task may predict no answer."""
        return self.handle_impossible_answer

    def example(self, given: Any) -> Example:
        """Convert a (question, context) pair, or a dict with these keys, to an example."""
        if isinstance(given, dict):
            given = (given.get("question"), given.get("context"))
        if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(text, str) for text in given):
            raise DataError(f"found {reprlib.repr(given)}, expected a question and a context")
        return Example(tuple(given))

    def check(self, examples: Sequence[Example]) -> None:
        """Do nothing: every answer can be predicted."""

    def training_notes(self, examples: Sequence[Example]) -> list[str]:
        """Count questions without an answer, relocated answers, and questions excluded from training."""
        none = sum(example.reference == () for example in examples)
        moved = sum(
            one.moved for example in examples if isinstance(example.reference, tuple) for one in example.reference
        )
        left = sum(bool(example.reference) and _target(example.reference) is None for example in examples)
        lines = (
            [f"{none:,} of {len(examples):,} questions have no answer: the model learns to give none"] if none else []
        )
        if moved:
            lines.append(
                f"{moved:,} answers are not at their answer_start; a match near it, or the only match, is used"
            )
        if left:
            lines.append(f"{left:,} questions are left out of training, because their answer position is ambiguous")
        return lines

    def problem(self, example: Example) -> str | None:
        """Return the reason why an example cannot be answered, or None."""
        empty = [name for name, text in zip(("question", "context"), example.texts, strict=True) if not text.strip()]
        return f"the {' and the '.join(empty)} is empty" if empty else None

    def failure(self, reason: str) -> AnswerPrediction:
        """Return a prediction without an answer, with the reason as its error."""
        return AnswerPrediction(error=reason, windows=0)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return each example's windows over the passage; targets are (start, end) indices into `head_positions`.

        As in Google's BERT code, [CLS] is the target of a window without the answer. Examples whose answer position
        is unknown have no target.
        """
        windows = self.windows(examples, tokenizer, sliding=1)
        found = []
        for window in windows:
            passage = np.flatnonzero(window.sequence_ids == 1)
            positions = np.concatenate([[0], passage])
            target = None
            reference = examples[window.example].reference
            if isinstance(reference, tuple) and (not reference or _target(reference) is not None):
                answer = _target(reference)
                target = (0, 0) if answer is None else _places(window.offsets[passage], answer)
            found.append(replace(window, head_positions=positions, target=target))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> Part:
        """(K, 2) logits -> the best valid spans: start <= end, at most `max_answer_len` tokens."""
        starts, ends = rows.astype(np.float64).T  # (K,)
        offsets = window.offsets[window.head_positions[1:]]
        K = len(offsets)
        lengths = min(self.max_answer_len, K)
        reach = np.arange(K)[:, None] + np.arange(lengths)  # (K, lengths) end of each span
        sums = starts[1:, None] + np.append(ends[1:], np.full(lengths, -np.inf))[reach]
        sums[offsets[:, 0] == offsets[:, 1]] = -np.inf  # an answer does not start with an empty token
        many = min(max(_CANDIDATES, self.top_k), sums.size)
        best = np.argpartition(-sums, many - 1, axis=None)[:many] if many else np.zeros(0, np.int64)
        spans = []
        for place in best[np.argsort(-sums.ravel()[best], kind="stable")].tolist():
            first, length = divmod(place, lengths)
            logit, end = float(sums[first, length]), int(offsets[min(first + length, K - 1), 1])
            if math.isfinite(logit) and end > offsets[first, 0]:
                spans.append(Span(logit, int(offsets[first, 0]), end))
        return Part(spans, float(starts[0] + ends[0]), _log_sum(starts), _log_sum(ends))

    def decode(
        self, example: Example, parts: Sequence[Part], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> AnswerPrediction:
        """Combine the windows of one example into its best answers, ranked by logit as in Google's BERT code.

        A score is P(start) * P(end), with each softmax taken over all windows together.
        """
        context = example.texts[1]
        norm = _log_sum(np.array([part.start_sum for part in parts])) + _log_sum(
            np.array([part.end_sum for part in parts])
        )
        null = min(part.null for part in parts)
        whole = _whole_words(context)
        found: dict[tuple[int, int], float] = {}
        for span in sorted((span for part in parts for span in part.spans), reverse=True):
            place = whole(span.start, span.end) if self.align_to_words else (span.start, span.end)
            found.setdefault(place, span.logit)
        gap = null - max(found.values(), default=-math.inf)
        if self.handle_impossible_answer or not found:
            found[0, 0] = null
        # To rank first, no answer must exceed the best span by more than the threshold.
        ranked = sorted(found, key=lambda place: found[place] - self.threshold * (place == (0, 0)), reverse=True)
        silent = ranked[0] == (0, 0)
        return AnswerPrediction(
            answers=tuple(_answer(context, *place, found[place] - norm) for place in ranked[: self.top_k + silent]),
            gap=gap,
            top_k=self.top_k,
            **reading_stats(windows),
        )

    def tune_on(self, predictions: Sequence[AnswerPrediction], references: Sequence[Reference]) -> Self:
        """Return the task with the no-answer threshold that maximizes F1 on these predictions."""
        if not self.handle_impossible_answer or all(reference for reference in references):
            return self
        found = []
        for prediction, reference in zip(predictions, references, strict=True):
            best = next((str(one["answer"]) for one in prediction.answers if one["answer"]), "")
            found.append((prediction.gap, answer_scores(best, _texts(reference))[1], float(not reference)))
        gaps, said, unsaid = np.array(sorted(found)).T
        # With the threshold above the k-th smallest gap, the first k give their answer, the others no answer.
        totals = np.append(0.0, said.cumsum()) + np.append(unsaid[::-1].cumsum()[::-1], 0.0)
        best_k = int(totals.argmax())
        edges = np.concatenate([[gaps[0] - 1.0], (gaps[:-1] + gaps[1:]) / 2, [gaps[-1] + 1.0]])
        return replace(self, threshold=float(np.nan_to_num(edges[best_k])))

    def score(
        self,
        predictions: Sequence[AnswerPrediction],
        references: Sequence[Reference],
        *,
        rng: np.random.Generator,
        resamples: int = 2000,
    ) -> Scores:
        """Compute exact match and F1, with 95 % confidence intervals."""
        return answering(
            [one.best for one in predictions],
            [_texts(reference) for reference in references],
            rng=rng,
            resamples=resamples,
        )

    def reference_summary(self, example: Example) -> str:
        """Return the distinct reference answers."""
        return " / ".join(dict.fromkeys(_texts(example.reference or ()))) or "no answer"

    def is_correct(self, prediction: AnswerPrediction, reference: Reference) -> bool:
        """Whether the best answer matches a reference exactly."""
        return answer_scores(prediction.best, _texts(reference))[0] == 1.0


def _texts(reference: Reference) -> tuple[str, ...]:
    return tuple(answer.text for answer in reference) if isinstance(reference, tuple) else ()


def _target(reference: Reference | None) -> ReferenceAnswer | None:
    """The first answer with a certain position."""
    return next((answer for answer in reference if answer.certain), None) if isinstance(reference, tuple) else None


def _places(offsets: np.ndarray, answer: ReferenceAnswer) -> tuple[int, int]:
    """(K - 1, 2) passage offsets -> the answer's (start, end) in `head_positions`; (0, 0) if it is not all inside."""
    begin, end = answer.start, answer.start + len(answer.text)
    if not len(offsets) or begin < offsets[0, 0] or end > offsets[-1, 1]:
        return 0, 0
    first = int(np.searchsorted(offsets[:, 1], begin, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return (first + 1, last + 1) if first <= last else (0, 0)


def _log_sum(values: np.ndarray) -> float:
    return float(values.max() + np.log(np.exp(values - values.max()).sum()))


def _whole_words(text: str) -> Callable[[int, int], tuple[int, int]]:
    """Return a function that extends a span to whole words; in scripts without spaces, each letter is a word."""
    edges = word_edges(text)

    def widened(start: int, end: int) -> tuple[int, int]:
        first = edges[np.searchsorted(edges, start, side="right") - 1]
        return int(first), int(edges[np.searchsorted(edges, end)])

    return widened


def _answer(context: str, start: int, end: int, log_score: float) -> dict[str, Any]:
    return {"answer": context[start:end], "score": math.exp(min(log_score, 0.0)), "start": start, "end": end}
