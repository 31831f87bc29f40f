"""Windows of convolutions and pools: kernels, strides and padding as ONNX states them, in our order."""

from collections.abc import Sequence

from ...kernels.geometry import same_pad
from .value import Sides, Unsupported
from .walk import OnnxNode


def two(numbers: Sequence[int], first: int) -> tuple[int, int]:
    """Rows and columns; one number is that of the columns of a map of one row, whose rows take `first`."""
    found = tuple(int(n) for n in numbers)
    return (first, found[0]) if len(found) == 1 else (found[0], found[1])


def pad_of(
    here: OnnxNode, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> Sides:  # fmt: skip
    """((top, bottom), (left, right)) of a node on maps of `size`, from `pads` or `auto_pad`."""
    auto = here.attr("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found = [same_pad(*each) for each in zip(size, kernel, stride, dilation, strict=True)]
        if auto == "SAME_LOWER":  # the odd row above or to the left
            found = [(after, before) for before, after in found]
        return found[0], found[1]
    if auto not in ("NOTSET", "VALID"):
        raise Unsupported(f"there is no padding {auto}")
    pads = tuple(here.attr("pads", ())) if auto == "NOTSET" else ()
    pads = pads or (0, 0, 0, 0)
    if any(n < 0 for n in pads):
        raise Unsupported(f"its padding {pads} cuts the map")
    if len(pads) == 2:
        pads = (0, pads[0], 0, pads[1])
    return (int(pads[0]), int(pads[2])), (int(pads[1]), int(pads[3]))
