"""Run the notebooks and keep their outputs.

python tools/notebooks.py [NAME ...]    runs notebooks/NAME.py (all without a name) and writes notebooks/NAME.ipynb

The .py, in jupytext's percent format, is what people edit and review; the .ipynb beside it is the same text with its
outputs. Whatever changes from run to run without a change of the text (times, cell numbers, random ids, versions) is
not kept, so that a difference between two commits is one of content.
"""

import base64
import hashlib
import io
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
FORMAT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def names() -> list[str]:
    """Every notebook, by the name of its text."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def read(name: str) -> nbformat.NotebookNode:
    """The notebook of notebooks/NAME.py, without outputs; a cell's id follows from its text."""
    text = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    text.metadata = nbformat.from_dict(FORMAT)
    seen = {}
    for cell in text.cells:
        cell.metadata = nbformat.from_dict({})
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return text


def execute(name: str, small: bool = False, timeout: int = 3600) -> nbformat.NotebookNode:
    """Run a notebook to its end in a new process, in the root of the project; its outputs are in the result.

    small: on the short settings that its first cell chooses under GRADLEDGER_SMALL=1. timeout: seconds for one cell.
    CellExecutionError with the cell and its traceback where one fails.
    """
    found = read(name)
    client = NotebookClient(
        found,
        config=Config({"KernelManager": {"transport": "ipc"}}),  # it needs no network
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(ROOT)}},
    )
    environment = {k: v for k, v in os.environ.items() if k != "GRADLEDGER_SMALL"}
    client.execute(env=environment | {"GRADLEDGER_SMALL": "1"} if small else environment)
    found.metadata = nbformat.from_dict(FORMAT)
    for cell in found.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                output.pop("metadata", None)
                if picture := output.get("data", {}).get("image/png"):
                    output.data["image/png"] = smaller(picture)
    return found


def smaller(picture: str) -> str:
    """A PNG, as text in base 64, in 256 colours that cover its own to within a few levels of 255: half the size."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        reduced = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    reduced.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(chosen: list[str]) -> int:
    """Run the chosen notebooks, all if none is chosen, and write each .ipynb."""
    if unknown := sorted(set(chosen) - set(names())):
        print(f"there is no notebook {unknown[0]}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    for name in chosen or names():
        started = time.perf_counter()
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(execute(name), path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
