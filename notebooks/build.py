"""Makes exercise.ipynb of exercise.py: runs every cell and keeps what it shows."""

import pathlib
import sys

import jupytext
import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent


def read() -> nbformat.NotebookNode:
    """The notebook without outputs, with the same ids whenever it is made."""
    found = jupytext.read(FOLDER / "exercise.py")
    for number, cell in enumerate(found.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    found.metadata = {"kernelspec": found.metadata["kernelspec"]}
    return found


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with outputs; raises `nbclient.exceptions.CellExecutionError` at a mistake."""
    where = {"metadata": {"path": FOLDER}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "exercise.ipynb"
    nbformat.write(run(read()), out)
