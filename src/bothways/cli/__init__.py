"""The command line: thin commands. Results go to stdout, messages to stderr; 2 means the user can mend it."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence

import typer

from bothways.errors import BothwaysError

# Each command, as users see them in --help, and the module that has it.
COMMANDS = {
    "finetune": "training",
    "evaluate": "answering",
    "compare": "answering",
    "predict": "answering",
    "vocab": "training",
    "pretrain": "training",
    "export": "models",
    "tune": "models",
    "models": "models",
    "tokenize": "models",
}


def command_line(words: Sequence[str]) -> typer.Typer:
    """All commands, or where the first of the `words` names one those of its module: it takes time to build them."""
    app = typer.Typer(
        help="BERT and its family: text file in, trustworthy model out.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    asked = COMMANDS.get(words[0]) if words else None
    for name, module in COMMANDS.items():
        if asked in (None, module):
            app.command(name)(getattr(importlib.import_module(f"bothways.cli.{module}"), f"{name}_command"))
    return app


def _command() -> None:
    words = sys.argv[1:] or ["--help"]
    if command_line(words)(words, standalone_mode=False) == 130:  # what the library makes of Ctrl-C
        raise KeyboardInterrupt


def main() -> None:
    """Run a command; the user's mistakes end with one line and status 2, an interrupt with 130."""
    from bothways.errors import InterruptedRunError

    try:
        _command()
    except typer.TyperException as error:
        typer.echo(f"error: {error.format_message()} (bothways --help lists what there is)", err=True)
        sys.exit(2)
    except InterruptedRunError as error:
        typer.echo(str(error), err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except (BothwaysError, OSError) as error:  # what the system refuses (space, permission) is the user's to mend
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started one speaks
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        sys.exit(130)
    finally:
        gc.freeze()  # or ending looks through every object several times, which takes 30 ms
