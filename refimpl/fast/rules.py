"""Which groups of calls the fast kernels do together. Each rule returns a launch, or None where it does not apply."""

import numpy as np

from ..lower import Lowering, rule
from ..ops import add, frozen_batch_norm, relu, relu6
from ..program import Buffer, Call, Launch
from . import relu as fast_relu

RECTIFIERS = {relu.forward: (1, relu), relu6.forward: (2, relu6)}
MASKED = {relu.grad_x, relu6.grad_x}


def nothing(dims: int, dtype) -> np.ndarray:
    """The empty array that stands for an argument that is not given."""
    return np.empty((0,) * dims, dtype)


def flat(buffer: Buffer) -> Buffer:
    """A buffer as (N, elements of a sample)."""
    return buffer.reshape((buffer.shape[0], int(np.prod(buffer.shape[1:]))))


def named(calls: list[Call]) -> str:
    """A launch's name from the calls that it covers: `conv1 conv2d.forward + bn1 frozen_batch_norm.forward`."""
    return " + ".join(c.name for c in calls)


@rule
def rectify(lowering: Lowering, call: Call) -> Launch | None:
    """A rectifier and its mask in one sweep, with the sum of two branches before it where nobody else reads the sum."""
    covers, inputs = [call], []
    if call.passed is add.forward:
        rectifier = lowering.reader(call.arrays["y"], *RECTIFIERS)
        if rectifier is None:
            return None
        covers.append(rectifier)
        inputs = [call.arrays["a"], call.arrays["b"]]
    elif call.passed in RECTIFIERS:
        rectifier, inputs = call, [call.arrays["x"]]
    else:
        return None
    act, operator = RECTIFIERS[rectifier.passed]
    y = rectifier.arrays["y"]
    pack = lowering.find(y, operator.pack_mask)
    writes = [y]
    if pack:
        covers.append(pack)
        writes.append(pack.arrays["mask"])
    a = flat(inputs[0])
    b = flat(inputs[1]) if len(inputs) > 1 else nothing(2, y.dtype)
    mask = pack.arrays["mask"] if pack else nothing(2, np.uint8)
    args = (flat(y), mask, a, b, act)
    return Launch(named(covers), fast_relu.forward, args, tuple(inputs), tuple(writes), tuple(covers))


@rule
def masked_scale(lowering: Lowering, call: Call) -> Launch | None:
    """dy through a rectifier's mask and a frozen batch norm, in place where nobody needs dy any more."""
    if call.passed not in MASKED:
        return None
    covers = [call]
    dy, dx = call.arrays["dy"], call.arrays["dx"]
    scale = nothing(1, dy.dtype)
    reads = [dy, call.arrays["mask"]]
    norm = lowering.reader(dx, frozen_batch_norm.grad_x)
    if norm:
        covers.append(norm)
        dx, scale = norm.arrays["dx"], norm.arrays["scale"]
        reads.append(scale)
    if lowering.last_use(dy, call):
        dx.base = dy.root
    args = (flat(dx), flat(dy), call.arrays["mask"], scale)
    return Launch(named(covers), fast_relu.grad_x, args, tuple(reads), (dx,), tuple(covers))
