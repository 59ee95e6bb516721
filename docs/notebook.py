"""Executes notebooks/tour.ipynb and keeps its outputs: `python -m docs.notebook`; then `python -m docs.generate`.

Takes as long as its search, a minute or two. Needs the test extra and a browser, which turns figures into pictures for
where no JavaScript runs.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"
PLOT = "application/vnd.plotly.v1+json"


def execute(notebook: Any, folder: Path) -> Any:
    """Run a notebook's cells in a folder, where its outputs name plotly's figures alone, without plotly.js.

    Raises CellExecutionError if a cell fails.
    """
    os.environ |= {"PLOTLY_RENDERER": "plotly_mimetype", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def add_pictures(notebook: Any) -> None:
    """Give every figure an SVG besides."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<div id='figure'></div>")
        page.add_script_tag(content=get_plotlyjs())
        for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
            if PLOT in output.get("data", {}):
                figure = output["data"][PLOT]
                drawn = (
                    "figure => Plotly.toImage(figure, {format: 'svg', width: 760, height: 420, imageDataOnly: true})"
                )
                output["data"]["image/svg+xml"] = page.evaluate(
                    drawn, {"data": figure["data"], "layout": figure["layout"]}
                )
        browser.close()


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ from run to run
    add_pictures(notebook)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
