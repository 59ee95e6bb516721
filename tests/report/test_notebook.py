"""Notebooks: a run as a cell's result, its figures, a search as it goes, and the tour in notebooks/."""

import sys
from types import SimpleNamespace

import nbformat
import pytest

import nex_merge
from docs import notebook as tour
from nex_merge import terminal
from nex_merge.engines.quiet import quietly
from nex_merge.report.notebook import MOST, run_html
from nex_merge.runs.run import RunFolder
from tests.engines.fakes import FakeEngine


class Kernel:
    """IPython in a kernel, as far as we know it: keeps what is displayed."""

    def __init__(self):
        self.shown = []
        self.display = SimpleNamespace(display=self._display)

    def get_ipython(self):
        return SimpleNamespace(kernel=self)

    def _display(self, bundle, raw, display_id):
        assert raw and display_id
        self.shown.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: self.shown.append(bundle))


def test_a_search_in_a_kernel_shows_its_ranking_as_it_grows(toy_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", kernel := Kernel())
    run = nex_merge.search(toy_config, engine=FakeEngine())
    states = list(dict.fromkeys(bundle["text/plain"] for bundle in kernel.shown))
    assert states[-1] == "7 of 7 trials done" and len(states) > 2
    last = kernel.shown[-1]["text/html"]
    assert last.count("<tr>") == 8 and str(run.path) in last


def test_ipython_elsewhere_is_no_notebook(monkeypatch):
    kernel = Kernel()
    kernel.get_ipython = lambda: None  # imported by something else
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert terminal.kernel() is None


def test_a_run_as_html(toy_run_copy):
    folder = toy_run_copy.rename(toy_run_copy.with_name("<b>run"))
    run = nex_merge.open_run(folder)
    page = run._repr_html_()
    assert repr(run) == f"Run({str(folder)!r})"
    assert "&lt;b&gt;run" in page and "<b>run" not in page
    assert page.count("<tr>") == 1 + min(len(run.leaderboard), MOST)
    for said in ("The search is finished: 4 of 4 merges.", "Verdict on NEX: insufficient", "<code>nex-merge search "):
        assert said in page, said
    (folder / "reliability.json").write_text("[1")
    assert "reliability.json: is damaged" in run_html(RunFolder(folder))


def test_figures_of_a_run_have_colours_of_their_own(toy_run):
    run = nex_merge.open_run(toy_run)
    assert "#0072b2" in (text := run.plot().to_json()) and "var(" not in text
    with pytest.raises(nex_merge.InputError, match=r"plot: expected a figure that .+ has \(history, .+\), got 'x'"):
        run.plot("x")


def test_transformers_is_quiet_for_a_while_alone(monkeypatch):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    def settings():
        return logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()

    monkeypatch.delenv("TRANSFORMERS_VERBOSITY")
    before = settings()
    logging.set_verbosity_info()
    with quietly():
        assert settings() == (logging.ERROR, False, True)
    assert settings() == (logging.INFO, *before[1:]) and before[1:] == (True, False)
    logging.set_verbosity(before[0])


def test_the_tour_runs(tmp_path):
    notebook = nbformat.read(tour.NOTEBOOK, as_version=4)
    kept = [output.output_type for cell in notebook.cells for output in cell.get("outputs", ())]
    text = nbformat.writes(notebook)
    for said, instead in ((r"\"limit\": 24", r"\"limit\": 2"), (r"\"trials\": 6", r"\"trials\": 1"), ("1024", "300")):
        assert said in text
        text = text.replace(said, instead)
    found = tour.execute(nbformat.reads(text, as_version=4), tmp_path)
    outputs = [output for cell in found.cells for output in cell.get("outputs", ())]
    assert [output.output_type for output in outputs] == kept  # what is kept is what such a search shows
    assert "4 of 4 trials done" in outputs[0].data["text/html"] and "finished: 1 of 1" in outputs[1].data["text/html"]
    assert any(tour.PLOT in output.get("data", {}) for output in outputs)
    assert (tmp_path / "results" / "tour-best" / "model.safetensors").is_file()
