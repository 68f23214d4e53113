"""Conversion of model-directory files from format 1 to the current names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETTINGS_OF_FORMAT_1 = {  # task settings in bothways.json
    "max_pieces": "max_length",
    "overlap": "stride",
    "strategy": "aggregation_strategy",
    "ignored": "ignore_labels",
    "longest": "max_answer_len",
    "align": "align_to_words",
    "empty": "handle_impossible_answer",
    "template": "hypothesis_template",
}


def from_format_1(found: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a `bothways.json` or `onnx/export.json` from format 1 to 2; other formats are unchanged.

    >>> from_format_1({"format": 1, "task": "tag", "settings": {"max_pieces": 256, "long": "cut"}})
    {'format': 2, 'task': 'tag', 'settings': {'max_length': 256, 'truncation': True}}
    """
    if found.get("format") != 1:
        return dict(found)
    made = {{"graphs": "models", "usual": "default_task"}.get(name, name): value for name, value in found.items()}
    settings = made.get("settings")
    if isinstance(settings, dict):
        settings = {SETTINGS_OF_FORMAT_1.get(name, name): value for name, value in settings.items()}
        if "long" in settings:
            settings["truncation"] = settings.pop("long") == "cut"
        made["settings"] = settings
    return made | {"format": 2}
