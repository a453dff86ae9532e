"""The notebooks run from top to bottom, and their pictures are there."""

import json
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).parent.parent / "colab"
NAMES = (
    "01_quickstart",
    pytest.param("02_comparing_detectors", marks=pytest.mark.slow),
    pytest.param("03_few_shot_and_noisy", marks=pytest.mark.slow),
    "04_adding_a_detector",
    pytest.param("05_scaling", marks=pytest.mark.slow),
    "06_reproducing_a_published_row",
    "07_your_own_maps",
)


def test_there_are_no_others():
    names = [name if isinstance(name, str) else name.values[0] for name in NAMES]
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == names


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name, tmp_path):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    text = json.dumps(notebook)
    assert f"colab.research.google.com/github/iadjax/iadjax/blob/main/colab/{name}.ipynb" in text
    # readers see the pictures before they run anything
    assert pictures(notebook), "run the notebook from top to bottom before it is committed"
    for cell in notebook.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert pictures(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type == "stream" and output.name == "stdout" for output in outputs)


def pictures(notebook):
    """The pictures among the outputs."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    return [output for output in outputs if "image/png" in output.get("data", {})]
