"""The notebooks: the two files of a pair agree, the text runs to its end, the kept outputs are whole and clean."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="jupytext is not installed: notebooks come with the extra [test]")
pytest.importorskip("nbclient", reason="nbclient is not installed: notebooks come with the extra [test]")
nbformat = pytest.importorskip("nbformat")

from tools import notebooks  # noqa: E402 (needs both)

KEPT_BYTES = 400_000  # of one notebook: the repository stays light
SMALL_SECONDS = 300  # for one cell, kernels not compiled yet; with compiled ones a whole notebook takes seconds
PERSONAL = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|Users|private)/|[A-Z]:\\\\")


def kept(name: str):
    return nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(output) -> str:
    """What an output says; a picture says nothing."""
    data = output.get("data", {})
    said = [output.get("text", ""), *(v for kind, v in data.items() if not kind.startswith("image/"))]
    return "\n".join(map(str, said))


def test_there_are_notebooks_and_each_is_a_pair():
    assert notebooks.names()
    assert notebooks.names() == sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", notebooks.names())
def test_both_files_hold_the_same_text(name):
    ours, theirs = notebooks.read(name), kept(name)
    assert [(c.id, c.cell_type, c.source) for c in theirs.cells] == [(c.id, c.cell_type, c.source) for c in ours.cells]
    assert theirs.metadata == ours.metadata


@pytest.mark.parametrize("name", notebooks.names())
def test_the_kept_outputs_are_whole_and_clean(name):
    found = outputs(kept(name))
    kinds = {output.output_type for output in found}
    assert "error" not in kinds and {"stream", "display_data"} <= kinds, kinds
    assert not [o.text for o in found if o.get("name") == "stderr"], "a warning is among the outputs"
    for output in found:
        said = text_of(output)
        assert not PERSONAL.search(said) and str(notebooks.ROOT.parent) not in said, said
    size = Path(notebooks.FOLDER / f"{name}.ipynb").stat().st_size
    assert size < KEPT_BYTES, f"{size:,} bytes"


@pytest.mark.parametrize("name", notebooks.names())
def test_it_runs_to_its_end_on_small_settings(name):
    try:
        subprocess.run([sys.executable, "-c", ""], check=True)
    except OSError as e:
        pytest.skip(f"no process can be started here: {e}")
    done = notebooks.execute(name, small=True, timeout=SMALL_SECONDS)
    assert not [o.text for o in outputs(done) if o.get("name") == "stderr"], "it warns"
    empty = [i for i, (a, b) in enumerate(zip(done.cells, kept(name).cells, strict=True)) if has(a) != has(b)]
    assert not empty, f"cells {empty} have an output in one of the two runs only"


def has(cell) -> bool:
    return bool(cell.get("outputs"))
