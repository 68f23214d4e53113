"""Fine-tune, evaluate and run BERT-family models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bothways.data.tables import Columns
    from bothways.errors import BothwaysError, CheckpointError, DataError, OptionError
    from bothways.inference.plan import Plan
    from bothways.inference.predictor import Predictor, load
    from bothways.jobs.average import average as average
    from bothways.jobs.compare import compare as compare
    from bothways.jobs.evaluate import evaluate
    from bothways.jobs.export import export
    from bothways.jobs.finetune import finetune
    from bothways.jobs.pretrain import pretrain
    from bothways.jobs.tune import tune as tune
    from bothways.pipelines import pipeline
    from bothways.text.vocabulary import train_vocabulary
    from bothways.training.recipe import PretrainRecipe, Recipe

__version__ = "0.1.0"
__all__ = [  # written out for type checkers; a test holds it against _PLACES
    "BothwaysError",
    "CheckpointError",
    "Columns",
    "DataError",
    "OptionError",
    "Plan",
    "Predictor",
    "PretrainRecipe",
    "Recipe",
    "average",
    "compare",
    "evaluate",
    "export",
    "finetune",
    "load",
    "pipeline",
    "pretrain",
    "train_vocabulary",
    "tune",
]
_PLACES = {  # each public name, its module and its name there
    "BothwaysError": ("bothways.errors", "BothwaysError"),
    "CheckpointError": ("bothways.errors", "CheckpointError"),
    "Columns": ("bothways.data.tables", "Columns"),
    "DataError": ("bothways.errors", "DataError"),
    "OptionError": ("bothways.errors", "OptionError"),
    "Plan": ("bothways.inference.plan", "Plan"),
    "Predictor": ("bothways.inference.predictor", "Predictor"),
    "PretrainRecipe": ("bothways.training.recipe", "PretrainRecipe"),
    "Recipe": ("bothways.training.recipe", "Recipe"),
    "average": ("bothways.jobs.average", "average"),
    "compare": ("bothways.jobs.compare", "compare"),
    "evaluate": ("bothways.jobs.evaluate", "evaluate"),
    "export": ("bothways.jobs.export", "export"),
    "finetune": ("bothways.jobs.finetune", "finetune"),
    "train_vocabulary": ("bothways.text.vocabulary", "train_vocabulary"),
    "load": ("bothways.inference.predictor", "load"),
    "pipeline": ("bothways.pipelines", "pipeline"),
    "pretrain": ("bothways.jobs.pretrain", "pretrain"),
    "tune": ("bothways.jobs.tune", "tune"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import bothways` costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'bothways' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """The public names, for completion, though they are not imported yet."""
    return sorted([*__all__, *(name for name in globals() if name.endswith("__"))])
