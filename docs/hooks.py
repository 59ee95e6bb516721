"""mkdocs: the studies lie outside docs/, beside the scripts that make them, and are part of the site all the same.

Pages link to them as a repository viewer needs it, `../results/studies/NAME`. The site has them in studies/.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

STUDIES = Path(__file__).parents[1] / "results" / "studies"


def on_files(files: Files, config) -> Files:
    """Add the studies, their figures and their data."""
    for path in sorted(STUDIES.iterdir()):
        if path.suffix in (".md", ".png", ".csv", ".json"):
            files.append(File.generated(config, f"studies/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Let links to the studies lead to where the site has them."""
    return re.sub(r"\]\(((?:\.\./)*)\.\./results/studies/", r"](\1studies/", markdown)
