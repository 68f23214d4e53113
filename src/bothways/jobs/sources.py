"""How the texts of a job are named and read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bothways.runtime.artifact import Artifact
from bothways.text.files import Columns, Source


def columns_for(artifact: Artifact | None, columns: Columns | None) -> Columns:
    """Columns for a trained model: how its labels were written holds unless said otherwise."""
    columns = columns or Columns()
    if artifact is None:
        return columns
    before = artifact.facts.get("columns", {})
    return replace(
        columns,
        kind=columns.kind or getattr(artifact.task, "kind", None),
        separator=columns.separator or before.get("separator"),
        label_names=columns.label_names or before.get("label_names"),
    )


def named(source: Source) -> str:
    """What a report calls it."""
    return str(source) if isinstance(source, str | Path) else "rows in memory"
