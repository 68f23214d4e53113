"""Zero-shot classification: does the text entail "This example is sports."? (Yin et al. 2019)."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np

from bothways.data.examples import CandidateLabels, Example
from bothways.errors import CheckpointError, DataError, OptionError
from bothways.tasks.classify import NOT_A_NUMBER, Classify, LabelPrediction, sigmoid, window_weights
from bothways.tasks.task import Task, labels_of_config, log_softmax, reading_stats
from bothways.text.tokenizer import Encoded, Tokenizer

NO_LABELS = "there are no labels to choose from; give candidate_labels=[...] (--candidate-labels sport,politics)"


@dataclass(frozen=True, slots=True)
class ZeroShot(Classify):
    """Zero-shot classification with an NLI model: predict for each label whether the text entails it.

    `nli` are the model's classes. `labels` are the candidates for texts without candidate labels; `kind` "multi"
    scores each label independently.
    """

    name = "zero_shot"
    fixed = frozenset({"nli"})
    nli: tuple[str, ...] = ()
    hypothesis_template: str = "This example is {}."

    def __post_init__(self) -> None:
        Task.__post_init__(self)
        if self.hypothesis_template.count("{}") != 1:
            raise OptionError(
                f"hypothesis_template is {self.hypothesis_template!r}, expected a text with one {{}} for the label"
            )
        if {"{", "}"} & set(self.hypothesis_template.replace("{}", "")):
            raise OptionError(
                f"hypothesis_template {self.hypothesis_template!r} has other braces than {{}}; write it without them"
            )
        problem = label_problem(self.labels) if self.labels else None
        if problem is not None:
            raise OptionError(problem)
        if self.kind == "regression":
            raise OptionError("zero-shot gives classes, not numbers; kind is single or multi")
        entailment_of(self.nli)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Return the task of a model whose config names the NLI classes."""
        return cls(labels=(), nli=labels_of_config(config), **settings)

    def changed(self, **settings: Any) -> Self:
        """As `Task.changed`, but also accept `candidate_labels` and `multi_label`, as `transformers` does."""
        if "candidate_labels" in settings:
            settings["labels"] = settings.pop("candidate_labels")
        if "multi_label" in settings:
            settings["kind"] = "multi" if settings.pop("multi_label") else "single"
        return super(ZeroShot, self).changed(**settings)  # slots=True replaces the class

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """The number of NLI classes."""
        return len(self.nli)

    def example(self, given: Any) -> Example:
        """Convert a text or a (text, labels) tuple to an example."""
        text, labels = given if isinstance(given, tuple) and len(given) == 2 else (given, self.labels)
        if not isinstance(text, str) or isinstance(labels, str) or not all(isinstance(one, str) for one in labels):
            raise DataError(f"found {reprlib.repr(given)}, expected a text, or a text and a list of labels")
        return Example((text,), details=CandidateLabels(tuple(labels)))

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `OptionError` if there are no labels, `DataError` for the first reference that is not a label."""
        if not self.labels:
            raise OptionError(NO_LABELS)
        super(ZeroShot, self).check(examples)

    def problem(self, example: Example) -> str | None:
        """Return the reason why an example cannot be answered, or None.

        Raises `OptionError` if neither the task nor the example has labels.
        """
        labels = self._labels(example)
        if not labels:
            raise OptionError(NO_LABELS)
        return label_problem(labels) if example.texts[0].strip() else "the text is empty"

    def size(self, example: Example) -> int:
        """Return the approximate number of characters that the model reads: the text, once per label."""
        labels = self._labels(example)
        around = len(self.hypothesis_template) + len(example.texts[0])
        return sum(around + len(label) for label in labels) or around

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return the windows of all (text, hypothesis) pairs, by example and in label order."""
        pairs = [
            (number, (example.texts[0], self.hypothesis_template.replace("{}", label)))
            for number, example in enumerate(examples)
            for label in self._labels(example)
        ]
        windows = tokenizer.windows(
            [pair for _, pair in pairs],
            max_length=self.max_length,
            stride=self.stride,
            truncation=self.truncation,
            sliding=0,
        )
        return [replace(window, example=pairs[window.example][0]) for window in windows]

    def decode(
        self, example: Example, parts: Sequence[np.ndarray], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> LabelPrediction:
        """(L,) logits of each window of each pair of one example -> the labels' probabilities.

        The logits of the windows of a pair are averaged by `window_weights`. "single" takes a softmax over the
        entailment logits of all labels; "multi", or a single label, a softmax over the entailment and contradiction
        logits of each label, as in `transformers`.
        """
        labels = self._labels(example)
        yes, no = entailment_of(self.nli)
        begins = [place for place, window in enumerate(windows) if window.window == 0]
        groups = [slice(begin, end) for begin, end in pairwise([*begins, len(windows)])]
        logits = np.stack([window_weights(windows[one]) @ np.stack(parts[one]) for one in groups])  # (labels, L)
        if self.kind == "multi" or len(labels) == 1:
            with np.errstate(invalid="ignore"):
                shares = sigmoid(logits[:, yes].astype(np.float64) - logits[:, no])
        else:
            shares = np.exp(log_softmax(logits[:, yes]))
        if not np.isfinite(shares).all():
            return replace(self.failure(NOT_A_NUMBER), **reading_stats(windows))
        scores = {labels[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")}
        best = next(iter(scores))
        chosen = None
        if self.kind == "multi":
            chosen = tuple(label for label, score in scores.items() if score >= self.threshold)
        return LabelPrediction(best, scores[best], scores, chosen, **reading_stats(windows))

    def _labels(self, example: Example) -> tuple[str, ...]:
        """The example's candidate labels, or the task's if it has none."""
        own = example.details.labels if isinstance(example.details, CandidateLabels) else ()
        return own or self.labels


def label_problem(labels: Sequence[str]) -> str | None:
    """Return an error message for invalid candidate labels, or None."""
    if any(not label.strip() for label in labels):
        return "a label is empty"
    return "a label is given twice" if len(set(labels)) < len(labels) else None


def entailment_of(labels: Sequence[str]) -> tuple[int, int]:
    """Return the indices of the entailment and the contradiction class, found by name.

    Raises `CheckpointError` if there is not exactly one of each.

    >>> entailment_of(["CONTRADICTION", "neutral", "entailment"])
    (2, 0)
    """
    plain = [label.casefold().replace("-", "_").replace(" ", "_") for label in labels]
    yes = [place for place, label in enumerate(plain) if label.startswith("entail")]
    no = [place for place, label in enumerate(plain) if label.startswith(("contra", "not_entail", "non_entail"))]
    if len(yes) != 1 or len(no) != 1:
        raise CheckpointError(
            f"the model's classes are {', '.join(labels)}; zero-shot needs an NLI model with classes called "
            "entailment and contradiction (bothways finetune pairs on NLI data makes one)"
        )
    return yes[0], no[0]
