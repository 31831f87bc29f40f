"""Range batch norm: what it shares with batch norm is in `norm_rules`; its table comes from the ends of the map.

Its gradient is not one factor and one shift for all of a channel, so it is written out, and no map is read through its
tables in place of being written.
"""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...methods import quantized_norm
from ...ops import batch_norm
from ..common import absent
from . import batch_norm as fast_bn
from . import quantized_norm as fast
from .norm_rules import Tables, buffers, running, sliced, summed, tables


def ranged(lowering: Lowering, call: Call) -> Tables | None:
    """The tables of a call's norm, if it is one of ranges."""
    norm = grouping.norms(lowering).by_call.get(call)
    return tables(lowering, norm) if norm and norm.ranged else None


def table(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Sums and ends of the batch, the table of the norm and its running statistics."""
    known = ranged(lowering, call)
    if known is None:
        return None
    norm, (rows, channels) = known.norm, (known.norm.rows, known.norm.raw.shape[3])

    def of_slices(name: str, shape: tuple[int, ...], dtype):
        return sliced(lowering, call, name, lambda n: fast_bn.slices(n * rows, channels), shape, dtype)

    found = (
        of_slices("sums", (channels,), np.float64), of_slices("ends", (2, channels), norm.raw.dtype),
        of_slices("runs", (2, channels), np.int32),
    )  # fmt: skip
    first = Launch(call.name, fast.statistics, (*found, norm.raw), (norm.raw,), buffers(*found), (call,))
    kept, momentum = running(norm)
    a, ends = norm.calls["forward"].arrays, norm.calls["ends"].arrays
    into = (known.affine, known.moments, ends["low"], ends["high"])
    eps = norm.calls["inv_std"].attrs["eps"]
    args = (*into, *kept, *found, norm.raw, a["gamma"], a["beta"], eps, momentum)
    reads, writes = buffers(*found, norm.raw, a["gamma"], a["beta"], *kept), buffers(*into, *kept)
    covers = norm.statistics[1:]
    return [first, Launch(f"{call.node} range batch norm table", fast.table, args, reads, writes, covers)]


def gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dγ, dβ, and the gradient of the map, written out."""
    known = ranged(lowering, call)
    if known is None:
        return None
    norm = known.norm
    launches, covers = summed(lowering, known, call)
    dtype, channels = norm.map.y.dtype, norm.raw.shape[3]
    known.coef = lowering.scratch(call, "coef", (2, channels), dtype)
    slope, dgamma, dbeta = (
        norm.calls[p].arrays[a] if p in norm.calls else absent(1, dtype)
        for p, a in (("slope", "slope"), ("grad_gamma", "dgamma"), ("grad_beta", "dbeta"))
    )
    gamma, into = norm.calls["forward"].arrays["gamma"], (known.coef, slope, dgamma, dbeta)
    args, reads = (*into, known.grad_sums, known.moments, gamma, known.count), (known.grad_sums, known.moments, gamma)
    name = f"{call.node} range batch norm gradient table"
    launches.append(Launch(name, fast.gradient_table, args, buffers(*reads), buffers(*into), covers))
    if "grad_x" in norm.calls:
        launches.append(applied(lowering, known, slope))
    return launches


def applied(lowering: Lowering, known: Tables, slope: Buffer) -> Launch:
    """The gradient of the map, in place of ∂L/∂z where it may be."""
    last, ends = known.norm.calls["grad_x"], known.norm.calls["ends"].arrays
    dx, known.applied = last.arrays["dx"], True
    lowering.overlay(dx, known.dz, last)
    args = (dx, known.dz.reshape(dx.shape), known.coef, slope, ends["low"], ends["high"])
    name = f"{last.node} apply range gradient table"
    return Launch(name, fast.apply_gradient, args, (known.dz, *args[2:]), (dx,), covers=())


RULES = {  # rule → the passes of the calls that it begins at
    table: (batch_norm.mean,),
    gradient: (batch_norm.grad_gamma, batch_norm.grad_beta, quantized_norm.slope, quantized_norm.grad_x),
}
