"""A report shows what it was given, leaves out what it was not, and needs nothing but the one file."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bothways.errors import MissingDependencyError
from bothways.metrics import ClassScore, Interval, Scores, multi_label, regression, single_label
from bothways.render.report import Lengths, Mistake, Report, ReportRow, _axis, write_report
from bothways.tasks.picture import Mark, Picture

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "source", "wbr"}


class Page(HTMLParser):
    """The elements and the visible text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.words.append("" if tag == "wbr" else " ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def scored(K: int, n: int = 600):
    rng = np.random.default_rng(0)
    labels = [f"label_{k}" for k in range(K)]
    references = rng.integers(K, size=n)
    predicted = np.where(rng.random(n) < 0.9, references, (references + 1) % K)
    named = [[labels[k] for k in column] for column in (references, predicted)]
    return single_label(*named, labels, confidences=rng.random(n), rng=rng, resamples=50)


def full(K: int = 2) -> Report:
    scores = scored(K)
    return Report(
        title="Which label?",
        verdict="It is better than the baseline.",
        facts=[("Task", "classify"), ("Packages", "numpy 2")],
        rows=[
            ReportRow("baseline", {"accuracy": Interval(0.913, 0.901, 0.924)}),
            ReportRow("model", scores.metrics, 0.00001, 283.4, 22_713_986, 90_870_000, 612_000_000),
        ],
        losses=[(step, 1 / step) for step in range(1, 100)],
        dev={"accuracy": [(30, 0.5), (60, 0.9), (90, 0.8)]},
        scores=scores,
        mistakes=[
            Mistake("a text\nof two lines", "label_0", "label_1", 0.987),
            Mistake("long " * 200, "a", "", 0.5),
        ],
        lengths=Lengths([3, 9, 600], 512, windowed=1, truncated=88),
        notes=["The checkpoint was chosen on these texts."],
    )


def written(tmp_path: Path, report: Report) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    write_report(path, report)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_everything_given_is_shown(tmp_path):
    _, page = written(tmp_path, full())
    expected = [
        "It is better than the baseline.",
        "91.3 % (90.1 – 92.4)",
        "McNemar’s exact test (accuracy) against baseline",
        "The checkpoint was chosen on these texts.",
        "85.0 % 95.0 %",
        "Reliability diagram",
        "< 0.001",
        "22,713,986",
        "90.9 MB",
        "612.0 MB",
        "best 90.0 % at step 60",
        "Calibration error",
        "98.7 %",
        "(700 more characters)",
        "1 of 3 texts are longer than one window of 512 tokens",
        "88 tokens were truncated",
    ]
    assert [words for words in expected if words not in page.text] == []


@pytest.mark.parametrize("K", [2, 77])
def test_one_file_is_all_it_needs(tmp_path, K):
    text, page = written(tmp_path, full(K))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert page.count("script") == page.count("link") == 0
    addresses = [of.get(name) for _, of in page.elements for name in ("src", "srcset", "href") if of.get(name)]
    assert addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("K", [2, 77])
def test_pictures_have_words_and_tables_have_captions_and_headings(tmp_path, K):
    _, page = written(tmp_path, full(K))
    assert all(attributes["alt"] for tag, attributes in page.elements if tag == "img")
    assert page.count("table") == page.count("caption") == page.count("thead")
    assert page.count("h1") == 1
    assert page.count("h2") == page.count("section")


def test_few_labels_are_counted_in_cells(tmp_path):
    scores = scored(2)
    _, page = written(tmp_path, Report("few", scores=scores))
    for row in scores.confusion:
        for n in row:
            assert f"{n} {100 * n / row.sum():.1f} %" in page.text
    assert [of["alt"][:19] for tag, of in page.elements if tag == "img"] == ["Reliability diagram"]


def test_many_labels_are_drawn_and_their_worst_pairs_named(tmp_path):
    confusion = np.diag(np.full(77, 5))
    confusion[30, 4], confusion[4, 30] = 15, 1
    labels = tuple(f"label_{k}" for k in range(77))
    confused = ((labels[30], labels[4], 15), (labels[4], labels[30], 1))
    support = tuple(ClassScore(label, 1, 1, 1, int(n)) for label, n in zip(labels, confusion.sum(axis=1), strict=True))
    report = Report("many", scores=Scores({}, support, confusion, labels, confused))
    _, page = written(tmp_path, report)
    assert [of["alt"] for tag, of in page.elements if tag == "img"] == [
        "Heat map of 77 reference labels by 77 predicted ones; correct answers are on the diagonal."
    ]
    pairs = page.text.split("The most confused pairs")[1]
    assert pairs.index("label_30 label_4 15 75.0 %") < pairs.index("label_4 label_30 1 16.7 %")


def test_ten_thousand_labels_have_a_small_report(tmp_path):
    rng = np.random.default_rng(0)
    labels = [f"label_{k}" for k in range(10_000)]
    references, predicted = (np.array(labels)[rng.integers(10_000, size=3_000)].tolist() for _ in range(2))
    scores = single_label(references, predicted, labels, confidences=None, rng=rng, resamples=10)
    text, page = written(tmp_path, Report("very many", scores=scores))
    assert len(text) < 300_000
    assert "9,800 more labels are left out" in page.text
    assert "The most confused pairs" in page.text
    assert page.count("img") == 0


@pytest.mark.parametrize(
    ("intervals", "ends"),
    [
        ([(0.912, 0.903, 0.921)], (0.85, 0.95)),
        ([(0.5, 0.0, 1.0)], (0.0, 1.0)),
        ([(1.0, 0.98, 1.0)], (0.9, 1.0)),
        ([(0.0, 0.0, 0.03)], (0.0, 0.1)),
        ([(-0.2, -0.31, 0.1), (0.6, 0.52, 0.7)], (-0.35, 0.7)),
        ([], (0.0, 1.0)),
    ],
)
def test_the_axis_of_the_intervals_has_round_ends_and_is_never_shorter_than_a_tenth(intervals, ends):
    assert _axis([Interval(*one) for one in intervals]) == pytest.approx(ends)


def test_half_a_point_does_not_fill_the_axis(tmp_path):
    text, _ = written(tmp_path, Report("t", rows=[ReportRow("one", {"accuracy": Interval(0.912, 0.9095, 0.9145)})]))
    low, high = (float(re.search(rf"--{end}: ([\d.]+)", text).group(1)) for end in ("low", "high"))
    assert high - low < 10


def test_what_a_model_found_is_marked_in_its_text(tmp_path):
    text = "x" * 1000 + " Ann Lee " + "y" * 1000
    entity = Picture((("", text),), (Mark(1001, 1008, "PER", 0.9),))
    answer = Picture((("question", "Who <b>?"), ("passage", "It was Ann.")), (Mark(7, 10, "", 0.8),))
    mistakes = [
        Mistake(text, "Ann (PER)", "Ann Lee (PER)", 0.9, entity),
        Mistake("Who / It", "Lee", "Ann", 0.8, answer),
    ]
    page, parsed = written(tmp_path, Report("t", mistakes=mistakes))
    assert "<mark>Ann Lee<b>PER</b></mark>" in page
    assert "x" * 149 + " <mark>" in page
    assert "x" * 200 not in page
    assert "It was <mark>Ann</mark>." in page
    assert "Who <b>?" in parsed.text
    assert "word for word" in parsed.text


def test_a_report_loads_nothing_even_if_told_to(tmp_path):
    _, page = written(tmp_path, full())
    policies = [of["content"] for tag, of in page.elements if of.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_row_is_called_by_its_name_and_its_path_is_a_title(tmp_path):
    _, page = written(
        tmp_path, Report("t", rows=[ReportRow("best", {"f1": Interval(0.5, 0.4, 0.6)}, path="runs/a/best")])
    )
    assert [of["title"] for tag, of in page.elements if of.get("title")] == ["runs/a/best"]
    assert "runs/a/best" not in page.text


def test_a_report_of_only_a_title_has_no_sections(tmp_path):
    _, page = written(tmp_path, Report("Just this"))
    assert "Just this" in page.text
    assert page.count("section") == page.count("table") == page.count("img") == 0


def test_what_is_not_known_is_a_dash_and_a_p_only_where_there_is_one(tmp_path):
    _, page = written(tmp_path, Report("t", rows=[ReportRow("alone", {"spearman": Interval(0.8, 0.71, 0.9)})]))
    assert "0.800 (0.710 – 0.900)" in page.text
    assert "McNemar" not in page.text
    assert page.text.count("–") == 6  # one inside the interval


def test_nothing_from_the_data_becomes_markup(tmp_path):
    scores = single_label([EVIL, "b"], ["b", "b"], [EVIL, "b"], confidences=None, rng=np.random.default_rng(0))
    report = Report(EVIL, EVIL, [(EVIL, EVIL)], [ReportRow(EVIL, {EVIL: Interval(0, 0, 0)}, p=1.0)],
                    dev={"<b>$x$</b>": [(1, 0.5)]}, scores=scores, mistakes=[Mistake(EVIL, EVIL, EVIL, 1)])  # fmt: skip
    text, page = written(tmp_path, report)
    assert "<script" not in text
    assert "<b>$" not in text
    assert page.text.count(EVIL) >= 10


def test_other_kinds_of_scores_have_reports_too(tmp_path):
    rng = np.random.default_rng(0)
    several = multi_label([("a",), ("b",)], [("a", "b"), ()], "ab", rng=rng)
    _, page = written(tmp_path, Report("several", scores=several))
    assert "Micro F1" in page.text
    assert "Confusion matrix" not in page.text
    _, page = written(tmp_path, Report("numbers", scores=regression([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], rng=rng)))
    assert "Spearman correlation 1.000 (" in page.text


def test_one_point_and_equal_lengths_are_drawn_without_a_warning(tmp_path):
    report = Report("short", losses=[(1, 0.7)], dev={"accuracy": [(1, 0.5)]}, lengths=Lengths([4, 4], 8))
    _, page = written(tmp_path, report)
    assert page.count("img") == 3
    assert "Nothing was truncated." in page.text


def test_texts_that_are_no_unicode_are_written_all_the_same(tmp_path):
    _, page = written(tmp_path, Report("t", mistakes=[Mistake("half \ud83d of one", "日本", "🙂", 0.9)]))
    assert "half ? of one" in page.text
    assert "日本" in page.text


def test_a_report_replaces_the_one_before_only_when_whole(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(path, Report("first"))
    with pytest.raises(TypeError):
        write_report(path, Report("second", mistakes=[Mistake("text", "a", "b", None)]))
    assert "first" in path.read_text(encoding="utf-8")
    assert [path.name for path in path.parent.iterdir()] == ["report.html"]


def test_pyplot_and_its_global_state_are_never_touched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    written(tmp_path, full(77))


def test_without_its_packages_the_message_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'bothways\[train\]'"):
        write_report(tmp_path / "report.html", Report("t"))
