"""One rule per folder of the package: which others it may import. And what must not be imported for `--help`."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

PACKAGE = Path(__file__).parents[1] / "nex_merge"
# Every folder and module at the top, in the order in which data flows, and what each may import of the others.
FREE = {"errors", "records", "wording", "inert", "terminal", "interrupts", "atomic", "passwords", "one_thread"}
RULES = {
    "errors": {"passwords"},
    "passwords": set(),
    "wording": set(),
    "one_thread": set(),
    "inert": set(),
    "terminal": {"inert", "wording"},
    "interrupts": {"inert", "passwords"},
    "atomic": {"errors"},
    "records": {"records"},
    "threads": {"interrupts"},
    "resampling": set(),
    "sequential": set(),
    "answers": FREE,
    "checkpoints": FREE,
    "setup": FREE | {"answers", "checkpoints"},
    "merging": FREE | {"threads", "checkpoints"},
    "generation": FREE | {"setup", "threads"},
    "activations": FREE | {"setup", "threads"},
    "nex": FREE,
    "engines": FREE | {"checkpoints", "setup", "merging", "generation", "activations", "nex"},
    "measures": FREE | {"setup", "answers", "nex", "resampling"},
    "runs": FREE | {"checkpoints", "setup", "merging", "activations", "nex", "measures", "engines", "sequential"},
    "workers": FREE | {"setup", "engines"},
    "study": FREE | {"setup", "resampling", "merging", "generation", "nex", "measures", "engines", "runs", "workers"},
    # What the toy's problems are; the product knows it by an entry point alone. Its training is outside, in toy/.
    "families": set(),
    "labels": FREE | {"setup", "answers", "measures", "engines", "runs"},
    "compare": FREE | {"setup", "answers", "measures", "engines", "runs", "labels", "sequential"},
    "answer_files": FREE | {"setup", "answers", "measures", "labels"},
    "inspect": FREE | {"checkpoints", "setup", "answers", "resampling", "merging", "activations", "nex", "measures",
                       "engines", "runs", "labels", "answer_files"},
    "report": FREE | {"measures", "runs", "study", "labels", "inspect"},
    "api": FREE | {"setup", "engines", "runs", "study", "report"},
    "cli": FREE | {"checkpoints", "setup", "merging", "measures", "engines", "runs", "study", "workers", "labels",
                   "compare", "answer_files", "inspect", "report", "sequential"},
}  # fmt: skip
# Libraries that one place alone knows.
LIBRARIES = {
    "mergekit": {"merging/mergekit_plan.py", "merging/streamer.py"},
    "optuna": {
        "study/optuna_study.py",
        "study/samplers.py",
        "study/importances.py",
        "study/snapshot.py",
        "study/views.py",
        "study/dashboard.py",
    },
    "math_verify": {"answers/mathematics.py"},
    "hmmlearn": {"nex/phases.py"},
    "lm_eval": {"labels/lm_eval_grader.py", "setup/lm_eval_prompts.py"},
    "httpx2": {"checkpoints/hub.py"},
    "huggingface_hub": {"checkpoints/hub.py", "runs/card.py"},
    "plotly": {"report/figures.py"},
    "ray": {"workers/ray_actors.py"},
    "optuna_dashboard": {"study/dashboard.py"},
    "trackio": {"study/tracking/to_trackio.py"},
    "mlflow": {"study/tracking/to_mlflow.py"},
    "datasets": {"setup/hub_datasets.py"},
    "vllm": {"engines/vllm_model.py", "engines/vllm_sampling.py"},
    "sqlalchemy": {"runs/claims.py", "runs/database.py", "runs/seals.py"},
}
# Measures that no module outside measures/ compares a name with, but for these: setup knows no measures, and says at
# once that consensus needs base and parents.
NAMED, COMPARED = {"nex", "consensus"}, {"setup/resolve.py"}
NEX = ["novelty", "phases", "credit", "good_mass", "calibration", "scoring"]
HEAVY = ("torch", "optuna", "transformers", "mergekit")


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[:2] != "__")


def place(path: Path) -> str:
    """The folder or module at the top of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_folder_has_a_rule():
    assert {place(path) for path in sources()} == set(RULES)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_what_its_folder_may(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("nex_merge.")}
    assert own <= RULES[place(path)] | {place(path)}, own - RULES[place(path)]


def test_the_rules_are_as_tight_as_the_code():
    """A rule that nobody needs any more is a hole."""
    used = {name: set() for name in RULES}
    for path in sources():
        used[place(path)] |= {name.split(".")[1] for name in imports(path) if name.startswith("nex_merge.")}
    for name, allowed in RULES.items():
        unused = allowed - used[name] - FREE - {name}
        assert not unused, (name, unused)


def test_kernels_know_tensors_alone():
    for module in ("kernels", "slerp", "ranks", "workspace"):
        known = {name for name in imports(PACKAGE / "merging" / f"{module}.py") if name.startswith("nex_merge.")}
        allowed = ("nex_merge.merging.ranks", "nex_merge.merging.workspace", "nex_merge.threads")
        assert all(name.startswith(allowed) for name in known), module


def test_nex_is_pure_and_flows_one_way():
    for number, step in enumerate(NEX):
        found = imports(PACKAGE / "nex" / f"{step}.py")
        for heavy in (*HEAVY, "os", "pathlib"):
            assert not any(name == heavy or name.startswith(f"{heavy}.") for name in found), (step, heavy)
        own = {name.split(".")[2] for name in found if name.startswith("nex_merge.nex.")}
        assert own <= set(NEX[:number]), step


@pytest.mark.parametrize("folder", ["records", "answers", "measures", "setup"])
def test_what_needs_no_model_imports_no_model_library(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_once = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not {name.split(".")[0] for name in at_once} & set(HEAVY), path


def test_a_measure_is_asked_rather_than_known_by_its_name():
    """What others need to know of one is an attribute of it, or it is one of those that `measures.registry` names."""
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = isinstance(node, ast.Compare) and any(
                isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops
            )
            if compared and NAMED & {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}:
                found.add(str(path.relative_to(PACKAGE)))
    assert {name for name in found if not name.startswith("measures/")} == COMPARED


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_place_knows_each_library(library):
    found = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert found == LIBRARIES[library]


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
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not tree.body or ast.get_docstring(tree), path


def test_every_library_that_is_imported_is_declared():
    """What comes along with another dependency today may not tomorrow."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for name, items in project["optional-dependencies"].items() if name != "test" for item in items]
    items = [*project["dependencies"], *extras]
    declared = {re.split(r"[\s<>=!~\[;]", item)[0].lower().replace("-", "_") for item in items}
    provided = packages_distributions()
    for path in sources():
        libraries = {name.split(".")[0] for name in imports(path)} - {"nex_merge", *sys.stdlib_module_names}
        for library in libraries:
            # What is in an environment of its own is not installed here, and named as its package is.
            names = provided.get(library, ["vllm"] if library == "vllm" else [])
            assert {name.lower().replace("-", "_").removesuffix("_cpu") for name in names} & declared, (path, library)


def test_no_module_imports_itself_by_way_of_others():
    """Inside folders either, and wherever in a file an import stands: who reads one needs the others in no order."""
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    known = {}
    for name, path in modules.items():
        found = (imports(path) & modules.keys()) - {name}
        known[name] = {one for one in found if not any(other.startswith(f"{one}.") for other in found)}
    TopologicalSorter(known).prepare()  # raises CycleError, naming the circle


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
