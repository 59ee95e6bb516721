"""The plain loops that the product is timed against give its results; scripts name what there is."""

import ast
import importlib
from pathlib import Path

import pytest

from benchmarks import plain
from benchmarks.scoring import made_cache, ours


def test_the_plain_loop_scores_alike():
    cache = made_cache(responses=3, rows=60, neurons=40)
    assert ours(cache) == pytest.approx(plain.score(cache), abs=1e-6)
    assert 0 < ours(cache) < 1, "or the comparison shows nothing"


ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "toy", "results/studies")
SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_and_studies_import_what_the_product_has(path):
    """They run for hours and seldom, so that a renamed function would go unnoticed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nex_merge"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
