"""README is short; the page on the architecture names every folder; no page has a placeholder."""

import re

from tests.pages import PAGES, ROOT


def test_the_readme_can_be_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_page_on_the_architecture_has_a_line_for_every_folder():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT / "nex_merge").parts[0] for path in (ROOT / "nex_merge").glob("*/*.py")}
    assert {name for name in folders if f"| `{name}/` |" not in page} == set()


def test_the_call_path_is_one_of_files_that_exist():
    picture = (ROOT / "docs" / "images" / "call-path.svg").read_text(encoding="utf-8")
    named = re.findall(r"[a-z_]+/[a-z_]+\.py", picture)
    assert named
    for name in named:
        assert (ROOT / "nex_merge" / name).is_file(), name


def test_no_placeholder_is_left():
    for path in (*PAGES, ROOT / "nex_merge/families/qwen3_tiny/README.md"):
        assert "@@" not in path.read_text(encoding="utf-8"), path
