"""`gradledger export`: an adapted net back into the model that it came from, under the names of that file.

That is a model of ONNX, or one of TensorFlow Lite that trained in its own whole numbers.
"""

import os
from pathlib import Path

import numpy as np

from refimpl.formats import onnx, tflite_whole
from refimpl.formats.onnx.exporting import exported
from refimpl.saved.described import LITE, ONNX, PARTS, Saved, described
from refimpl.saved.model import load
from refimpl.storage import checkpoint

from .errors import Malformed
from .models import quantized_file, saved
from .output import make_folder
from .run_folder import EXPORTED, WEIGHTS
from .streams import tell

FLOAT16 = 10  # ONNX's number


def run(file: str, like: str | None, output: Path | None, int8: str | None = None) -> dict:
    """Write the model of a file of ours; the record.

    like: the model that it was adapted from, default a file of its name beside `file` or where the command runs.
    output: default `file` with the end of that model. int8: samples by which its int8 form is made too, beside it.
    Malformed where the net came from no such model, or that model is missing or another one; CheckpointError where a
    file cannot be read or written.
    """
    found = saved(file)
    original = source(found, like)
    target = Path(file).with_suffix(original.suffix) if output is None else output
    if target.exists() and os.path.samefile(target, original):
        raise Malformed(
            f"{target} is the model that {file} was adapted from, and stays as it is: name another --output"
        )
    if int8 is not None:
        from .int8_export import maps_of, quantized

        if quantized_file(str(original)):
            raise Malformed(f"--quantize makes an int8 model of one of floats, but {original} is quantized already")
        if original.suffix == ONNX and onnx.read(original).inputs[0].type.tensor_type.elem_type == FLOAT16:
            raise Malformed(
                f"--quantize makes an int8 model of one of 32 bits, but {original} takes floats of 16 bits: "
                "export it in float32 from where it comes"
            )
        net = load(file)
        samples = maps_of(net, int8)
    make_folder(target.parent)
    written = write(found, original, target)
    record = {
        "ok": True,
        "file": str(target),
        "of": file,
        "like": str(original),
        "classes": list(found.classes),
        **written,
    }
    if int8 is not None:
        integers = target.with_name(f"{target.stem}.int8{ONNX}")
        record["int8"] = {"file": str(integers), "data": int8, **quantized(target, net, samples, integers)}
    return record


def source(found: Saved, like: str | None) -> Path:
    """The model that a file was adapted from; Malformed where there is none, or it is another one."""
    name = found.adapted_from.get("model", "")
    if name.endswith(LITE) and not found.whole:
        raise Malformed(
            f"{found.path} was adapted from {name} in floats, which have no place there: a model of TensorFlow Lite "
            "leaves as one where it trains in whole numbers (gradledger adapt --whole)"
        )
    if not name.endswith((ONNX, LITE)):
        raise Malformed(
            f"{found.path} was adapted from {name or 'a net'}, which is no ONNX model: what came as one leaves as one"
        )
    places = [Path(like)] if like else [Path(found.path).parent / name, Path(name)]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        where = f"there is no file {like}" if like else f"{name}, from which {found.path} was adapted, is not here"
        raise Malformed(f"{where}: give it by --like")
    if checkpoint.sha256(path) != found.adapted_from.get("sha256"):
        raise Malformed(f"{path} is not the {name} from which {found.path} was adapted: its content is another")
    return path


def write(found: Saved, original: Path, target: Path) -> dict:
    """Write the model, and read it again: its weights must be those of the net, in 8 or 16 bits where it has such."""
    graph = found.graph()
    said = {part: found.notes[part] for part in (*PARTS, "classes") if part in found.notes}
    lite = original.suffix == LITE
    if lite:
        content, weights = tflite_whole.rewritten(original, graph)
    elif found.whole:
        content, weights = onnx.rewritten(original, graph, said)
    else:
        content, weights = exported(original, graph.stored, graph.weights, said, graph.size), graph.weights
    checkpoint.write_atomic(target, [content])
    halves = set[str]()
    if lite or found.whole:
        again = (tflite_whole.load_whole if lite else onnx.load_whole)(target, size=graph.size).weights
    else:
        model = onnx.imported(target, graph.size)
        assert model.graph is not None
        again = model.graph.weights
        halves = {name for name, at in model.stored.items() if model.constants[at.name].dtype == np.float16}
    for name, array in weights.items():
        same = np.allclose(again[name], array, 2**-10, 2**-24) if name in halves else np.array_equal(again[name], array)
        if not same:
            target.unlink()
            raise Malformed(f"{name} of {found.path} could not be written into {original}")
    return {"bytes": len(content), "sha256": checkpoint.sha256(target)}


def beside(staged: Path, original: Path) -> bool:
    """Write the model beside the weights of a run that is about to end; False, and a sentence, where that fails."""
    try:
        found = described(staged / WEIGHTS)
        write(found, source(found, str(original)), staged / EXPORTED)
    except Exception as e:  # of whatever kind: the weights are there
        tell(f"the ONNX model was not written ({e}); everything else is saved")
        return False
    return True
