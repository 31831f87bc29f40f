"""ONNX's own tests of each operator that is read: which cases come out as they say, and why the others do not.

python -m tools.docs.official      writes validation/results/onnx-official.json

A case has arrays that go in and arrays that come out. The one that stands for samples, the first of floats that can,
has samples along its first axis; where that is refused it is one sample that a Reshape gives its shape. The other
arrays are constants. What comes out is read one by one, behind a negative, since a net may leave out what it ends with.
"""

import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import refimpl as ri
from refimpl.formats.onnx import imported
from refimpl.formats.onnx.importing import converters
from refimpl.formats.onnx.model_file import OPSETS
from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError
from validation.instruments import provenance

NAME = "onnx-official"
RESULT = Path(__file__).parents[2] / "validation" / "results" / f"{NAME}.json"
RELATIVE, ABSOLUTE = 1e-4, 6e-5  # some cases state their outputs in four decimals
PASSED, OTHER = "passed", "it gives other numbers"
FIRST = "passed but for its other outputs: "
BITS = (8, 16, 32, 64)
KINDS = ("float16", "float32", "float64", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in BITS))
WHY = {  # operator → why numbers may be others
    "BatchNormalization": "statistics of the batch are those of a plan (`batch_norm='train'`), whatever the file says",
    "Dropout": "it is read as in inference, where it leaves nothing out, and gives no mask",
    "QuantizeLinear": "between layers a map is limited to the range, and not rounded",
    "DequantizeLinear": "between layers it gives what it takes, which was not rounded",
}


@dataclass(frozen=True)
class Official:
    """A case: its model and its arrays."""

    model: Any
    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]


def cases() -> list[Any]:
    """The cases of one node each whose operator is read."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(action="ignore"):
        found = collect_testcases(None)
    return [c for c in found if len(c.model.graph.node) == 1 and c.model.graph.node[0].op_type in converters()]


def outcome(case: Any, folder: Path) -> str:
    """PASSED, or why not."""
    try:
        inputs, outputs = [[array(a) for a in of] for of in case.data_sets[0]]
    except TypeError:
        return "arrays of other kinds are not read: sequences, options, texts, floats of 8 bits, integers of 4"
    if any(a.size == 0 for a in outputs) or any(a.size == 0 and a.dtype.kind == "f" and a.ndim > 1 for a in inputs):
        return "empty tensors are not read"
    op, floats = case.model.graph.node[0].op_type, [i for i, a in enumerate(inputs) if a.dtype.kind == "f" and a.size]
    official, said = Official(case.model, inputs, outputs), ""
    for place in floats or range(min(1, len(inputs))):
        for shaped in (False, True):
            found = [one(official, place, i, shaped, folder) for i in range(len(outputs))]
            why = next((said for said in found if said != PASSED), "")
            if found[0] == PASSED:
                return FIRST + WHY.get(op, why) if why else PASSED
            said = why if not said or "has the shape" in said else said
    said = WHY.get(op, said) if said == OTHER else said
    if said == OTHER and not floats:
        return "whole numbers stand as floats, which do not overflow and whose quotients keep a rest"
    return said


def array(found: Any) -> np.ndarray:
    """An array of a case; TypeError where NumPy has none of its kind."""
    import onnx

    if isinstance(found, onnx.TensorProto):
        found = onnx.numpy_helper.to_array(found)
    if not isinstance(found, np.ndarray | np.generic) or np.asarray(found).dtype.name not in KINDS:
        raise TypeError(f"{type(found)} is no array of NumPy's own numbers")
    return np.asarray(found)


def one(case: Official, place: int, output: int, shaped: bool, folder: Path) -> str:
    """What becomes of one output; place: of the input that stands for samples; shaped: behind a Reshape."""
    import onnx
    from onnx import helper, numpy_helper

    graph, x = case.model.graph, case.inputs[place].astype(np.float32)
    if not np.isfinite(x).all():
        return "samples that are not finite are refused"
    names, wanted = [i.name for i in graph.input], case.outputs[output].astype(np.float32)
    kept = [
        numpy_helper.from_array(a, n) for i, (n, a) in enumerate(zip(names, case.inputs, strict=True)) if i != place
    ]
    nodes, first, end = list(graph.node), names[place], graph.output[output].name
    if shaped:
        kept += [numpy_helper.from_array(np.array(s, np.int64), n) for n, s in (("in", x.shape), ("out", (1, -1)))]
        nodes = [helper.make_node("Reshape", ["samples", "in"], [first]), *nodes]
        nodes.append(helper.make_node("Reshape", [end, "out"], ["flat"]))
        first, end, x = "samples", "flat", x.reshape(1, -1)
    nodes.append(helper.make_node("Neg", [end], ["last"]))
    takes = [helper.make_tensor_value_info(first, onnx.TensorProto.FLOAT, x.shape)]
    gives = [helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, None)]
    # earlier and later opsets than are read differ in the dtypes of these operators alone
    opsets = [
        helper.make_opsetid(o.domain, min(max(o.version, OPSETS[0]), OPSETS[-1])) for o in case.model.opset_import
    ]
    path = folder / "case.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "case", takes, gives, kept), opset_imports=opsets), path)
    try:
        found = imported(path)
    except CheckpointError as e:
        return str(e).replace(f"the ONNX model {path}", "the model")
    if found.graph is None:
        return found.missing[0].why
    y = -run(found, x)
    y = y.reshape(wanted.shape) if y.size == wanted.size else y
    if y.shape != wanted.shape:
        return f"it gives the shape {y.shape}, but {wanted.shape} is right"
    return PASSED if np.allclose(y, wanted, RELATIVE, ABSOLUTE, equal_nan=True) else OTHER


def run(found: Any, x: np.ndarray) -> np.ndarray:
    """What we make of samples x, both in ONNX's layout."""
    own = found.graph.shape(found.graph.inputs[0])[1:]
    if x.ndim > 2 and not last(found):
        x = np.moveaxis(x, 1, -1)
    with warnings.catch_warnings(action="ignore"):
        y = ri.Trainer(ri.compile(found.graph, None, len(x))).predict(np.ascontiguousarray(x.reshape(len(x), *own)))
    return found.end.theirs(y)


def last(found: Any) -> bool:
    """Does a file take channels along the last axis?"""
    from refimpl.formats.onnx.model_file import channels_last

    return channels_last(found.file)


def outcomes() -> Iterator[tuple[str, str, str]]:
    """Operator, case and outcome of each."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            yield case.model.graph.node[0].op_type, case.name.removeprefix("test_"), outcome(case, Path(folder))


def made() -> dict[str, dict[str, str]]:
    """Operator → case → outcome."""
    found: dict[str, dict[str, str]] = {}
    for op, name, said in outcomes():
        found.setdefault(op, {})[name] = said
    return {op: dict(sorted(found[op].items())) for op in sorted(found)}


def record() -> dict:
    """What `made` found, and by what it was made."""
    import onnx

    measured = made()
    every = [said for of in measured.values() for said in of.values()]
    return {
        "name": NAME,
        "measured": measured,
        "cases": len(every),
        "passed": every.count(PASSED),
        "first": sum(said.startswith(FIRST) for said in every),
        **provenance.provenance(),
        "command": "python -m tools.docs.official",
        "onnx": onnx.__version__,
    }


def write(name: str, found: dict) -> None:
    """Write a record."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    checkpoint.write_atomic(RESULT.with_name(f"{name}.json"), [f"{text}\n".encode()])


if __name__ == "__main__":
    write(NAME, record())
