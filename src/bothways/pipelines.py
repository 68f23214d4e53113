"""`pipeline(task, model)` with the names, arguments and keys that transformers 4 had: a thin face on the predictor.

What each argument does, and which are refused, is in docs/pipelines.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

from bothways.errors import ModelNotFoundError, OptionError
from bothways.predictor import Predictor, load
from bothways.runtime.engines import Name, Precision
from bothways.tasks.task import Prediction
from bothways.terminal import Reporter


class DictResult(dict[str, Any]):
    """A result as transformers gives it; `windows` and `truncated` say how much was read, `error` why nothing was."""

    windows: int
    truncated: int
    error: str | None


class ListResult(list[Any]):
    """The same where a result is a list."""

    windows: int
    truncated: int
    error: str | None


Shape = Callable[[Prediction, Any, Mapping[str, Any]], Any]  # a prediction, its input, the options -> a result
Settings = Callable[[Mapping[str, Any]], dict[str, Any]]  # options -> settings of the task


class Kind(NamedTuple):
    """One row of the table of pipelines: our task, the options that it takes, how a result looks."""

    task: str
    options: tuple[str, ...]
    settings: Settings
    shape: Shape
    default: str | None = None


class Pipeline:
    """Calls a model with one input, many, or a stream of them: a result, a list, or an iterator of results."""

    def __init__(self, name: str, predictor: Predictor, options: Mapping[str, Any]) -> None:
        self.name, self.kind = name, KINDS[name]
        self.predictor, self.options = predictor, dict(options)
        if predictor.task.name not in (self.kind.task, *_ALSO.get(name, ())):
            raise OptionError(f"the model was loaded for the task {predictor.task.name}, expected {self.kind.task}")
        self._predictor(options)  # so that a wrong option is an error here, not at the first call

    def __call__(self, inputs: Any = None, *labels: Any, **options: Any) -> Any:
        """Results in the order of the inputs; options of the call stand above those of the pipeline.

        Zero-shot alone takes its candidate labels without their name too. Raises `OptionError` for an option that
        this pipeline does not take.
        """
        if labels:
            if self.name != "zero-shot-classification" or len(labels) > 1 or "candidate_labels" in options:
                raise OptionError(f"{self.name} got {1 + len(labels)} arguments without a name, expected the inputs")
            options["candidate_labels"] = labels[0]
        if self.name == "question-answering":
            inputs = _questions(inputs, options)
        _refuse(self.name, options)
        given = self.options | options
        predictor = self._predictor(given)
        if isinstance(inputs, Iterator):
            return self._stream(predictor, inputs, given)
        if _is_one(self.name, inputs, given):
            (result,) = self._stream(predictor, [inputs], given)
            if self.name == "text-classification" and isinstance(inputs, str) and "top_k" not in given:
                return _like([result], result)  # as in transformers
            return result
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Iterable):
            raise OptionError(f"found {type(inputs).__name__} as the input of {self.name}, expected texts")
        several = isinstance(inputs, Sequence)
        results = self._stream(predictor, inputs, given)
        return list(results) if several else results

    def _predictor(self, options: Mapping[str, Any]) -> Predictor:
        """The predictor with the settings that options mean."""
        old = self.predictor
        settings = self.kind.settings(options)
        if "max_pieces" in settings and "overlap" not in settings:
            settings["overlap"] = min(old.task.overlap, settings["max_pieces"] // 4)
        most = old.task.max_pieces if old.artifact is None else old.artifact.config.max_pieces
        if settings.get("max_pieces", 0) > most:
            raise OptionError(f"found windows of {settings['max_pieces']} pieces, expected at most the model's {most}")
        task = replace(old.task, **settings) if settings else old.task  # type: ignore[type-var]
        if task.head != old.task.head:
            raise OptionError("this changes which part of the model answers; give it to pipeline(), not to the call")
        return Predictor(task, old.tokenizer, old.engine, old.artifact)

    def _stream(self, predictor: Predictor, inputs: Iterable[Any], options: Mapping[str, Any]) -> Iterator[Any]:
        if self.name == "zero-shot-classification":
            inputs = _with_labels(inputs, options)
        if self.name == "sentence-similarity":
            return (_similarity(predictor, one) for one in inputs)
        ours, theirs = tee(inputs)
        examples = (predictor.task.example(_plain(one)) for one in ours)
        predictions = predictor.stream(examples)
        return (
            _like(self.kind.shape(one, given, options), one) for one, given in zip(predictions, theirs, strict=True)
        )


def pipeline(
    task: str,
    model: str | Path | Predictor | None = None,
    *,
    engine: Name | None = None,
    precision: Precision | None = None,
    device: str | int | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Pipeline:
    """A pipeline for one of the tasks of transformers 4, or next-sentence-prediction or sentence-similarity.

    `model` is a directory or a name as in `load`. `device` may say "cpu" or -1, nothing else.

    >>> pipeline("translation")
    Traceback (most recent call last):
        ...
    bothways.errors.OptionError: no pipeline 'translation'; there are ...
    """
    name = ALIASES.get(task, task)
    if name not in KINDS:
        raise OptionError(f"no pipeline {task!r}; there are {', '.join([*KINDS, *ALIASES])}")
    if str(device) not in ("None", "-1", "cpu"):  # torch.device("cpu") too
        raise OptionError(f"device is {device!r}; bothways computes on the processor: leave it out, or say 'cpu'")
    _refuse(name, options)
    kind = KINDS[name]
    model = model or kind.default
    if model is None:
        raise ModelNotFoundError(
            f"no model was given for {task}; give the directory of one: pipeline({task!r}, model=...). "
            "`bothways finetune` makes one"
        )
    if not isinstance(model, Predictor):
        settings = {key: value for key, value in kind.settings(options).items() if key in ("pooling", "labels")}
        model = load(
            model, task=_task(name, options), engine=engine, precision=precision, reporter=reporter, **settings
        )
    return Pipeline(name, model, options)


def _task(name: str, options: Mapping[str, Any]) -> str | None:
    """The task to load a directory for; a classifier may be one of texts or of pairs, as it says itself."""
    return None if name == "text-classification" else KINDS[name].task


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    known = KINDS[name].options
    for option in options:
        if option not in known:
            why = _REFUSED.get(option, "")
            raise OptionError(f"pipeline {name} takes no {option!r}{why}; it takes {', '.join(known) or 'no options'}")


def _plain(given: Any) -> Any:
    """A text, or the texts of a dict with text and text_pair."""
    if isinstance(given, dict) and "text" in given:
        return (given["text"], given["text_pair"]) if "text_pair" in given else given["text"]
    return given


def _like(value: Any, prediction: Any) -> Any:
    """A result that says what a prediction, or a result, says of how its text was read."""
    wrapped: Any = DictResult(value) if isinstance(value, dict) else ListResult(value)
    wrapped.windows, wrapped.truncated, wrapped.error = prediction.windows, prediction.truncated, prediction.error
    return wrapped


def _is_one(name: str, inputs: Any, options: Mapping[str, Any]) -> bool:
    if name == "next-sentence-prediction":
        return isinstance(inputs, tuple)
    if name == "token-classification" and options.get("is_split_into_words"):
        return isinstance(inputs, list) and all(isinstance(word, str) for word in inputs)
    return isinstance(inputs, str | dict)


def _window(options: Mapping[str, Any], pieces: str, overlap: str) -> dict[str, Any]:
    """Settings of windows from options of two names."""
    names = {"max_pieces": pieces, "overlap": overlap}
    settings = {key: options[name] for key, name in names.items() if options.get(name) is not None}
    for key, value in settings.items():
        if not isinstance(value, int) or value < 0:
            raise OptionError(f"{names[key]} is {value!r}, expected a number of pieces")
    return settings


_FUNCTIONS = {"softmax": "single", "sigmoid": "multi", "none": "regression"}


def _classify_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    settings = _window(options, "max_length", "stride")
    function = options.get("function_to_apply")
    if function is not None:
        if str(function).lower() not in _FUNCTIONS:
            raise OptionError(f"function_to_apply is {function!r}, expected one of {', '.join(_FUNCTIONS)}")
        settings["kind"] = _FUNCTIONS[str(function).lower()]
    if options.get("truncation"):
        settings["long"] = "cut"
    return settings | _best(options)


def _best(options: Mapping[str, Any]) -> dict[str, Any]:
    """No settings: raises `OptionError` where `top_k` is neither None nor a number from 1."""
    top_k = options.get("top_k")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise OptionError(f"top_k is {top_k!r}, expected at least 1, or None for all")
    return {}


def _classify_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    if prediction.error is not None:
        answer = {"label": None, "score": None, "error": prediction.error}
        return [answer] if "top_k" in options else answer
    scores = sorted(prediction.scores.items(), key=lambda item: -item[1])
    answers = [{"label": label, "score": score} for label, score in scores]
    return answers[: options["top_k"]] if "top_k" in options else answers[0]


_STRATEGIES = ("none", "simple", "first", "average", "max")


def _tag_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    strategy = str(options.get("aggregation_strategy", "none")).lower().rpartition(".")[2]
    if strategy not in _STRATEGIES:
        raise OptionError(f"aggregation_strategy is {strategy!r}, expected one of {', '.join(_STRATEGIES)}")
    ignored = options.get("ignore_labels", ("O",))
    if isinstance(ignored, str):
        raise OptionError(f"ignore_labels is {ignored!r}, expected a list of labels")
    return {"strategy": strategy, "ignored": tuple(ignored)} | _window(options, "", "stride")


def _tag_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    return prediction.answer(every_score=False)["entities"]


def _answer_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: options.get(name, usual) for name, usual in (("top_k", 1), ("max_answer_len", 15))}
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise OptionError(f"{name} is {value!r}, expected at least 1")
    settings = _window(options, "max_seq_len", "doc_stride") | {"align": options.get("align_to_words", True)}
    settings |= {"top_k": numbers["top_k"], "longest": numbers["max_answer_len"]}
    if "handle_impossible_answer" in options:
        settings["empty"] = bool(options["handle_impossible_answer"])
    return settings


def _answer_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    if prediction.error is not None:
        return {"answer": "", "score": 0.0, "start": 0, "end": 0, "error": prediction.error}
    answers = [dict(answer) for answer in prediction.answers[: options.get("top_k", 1)]]
    return (answers or [prediction.answer(every_score=False)])[0] if options.get("top_k", 1) == 1 else answers


def _questions(inputs: Any, options: dict[str, Any]) -> Any:
    """The ways in which questions are given: dicts, or question= and context=, each one or a list."""
    question, context = options.pop("question", None), options.pop("context", None)
    if (question is None) != (context is None) or (question is None) == (inputs is None):
        raise OptionError("expected question= and context= together, or dicts that hold both")
    if question is None:
        return inputs
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    questions = [question] * len(context) if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    if len(questions) != len(contexts):
        raise OptionError(f"found {len(questions)} questions and {len(contexts)} contexts; expected as many of each")
    return [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]


def _zero_shot_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"template": options.get("hypothesis_template", "This example is {}.")}
    if "multi_label" in options:
        settings["kind"] = "multi" if options["multi_label"] else "single"
    return settings


def _with_labels(inputs: Iterable[Any], options: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each text with its candidate labels: the same for all, or a list for each."""
    labels: Any = options.get("candidate_labels")
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not labels:
        raise OptionError("expected candidate_labels: the classes to choose from, as a list or with commas between")
    if isinstance(labels[0], str):
        return ((text, labels) for text in inputs)
    if isinstance(inputs, Sequence) and len(inputs) != len(labels):
        raise OptionError(f"found {len(inputs)} texts and {len(labels)} lists of candidate_labels; expected as many")
    return ((text, list(own)) for text, own in zip(inputs, labels, strict=True))


def _zero_shot_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    answer = {
        "sequence": given[0],
        "labels": list(prediction.scores),
        "scores": list(prediction.scores.values()),
    }
    return answer if prediction.error is None else answer | {"error": prediction.error}


def _fill_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    targets = options.get("targets") or ()
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    return {"top_k": options.get("top_k", 5), "targets": targets} | _best(options)


def _fill_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    if prediction.error is not None:
        return [{"error": prediction.error}]
    masks = prediction.answer(every_score=False)["masks"]
    return masks[0] if len(masks) == 1 else masks


def _embed_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"pooling": options.get("pooling", "none"), "normalize": bool(options.get("normalize", False))}


def _embed_shape(prediction: Any, given: Any, options: Mapping[str, Any]) -> Any:
    vector = prediction.vector.tolist()
    return [vector] if options.get("pooling", "none") == "none" else vector


def _similarity(predictor: Predictor, given: Any) -> Any:
    """{"source_sentence", "sentences"} -> the cosine of each sentence's vector with the source's, None for no text."""
    sentences = given.get("sentences") if isinstance(given, dict) else None
    if not isinstance(sentences, list | tuple) or "source_sentence" not in given:
        raise OptionError('expected {"source_sentence": ..., "sentences": [...]}')
    source, *others = predictor([given["source_sentence"], *sentences])
    errors = [one.error or source.error for one in others]
    cosines = [
        float(one.vector @ source.vector) if error is None else None for one, error in zip(others, errors, strict=True)
    ]
    read = {"windows": max(one.windows for one in (source, *others)), "truncated": source.truncated}
    read["truncated"] += sum(one.truncated for one in others)
    return _like(cosines, Prediction(**read, error=next((error for error in errors if error), None)))


def _similarity_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"normalize": True} | ({"pooling": options["pooling"]} if "pooling" in options else {})


KINDS: dict[str, Kind] = {
    "text-classification": Kind(
        "classify",
        ("top_k", "function_to_apply", "truncation", "max_length", "stride"),
        _classify_settings,
        _classify_shape,
    ),
    "token-classification": Kind(
        "tag",
        ("aggregation_strategy", "ignore_labels", "stride", "is_split_into_words"),
        _tag_settings,
        _tag_shape,
    ),
    "question-answering": Kind(
        "answer",
        ("top_k", "doc_stride", "max_answer_len", "max_seq_len", "handle_impossible_answer", "align_to_words"),
        _answer_settings,
        _answer_shape,
    ),
    "zero-shot-classification": Kind(
        "zero_shot", ("candidate_labels", "hypothesis_template", "multi_label"), _zero_shot_settings, _zero_shot_shape
    ),
    "fill-mask": Kind("fill", ("top_k", "targets"), _fill_settings, _fill_shape),
    "feature-extraction": Kind("embed", ("pooling", "normalize"), _embed_settings, _embed_shape, "minilm-l6"),
    "next-sentence-prediction": Kind("next_sentence", ("top_k",), _best, _classify_shape),
    "sentence-similarity": Kind("embed", ("pooling",), _similarity_settings, _embed_shape, "minilm-l6"),
}
_ALSO = {"text-classification": ("pairs",)}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
_REFUSED = {
    "batch_size": " (batches are made by tokens, always)",
    "return_all_scores": " (it was replaced by top_k=None)",
    "grouped_entities": " (it was replaced by aggregation_strategy)",
    "ignore_subwords": " (it was replaced by aggregation_strategy)",
    "tokenizer": " (a model's own is always used)",
    "padding": " (there is no padding)",
    "max_question_len": " (a question is cut only where it is longer than half a window, and `truncated` says so)",
}
