"""The tasks, one file each, without PyTorch. `TASKS` lists all of them."""

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

# What transformers calls them.
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
    """Our name of a task that may be called as the pipelines of transformers are; an unknown one as it is.

    >>> task_name("ner"), task_name("zero-shot"), task_name("classify")
    ('tag', 'zero_shot', 'classify')
    """
    plain = name.casefold().replace("-", "_")
    return _PIPELINES.get(plain, plain if plain in TASKS else name)


def as_trainable(task: Task) -> Trainable:
    """A task that has references to be compared with; raises `OptionError` for one that has none."""
    if not isinstance(task, Trainable):
        raise OptionError(f"the task {task.name} has nothing to score its answers with; bothways predict shows them")
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
