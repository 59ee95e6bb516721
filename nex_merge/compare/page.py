"""A blind comparison as one HTML page, which needs no network and gives a file of judgements back.

The page has the answers by their sides and nothing else: neither names nor which side is whose, so that not even its
source tells. It can't tell for that reason when the comparison is settled; the run can, given the file.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nex_merge.compare.pairs import Opened
from nex_merge.runs import files
from nex_merge.sequential import stand


def write_page(opened: Opened, file: Path) -> int:
    """Write the page of a comparison. Returns the number of prompts on it. All text is escaped."""
    environment = Environment(loader=PackageLoader("nex_merge", "compare"), autoescape=True, undefined=StrictUndefined)
    questions = opened.questions()
    data = {
        "comparison": opened.comparison.id,
        "questions": [
            {"index": one.prompt, "prompt": one.text, "left": one.left, "right": one.right} for one in questions
        ],
    }
    fewest = stand((), len(questions)).at_least
    template = environment.get_template("page.html.jinja")
    files.write_atomically(file, template.render(data=data, fewest=fewest, count=len(questions)))
    return len(questions)
