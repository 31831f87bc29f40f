"""Copies of chosen channels on the fast kernels, for the methods that choose some."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from . import channels


def take(lowering: Lowering, call: Call) -> list[Launch]:
    """Chosen channels side by side: a pass of the result, the whole, and the numbers of the channels."""
    out, *read = (call.arrays[a] for a in call.passed.arrays)
    return [Launch(call.name, channels.take, (out, *read), tuple(read), (out,), (call,))]


def spread(lowering: Lowering, call: Call) -> list[Launch]:
    """Kept channels back at their places: a pass of the result, what was kept, and the rank of each channel."""
    out, *read = (call.arrays[a] for a in call.passed.arrays)
    kept = lowering.scratch(call, "kept", read[0].shape[3:], np.int32)
    return [Launch(call.name, channels.spread, (out, kept, *read), tuple(read), (out,), (call,), (kept,))]
