"""Claims about the pages: what they name exists, links lead somewhere, and nothing is left out of the site."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import bothways
from tests.test_imports import ORDER

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"([\w/.-]+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= listed


def test_the_reference_has_every_public_name():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^<!-- (\w+) -->$", page, re.MULTILINE)) == sorted(bothways.__all__)


def test_contributing_names_every_package():
    table = CONTRIBUTING.split("| package | content |")[1].split("\n\n")[0]
    first = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert [name.rstrip("/") for name in re.findall(r"`([\w/]+)`", first)] == [
        name for name in ORDER if name != "__main__"
    ]


def test_files_that_contributing_names_exist():
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|sh|md|yml|csv))`", CONTRIBUTING)
    assert len(named) >= 20
    for name in named:
        places = (
            REPOSITORY,
            REPOSITORY / "src" / "bothways",
            REPOSITORY / "src" / "bothways" / "inference" / "engines",
        )
        assert any((place / name).exists() for place in places), name


@pytest.fixture(scope="module")
def packages() -> ModuleType:
    """docs/pictures/packages.py, imported."""
    place = DOCS / "pictures" / "packages.py"
    spec = importlib.util.spec_from_file_location("packages", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_packages_is_that_of_the_imports(packages):
    assert set(packages.PLACES) - {packages.BASE} == set(ORDER) - set(packages.BASE.split(" · ")) - {"__main__"}
    written = (DOCS / "pictures" / "packages.svg").read_text(encoding="utf-8")
    assert written == packages.drawing(), "run python docs/pictures/packages.py"


def test_arrows_go_downward_in_the_picture_and_in_the_order(packages):
    assert packages.arrows()
    for name, other in packages.arrows():
        assert packages.PLACES[name][1] < packages.PLACES[other][1]
        assert other == packages.BASE or ORDER.index(name) > ORDER.index(other)
