"""Claims about examples/: notebooks and pages are made from the scripts, and a run gives what their texts say."""

import json
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bothways
from bothways.errors import ModelNotFoundError
from bothways.model.catalogue import find_model

jupytext, nbformat = pytest.importorskip("jupytext"), pytest.importorskip("nbformat")
CellExecutionError = pytest.importorskip("nbclient.exceptions").CellExecutionError
EXAMPLES = Path(__file__).parents[1] / "examples"
render = SimpleNamespace(**runpy.run_path(str(EXAMPLES / "render.py")))


def run(name: str, folder: Path, values: str, **parameters: Any) -> Any:
    """Execute a copy of an example in `folder`; gives the value of the expression `values` at its end."""
    for source in EXAMPLES.glob("*/*.csv"):
        (folder / source.parent.name).mkdir(exist_ok=True)
        shutil.copy(source, folder / source.parent.name)
    made = render.notebook(name)
    made.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({values}))"))
    executed = render.execute(made, folder, **parameters)
    return json.loads(executed.cells[-1].outputs[0].text)


def needs(task: str) -> None:
    """Skip the test if the included models are not installed."""
    try:
        bothways.pipeline(task)
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", render.NAMES)
def test_a_notebook_has_the_cells_of_its_script(name):
    made, kept = render.notebook(name), nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert [(cell.id, cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in made.cells
    ]
    assert all(cell.execution_count for cell in kept.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", render.NAMES)
def test_a_page_and_its_pictures_are_those_of_the_notebook(name):
    text, pictures = render.page(nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4), name)
    assert (EXAMPLES / f"{name}.md").read_text(encoding="utf-8") == text
    assert {path.name for path in EXAMPLES.glob(f"{name}_files/{name}_*")} == {Path(path).name for path in pictures}


def test_the_page_on_pretraining_is_what_its_script_prints(capsys):
    try:
        find_model("bothways-base", offline=True)
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    runpy.run_path(str(EXAMPLES / "how_bert_learns.py"))["main"]()
    printed, kept = capsys.readouterr().out, (EXAMPLES / "how_bert_learns.md").read_text(encoding="utf-8")
    probability = re.compile(r"\d+\.\d+")  # the last digits depend on the processor
    assert probability.sub("", printed) == probability.sub("", kept)


def test_every_example_is_in_the_index():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert script.stem in index


def test_a_cell_that_fails_fails_the_run(tmp_path):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)"), nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="division by zero"):
        render.execute(made, tmp_path)


@pytest.mark.slow
def test_the_errors_in_the_movie_reviews_are_those_that_the_text_explains(tmp_path):
    needs("sentiment-analysis")
    words = "[[review + 1, parts[review][part]] for review, part in sorted(deciding)]"
    wrong, confidences, deciding = run("movie_reviews", tmp_path, f"[[n + 1 for n in wrong], confidences, {words}]")
    assert wrong == [7, 8, 10, 14, 16]
    right = [confidence for number, confidence in enumerate(confidences, 1) if number not in wrong]
    assert [number for number in wrong if confidences[number - 1] < min(right)] == [8, 10]
    assert max(wrong, key=lambda number: confidences[number - 1]) == 7
    for place in ([4, "good"], [8, "hardly"], [9, "not"], [9, "away"], [14, "loved"], [15, "nowhere"]):
        assert place in deciding
    assert not {1, 7, 11} & {review for review, _ in deciding}


@pytest.mark.slow
def test_the_errors_in_the_news_are_those_that_the_text_explains(tmp_path):
    needs("ner")
    wrong = "[[text[a:b], kind] for (a, b), (kind, _) in group.items() if golds.get((a, b)) != kind]"
    simple, first = run("news_entities", tmp_path, f"[{wrong} for group in (found, whole)]")
    parts = [["World", "MISC"], ["Food Programme", "ORG"], ["Cab", "PER"], ["o Espichel", "PER"]]
    types = [["Liverpool", "LOC"], ["Apple", "MISC"]]
    assert sorted(simple) == sorted(types + parts)
    assert sorted(first) == sorted([*types, ["Cabo Espichel", "PER"]])
    assert "Maria Oliveira" in (tmp_path / "news_entities_files" / "news.html").read_text(encoding="utf-8")


def test_the_learning_curve_that_is_shown_is_the_one_that_the_text_describes():
    shown = (EXAMPLES / "learning_curve.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([\d,]+) \|.* \| \+([\d.]+) ± ([\d.]+) \(.*\| (\d) of (\d) draws", shown, re.MULTILINE)
    gains = {size: (float(gain), float(half), won == draws) for size, gain, half, won, draws in found}
    assert {size: gain for size, (gain, _, _) in gains.items()} == {
        "20": 3.6, "50": 11.5, "200": 20.5, "1,000": 13.9, "3,157": 7.0,
    }  # fmt: skip
    assert [size for size, (*_, always) in gains.items() if not always] == ["20"]
    assert all(gain > half for gain, half, _ in gains.values())


@pytest.mark.slow
def test_fine_tuning_wins_with_fifty_texts(tmp_path):
    gains = "{size: list(map(float, gain)) for size, gain in gains.items()}"
    made = run("learning_curve", tmp_path, gains, DRAWS={50: 1})
    assert list(made) == ["50"]
    gain, half = made["50"]
    assert gain - half > 0
