"""README is short; the map of files names what there is; no page has a placeholder."""

import re

from tests.pages import PAGES, ROOT


def test_the_readme_can_be_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def mapped() -> list[str]:
    """The files that the page on the architecture names, as paths in the package; a folder's row precedes its files."""
    folder, files = "", []
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if group := re.match(r"\| \*\*(?:`([a-z_/]+)`|at the root)\*\* \|", line):
            folder = group[1] or ""
        elif file := re.match(r"\| `([a-z_]+\.py)` \| \S", line):
            files.append(folder + file[1])
    return files


def test_the_map_names_every_file_under_its_folder():
    package = ROOT / "nex_merge"
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    there = [path.as_posix() for path in paths if path.name != "__init__.py" and "qwen3_tiny" not in path.parts]
    assert sorted(mapped()) == sorted(there)


def test_the_call_path_is_one_of_files_that_exist():
    picture = (ROOT / "docs" / "images" / "call-path.svg").read_text(encoding="utf-8")
    named = re.findall(r"[a-z_]+/[a-z_]+\.py", picture)
    assert named
    for name in named:
        assert (ROOT / "nex_merge" / name).is_file(), name


def test_no_placeholder_is_left():
    for path in (*PAGES, ROOT / "nex_merge/families/qwen3_tiny/README.md"):
        assert "@@" not in path.read_text(encoding="utf-8"), path
