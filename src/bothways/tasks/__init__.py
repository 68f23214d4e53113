"""The tasks, one per module; none of them imports PyTorch. `TASKS` lists all of them."""

from bothways.errors import OptionError
from bothways.tasks.answer import Answer
from bothways.tasks.classify import Classify
from bothways.tasks.embed import Embed
from bothways.tasks.fill import Fill
from bothways.tasks.pairs import NextSentence, Pairs
from bothways.tasks.tag import Tag
from bothways.tasks.task import Task, Trainable
from bothways.tasks.zero_shot import ZeroShot

TRAINED: dict[str, type[Trainable]] = {task.name: task for task in (Classify, Pairs, Tag, Answer)}
"""The tasks that models are fine-tuned for."""
TASKS: dict[str, type[Task]] = TRAINED | {task.name: task for task in (ZeroShot, Fill, NextSentence, Embed)}
"""Every task by its name."""

# Names of `transformers` pipelines -> our names.
_PIPELINES = {
    "text_classification": "classify",
    "sentiment_analysis": "classify",
    "token_classification": "tag",
    "ner": "tag",
    "question_answering": "answer",
    "zero_shot_classification": "zero_shot",
    "fill_mask": "fill",
    "feature_extraction": "embed",
    "sentence_similarity": "embed",
    "next_sentence_prediction": "next_sentence",
}


def task_name(name: str) -> str:
    """Return our name for a task or a `transformers` pipeline; unknown names are returned unchanged.

    >>> task_name("ner"), task_name("zero-shot"), task_name("classify")
    ('tag', 'zero_shot', 'classify')
    """
    plain = name.casefold().replace("-", "_")
    return _PIPELINES.get(plain, plain if plain in TASKS else name)


def as_trainable(task: Task) -> Trainable:
    """Return `task` as a `Trainable`; raises `OptionError` if predictions of the task cannot be scored."""
    if not isinstance(task, Trainable):
        raise OptionError(f"the task {task.name} cannot be evaluated; use bothways predict to see its answers")
    return task


__all__ = [
    "TASKS",
    "TRAINED",
    "Answer",
    "Classify",
    "Embed",
    "Fill",
    "NextSentence",
    "Pairs",
    "Tag",
    "Task",
    "Trainable",
    "ZeroShot",
    "as_trainable",
    "task_name",
]
