"""README and docs/ as tests read them: fenced blocks with the comment before them, commands, links, headings."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# docs/reference is generated, and has tests of its own.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# In one line, to look for quotations in.
FAQ = " ".join((ROOT / "docs" / "faq.md").read_text(encoding="utf-8").split())

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*) -->\n\n?)?^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    title: str | None  # the file that the block shows
    reason: str | None  # why it isn't run
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a console or a shell, with continuation lines."""
        if self.language not in ("console", "sh"):
            return []
        found = re.findall(r"^(?:\\\n|[^\n])+", self.text, re.MULTILINE)
        if self.language == "console":
            return [line.removeprefix("$ ") for line in found if line.startswith("$ ")]
        return [line for line in found if line.strip()]


def blocks(page: Path) -> list[Block]:
    found = []
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        language, _, rest = match["info"].partition(" ")
        title = re.fullmatch(r'title="([^"]+)"', rest)
        assert title or not rest, f"{page.name}: ```{match['info']}"
        found.append(Block(page, language, title[1] if title else None, match["reason"], match["text"]))
    return found


def arguments(command: str) -> tuple[list[str], str | None]:
    """The words of a command after its name, as bash reads them, and the file that its output goes to."""
    command, _, target = command.partition(" > ")
    name, _, rest = command.partition(" ")
    assert name == "nex-merge", command
    script = f"printf '%s\\0' {rest}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    return words.split("\0")[:-1], target.split("#")[0].strip() or None


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """The targets of links and pictures; what stands in code is none."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    yield from re.findall(r"\]\(([^()\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a repository viewer and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
