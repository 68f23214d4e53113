"""BERT and its family: text file in, trustworthy model out, answers served."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bothways.jobs import compare_models as compare
    from bothways.jobs import evaluate, export, finetune
    from bothways.jobs import tune_model as tune
    from bothways.pipelines import pipeline
    from bothways.predictor import load
    from bothways.text.files import Columns
    from bothways.training.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["Columns", "Recipe", "compare", "evaluate", "export", "finetune", "load", "pipeline", "tune"]

_PLACES = {
    "Columns": ("bothways.text.files", "Columns"),
    "Recipe": ("bothways.training.recipe", "Recipe"),
    "compare": ("bothways.jobs", "compare_models"),
    "evaluate": ("bothways.jobs", "evaluate"),
    "export": ("bothways.jobs", "export"),
    "finetune": ("bothways.jobs", "finetune"),
    "load": ("bothways.predictor", "load"),
    "pipeline": ("bothways.pipelines", "pipeline"),
    "tune": ("bothways.jobs", "tune_model"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import bothways` costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'bothways' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
