"""What a model is asked to do; one file a task, numpy only."""

from bothways.tasks.classify import Classify
from bothways.tasks.pairs import Pairs
from bothways.tasks.task import Task

TASKS: dict[str, type[Classify]] = {task.name: task for task in (Classify, Pairs)}

__all__ = ["TASKS", "Classify", "Pairs", "Task"]
