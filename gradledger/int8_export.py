"""`gradledger export --quantize DATA`: the ONNX model of an adapted net in int8, its ranges those of one's own samples.

Quantizing is onnxruntime's (`onnxruntime.quantization`, extra `int8`): QuantizeLinear and DequantizeLinear around what
runs in integers, weights by channels, maps between the least and the largest value that a sample gives them.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from refimpl.data.dataset import DataError
from refimpl.formats.onnx.importing import entrance
from refimpl.formats.onnx.model_file import read
from refimpl.saved.model import Model
from refimpl.storage import checkpoint

from .errors import Malformed

MOST = 256  # samples that ranges are from
OPSET = 13  # the first in which weights have a scale a channel


def quantized(model: Path, net: Model, given: list[np.ndarray], target: Path) -> dict:
    """Write the int8 form of an ONNX model; what it does with the samples beside the model of floats.

    net: the model as `refimpl.saved.model.load` gives it; given: what `maps_of` gives. Malformed where the model is too
    old.
    """
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    file = read(model)
    if file.opset < OPSET:
        raise Malformed(f"{model} is of opset {file.opset}, int8 with a scale a channel needs {OPSET}: export it anew")
    _, value = entrance(file, net.graph.size, str(model))
    name = file.inputs[0].name
    samples = [{name: one} for maps in given for one in np.split(value.theirs(maps), len(maps))]

    class Reader(CalibrationDataReader):
        """Hands out the samples, one at a time."""

        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict | None:
            """The next one; None at the end."""
            return next(self.left, None)

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(made), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        content = with_metadata(made, model)
    checkpoint.write_atomic(target, [content])
    sessions = [InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (model, target)]
    of_floats, of_integers = (
        np.concatenate([session.run(None, feed)[0] for feed in samples]).argmax(1) for session in sessions
    )
    return {
        "samples": len(samples),
        "same_class": float(np.mean(of_floats == of_integers)),
        "bytes": len(content),
        "float_bytes": model.stat().st_size,
        "sha256": checkpoint.sha256(target),
    }


def maps_of(net: Model, data: str) -> list[np.ndarray]:
    """Batches of the maps that a net takes for samples, as `predict` reads them: the first MOST.

    Before anything is written: Malformed where onnxruntime is missing, DataError where the data do not fit.
    """
    if find_spec("onnxruntime") is None:
        raise Malformed("int8 needs packages that are not installed: pip install 'gradledger[int8]'")
    found, left = list[np.ndarray](), MOST
    for _, maps in net.inputs(data):
        found.append(np.asarray(maps[:left]))
        left -= len(found[-1])
        if not left:
            break
    if left == MOST:
        raise DataError(f"{data} has no samples that ranges could be from")
    return found


def with_metadata(made: Path, model: Path) -> bytes:
    """A model with the metadata of another one, which quantizing loses."""
    import onnx

    found, original = onnx.load(str(made)), onnx.load(str(model), load_external_data=False)
    del found.metadata_props[:]
    found.metadata_props.extend(original.metadata_props)
    return found.SerializeToString()
