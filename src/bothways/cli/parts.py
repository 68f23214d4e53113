"""What the commands share: arguments with their help, and how results are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)]
Task = Annotated[
    str | None,
    typer.Option(help="What the model shall do, where it could do several things: pairs, zero_shot, embed, fill ..."),
]
Labels = Annotated[str | None, typer.Option(help="zero_shot: the classes to choose from, with commas between.")]
MaxFall = Annotated[float, typer.Option(help="Points that the metric may fall against fp32.", min=0, max=100)]
Template = Annotated[str | None, typer.Option(help="zero_shot: the hypothesis, with {} for the label.")]
Engine = Annotated[str | None, typer.Option(help="onnxruntime, openvino or torch; without it the best there is.")]
Precision = Annotated[str | None, typer.Option(help="int8, int8-static, bf16 or fp32; without it the best there is.")]
Model = Annotated[str, typer.Argument(help="Directory of a fine-tuned model.", metavar="MODEL")]
Out = Annotated[Path, typer.Option(help="Directory to write to.")]
TimeBudget = Annotated[
    str | None, typer.Option(help="Train so long, for example 5m or 1.5h, instead of --epochs or --steps.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands in the directory.")]


def annotate(kind: Any, name: str, text: str) -> Any:
    """The option for a field of a record, by its type, name and help; `Columns` and the recipes become options so."""
    flag = "--" + name.replace("_", "-")
    both = kind is bool and name in ("header", "nsp")
    return Annotated[kind, typer.Option(f"{flag}/--no-{flag[2:]}" if both else flag, help=text)]


def names_in(text: str) -> tuple[str, ...]:
    """The names of a list with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def given(**settings: Any) -> dict[str, Any]:
    """The settings that somebody gave."""
    return {name: value for name, value in settings.items() if value is not None}


def print_json(value: Any) -> None:
    """One object, on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(table: Any) -> None:
    """A table of rich, on stdout."""
    from rich.console import Console

    console = Console()
    # A file or a pipe has no width of its own: let the table have the width it needs.
    console.print(table) if console.is_terminal else Console(width=200).print(table)
