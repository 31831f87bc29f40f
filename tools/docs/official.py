"""ONNX's own tests of each operator that is read: which cases come out as they say, and why the others do not.

python -m tools.docs.official      writes validation/results/onnx-official.json

A case has arrays that go in and arrays that come out. The one that stands for samples, the first of floats that can,
has samples along its first axis; where that is refused it is one sample that a Reshape gives its shape. The other
arrays are constants. What comes out is read one by one.
"""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import refimpl as ri
from refimpl.formats.onnx import imported
from refimpl.formats.onnx.importing import converters
from refimpl.storage.checkpoint import CheckpointError

RESULT = Path(__file__).parents[2] / "validation" / "results" / "onnx-official.json"
RELATIVE, ABSOLUTE = 1e-4, 6e-5  # some cases state their outputs in four decimals
PASSED = "passed"
SMALL = ("float32", "float64", "float16")  # dtypes of arrays that can stand for samples


def cases() -> list[Any]:
    """The cases of one node each whose operator is read."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(action="ignore"):
        found = collect_testcases(None)
    return [c for c in found if len(c.model.graph.node) == 1 and c.model.graph.node[0].op_type in converters()]


def outcome(case: Any, folder: Path) -> str:
    """PASSED, or why not."""
    inputs, outputs = case.data_sets[0]
    if any(not isinstance(a, np.ndarray | np.generic) for a in (*inputs, *outputs)):
        return "sequences and options of arrays are not read"
    inputs, outputs = [[np.asarray(a) for a in of] for of in (inputs, outputs)]
    said = None
    for place, x in enumerate(inputs):
        if x.dtype.name in SMALL and x.size:
            for shaped in (False, True):
                found = {one(case, inputs, place, i, shaped, folder) for i in range(len(outputs))}
                if found == {PASSED}:
                    return PASSED
                said = said or min(found - {PASSED})
    return said or "no input of floats can stand for samples"


def one(case: Any, inputs: list[np.ndarray], place: int, output: int, shaped: bool, folder: Path) -> str:
    """What becomes of one output of a case; place: of the input that stands for samples."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    graph, wanted = model.graph, np.asarray(case.data_sets[0][1][output])
    names, x = [i.name for i in graph.input], inputs[place].astype(np.float32)
    kept = [numpy_helper.from_array(a, n) for i, (n, a) in enumerate(zip(names, inputs, strict=True)) if i != place]
    nodes, end = list(graph.node), graph.output[output].name
    if shaped:
        kept += [numpy_helper.from_array(np.array(s, np.int64), n) for n, s in (("in", x.shape), ("out", (1, -1)))]
        nodes = [helper.make_node("Reshape", ["samples", "in"], [names[place]]), *nodes]
        nodes.append(helper.make_node("Reshape", [end, "out"], ["flat"]))
        end, x = "flat", x.reshape(1, -1)
    else:
        nodes.append(helper.make_node("Identity", [end], ["last"]))  # what a net ends with may be left out
        end = "last"
    first = "samples" if shaped else names[place]
    takes = [helper.make_tensor_value_info(first, onnx.TensorProto.FLOAT, x.shape)]
    gives = [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "case", takes, gives, kept)
    path = folder / "case.onnx"
    onnx.save(helper.make_model(made, opset_imports=model.opset_import), path)
    try:
        found = imported(path)
    except CheckpointError as e:
        return str(e).replace(f"the ONNX model {path}", "the model")
    if found.graph is None or found.end is None:
        return found.missing[0].why
    y = run(found, x)
    y = y.reshape(wanted.shape) if y.size == wanted.size else y
    if y.shape != wanted.shape:
        return f"it gives the shape {y.shape}, but {wanted.shape} is right"
    near = np.allclose(y, wanted.astype(y.dtype), RELATIVE, ABSOLUTE, equal_nan=True)
    return PASSED if near else "it gives other numbers"


def run(found: Any, x: np.ndarray) -> np.ndarray:
    """What we make of samples x, both in ONNX's layout."""
    own = found.graph.shape(found.graph.inputs[0])[1:]
    if x.ndim == 4:
        x = x if x.shape[1:] == own and own[2] != x.shape[1] else x.transpose(0, 2, 3, 1)
    elif x.ndim == 3:
        x = x if x.shape[1:] == own[1:] and own[2] != x.shape[1] else x.transpose(0, 2, 1)
    with warnings.catch_warnings(action="ignore"):
        y = ri.Trainer(ri.compile(found.graph, None, len(x))).predict(np.ascontiguousarray(x.reshape(len(x), *own)))
    return found.end.theirs(y)


def outcomes() -> Iterator[tuple[str, str, str]]:
    """Operator, case and outcome of each."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            yield case.model.graph.node[0].op_type, case.name, outcome(case, Path(folder))
