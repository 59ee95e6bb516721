"""Every relative link of README and docs/ leads to a file, and every anchor to a heading. No network."""

from pathlib import Path

import pytest

from tests.pages import ROOT, anchors, links

LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def broken(page: Path) -> list[str]:
    found = []
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_what_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading, here\n\n[a](#a-heading-here) [b](#none) [c](none.md) [d](page.md#none) `[e](f.md)`\n")
    assert broken(page) == ["#none", "none.md", "page.md#none"]


def test_links_between_pages_stay_inside_docs_or_go_to_the_studies():
    """What docs/hooks.py brings into the site."""
    docs, studies = ROOT / "docs", ROOT / "results" / "studies"
    for page in docs.rglob("*.md"):
        for link in links(page):
            if not link.startswith(("http", "#")):
                target = (page.parent / link.partition("#")[0]).resolve()
                assert target.is_relative_to(docs) or target.parent == studies, (page.name, link)
