"""The names of the package: what `dir` lists, what they are, and that importing it costs nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import bothways


def test_every_public_name_is_listed_before_it_is_imported():
    script = "import bothways, sys; print(*dir(bothways)); print('numpy' in sys.modules)"
    listed, numpy = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(bothways.__all__) | {"__version__"} <= set(listed.split())
    assert {"load", "finetune", "pipeline", "evaluate", "Plan", "Predictor"} <= set(listed.split())
    assert numpy == "False"


@pytest.mark.parametrize("name", bothways.__all__)
def test_every_public_name_is_what_its_module_defines(name):
    module, attribute = bothways._PLACES[name]
    assert getattr(bothways, name) is getattr(importlib.import_module(module), attribute)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(bothways.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == bothways._PLACES
    assert bothways.__all__ == sorted(bothways._PLACES)


def test_a_name_that_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'bothways' has no attribute 'lode'"):
        _ = bothways.lode
