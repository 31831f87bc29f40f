"""Copies of chosen channels and their scores on the fast kernels."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...methods import error_map_pruning as emp
from ...methods import sparse_update as su
from . import channels, tiles

TAKEN = {
    emp.keep_dy: ("dy_kept", "dy", "kept"),
    emp.keep_w: ("w_kept", "w", "kept"),
    emp.keep_x: ("x_kept", "x", "kept"),
    su.take_x: ("x_chosen", "x", "chosen"),
}
SPREAD = {emp.spread_x: ("dx", "dx_kept", "rank"), emp.spread_w: ("dw", "dw_kept", "rank")}


def take(lowering: Lowering, call: Call) -> list[Launch]:
    """Chosen channels side by side."""
    out, *read = (call.arrays[a] for a in TAKEN[call.passed])
    return [Launch(call.name, channels.take, (out, *read), tuple(read), (out,), (call,))]


def spread(lowering: Lowering, call: Call) -> list[Launch]:
    """Kept channels back at their places."""
    out, *read = (call.arrays[a] for a in SPREAD[call.passed])
    kept = lowering.scratch(call, "kept", read[0].shape[3:], np.int32)
    return [Launch(call.name, channels.spread, (out, kept, *read), tuple(read), (out,), (call,), (kept,))]


def score(lowering: Lowering, call: Call) -> list[Launch]:
    """The scores of error map pruning, from sums over slices of the samples."""
    a, dtype = call.arrays, call.arrays["dy"].dtype
    partials = lowering.scratch(call, "partials", tiles.grad_b_partials(call.sizes), dtype)
    gammas = (dtype.type(call.attrs[name]) for name in ("gamma_w", "gamma_dy"))
    args = (a["scores"], partials, a["dy"], a["w"], *gammas)
    return [Launch(call.name, channels.score, args, (a["dy"], a["w"]), (a["scores"],), (call,), (partials,))]


RULES = {take: TAKEN, spread: SPREAD, score: (emp.score,)}  # rule → the passes of the calls that it begins at
