"""Fine-tune, evaluate and run BERT-family models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bothways.errors import BothwaysError, CheckpointError, DataError, OptionError
    from bothways.jobs.export import export
    from bothways.jobs.export import tune_model as tune
    from bothways.jobs.finetune import finetune
    from bothways.jobs.judge import compare_models as compare
    from bothways.jobs.judge import evaluate
    from bothways.jobs.pretrain import pretrain
    from bothways.pipelines import pipeline
    from bothways.predictor import Predictor, load
    from bothways.runtime.exports import Plan
    from bothways.text.files import Columns
    from bothways.text.learn import learn_vocabulary
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
    "compare",
    "evaluate",
    "export",
    "finetune",
    "learn_vocabulary",
    "load",
    "pipeline",
    "pretrain",
    "tune",
]
_PLACES = {  # each public name, its module and its name there
    "BothwaysError": ("bothways.errors", "BothwaysError"),
    "CheckpointError": ("bothways.errors", "CheckpointError"),
    "Columns": ("bothways.text.files", "Columns"),
    "DataError": ("bothways.errors", "DataError"),
    "OptionError": ("bothways.errors", "OptionError"),
    "Plan": ("bothways.runtime.exports", "Plan"),
    "Predictor": ("bothways.predictor", "Predictor"),
    "PretrainRecipe": ("bothways.training.recipe", "PretrainRecipe"),
    "Recipe": ("bothways.training.recipe", "Recipe"),
    "compare": ("bothways.jobs.judge", "compare_models"),
    "evaluate": ("bothways.jobs.judge", "evaluate"),
    "export": ("bothways.jobs.export", "export"),
    "finetune": ("bothways.jobs.finetune", "finetune"),
    "learn_vocabulary": ("bothways.text.learn", "learn_vocabulary"),
    "load": ("bothways.predictor", "load"),
    "pipeline": ("bothways.pipelines", "pipeline"),
    "pretrain": ("bothways.jobs.pretrain", "pretrain"),
    "tune": ("bothways.jobs.export", "tune_model"),
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
