"""What a model is asked to do; one file a task, numpy only."""

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


def scored(task: Task) -> Trainable:
    """A task that has golds to be held against; raises `OptionError` for one that has none."""
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
    "scored",
]
