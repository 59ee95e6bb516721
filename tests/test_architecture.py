"""The import rules of the architecture, and what must not be imported for `--help`."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nex_merge"
FREE = {"records", "errors"}  # everyone may import these
STAGES = {
    # module -> what else of the package it may import
    "config": set(),
    "families": {"config"},
    "search_space": {"config"},
    "proposal": set(),
    "merging": {"merging", "cores"},
    "prompts": {"config"},
    "generation": {"config", "generation"},
    "capture": {"config", "cores"},
    "cores": set(),
    "cache": set(),
    "trials": set(),
    "guards": set(),
    "study": {"config", "trials"},
    "leaderboard": {"config", "trials"},
    "correlate": {"config", "trials"},
    "progress": {"trials"},
}
NEX = ["novelty", "phases", "credit", "good_mass", "calibration", "reliability"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def own_imports(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("nex_merge.")}


def sources(module: str) -> list[Path]:
    file = PACKAGE / f"{module}.py"
    return [file] if file.exists() else sorted((PACKAGE / module).glob("*.py"))


def test_stages_do_not_import_one_another():
    for module, allowed in STAGES.items():
        assert sources(module), module
        for path in sources(module):
            assert own_imports(path) <= FREE | allowed, path


def test_kernels_know_tensors_alone():
    for module in ("kernels", "kept", "blocks"):
        known = {name for name in imports(PACKAGE / "merging" / f"{module}.py") if name.startswith("nex_merge.")}
        allowed = ("nex_merge.merging.ranks", "nex_merge.merging.blocks", "nex_merge.threads")
        assert all(name.startswith(allowed) for name in known), module


def test_nex_is_pure_and_flows_one_way():
    for place, step in enumerate(NEX):
        found = imports(PACKAGE / "nex" / f"{step}.py")
        for heavy in ("torch", "optuna", "transformers", "mergekit", "os", "pathlib"):
            assert not any(name == heavy or name.startswith(f"{heavy}.") for name in found), (step, heavy)
        own = {name.split(".")[2] for name in found if name.startswith("nex_merge.nex.")}
        assert own <= set(NEX[:place]), step


def importers(library: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for name in imports(path))
    }


def test_one_module_knows_each_library():
    assert importers("mergekit") == {"merging/recipes.py"}
    assert importers("optuna") == {"study.py"}
    assert importers("hmmlearn") == {"nex/phases.py"}
    assert importers("plotly") == {"report/figures.py"}


def test_help_and_listings_import_nothing_heavy():
    code = (
        "import sys; sys.argv = ['nex-merge', '--help']\n"
        "from nex_merge.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'optuna', 'mergekit', 'pandas', 'sklearn', 'scipy', 'hmmlearn', 'numpy',"
        " 'plotly', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_every_module_says_what_it_is():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not tree.body or ast.get_docstring(tree) or path.name == "__main__.py", path
