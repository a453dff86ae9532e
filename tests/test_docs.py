"""The pages name files and links that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_functions_that_an_image_passes_are_where_the_page_says():
    text = (ROOT / "docs/life_of_an_image.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/\w+\.py): ([^`]+)`((?:, `[\w.]+`)*)", text)
    assert len(named) > 10
    for file, names, more in named:
        code = (ROOT / "iadjax" / file).read_text(encoding="utf-8")
        for name in [names, *re.findall(r"`([\w.]+)`", more)]:
            assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), f"{file}: {name}"
    for folder in re.findall(r"(iadjax/[\w/]+(?:\.py)?)", text):
        assert (ROOT / folder).exists(), folder
