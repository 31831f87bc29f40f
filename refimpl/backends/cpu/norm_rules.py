"""Batch norm with the statistics of the batch, and the convolutions around it: maps are read through small tables.

Between two convolutions nothing normalised is stored where one of the kernels that read through tables (`pointwise`,
`depthwise`) is the only consumer: it reads the raw output y of the convolution before as act(a·y + b), and leaves its
dx with the two sums that the norm's own gradient needs. Such a norm is called *virtual* here. Elsewhere the map is
written once (`normalize`, together with the sum of two branches and the activation).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...compiler import grouping
from ...compiler.grouping import Chain, Norm
from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...ops import batch_norm, conv2d
from ..activation import NONE
from ..common import absent, activation, named
from . import batch_norm as fast_bn
from . import depthwise, pointwise


@dataclass
class Tables:
    """The arrays of a training norm's kernels."""

    norm: Norm
    affine: Buffer
    moments: Buffer
    virtual: bool
    sums: Prefix | None = None  # Σy, Σy² by slice
    grad_sums: Prefix | None = None  # Σdz, Σdz·y by slice
    coef: Buffer | None = None
    applied: bool = False  # is ∂L/∂y written out, since others than the kernels that read through `coef` need it?
    dz: Buffer | None = None  # ∂L/∂(a·y + b), zero where the activation is flat

    @property
    def act(self) -> int:
        """The activation after the norm."""
        return activation(self.norm.map.rectifier)

    @property
    def count(self) -> AtBatch:
        """M = N·H·W at run time."""
        rows = self.norm.rows
        return AtBatch(lambda n: n * rows)


def tables(lowering: Lowering, norm: Norm | None) -> Tables | None:
    """Those of a norm, made once; None for none."""
    if norm is None:
        return None
    known = lowering.notes.setdefault("tables", {})
    if norm not in known:
        mean, dtype, channels = norm.calls["mean"], norm.map.y.dtype, norm.raw.shape[3]
        affine = lowering.scratch(mean, "affine", (2, channels), dtype)
        moments = lowering.scratch(mean, "moments", (2 + norm.ranged, channels), np.float64)
        known[norm] = Tables(norm, affine, moments, virtual(norm))
    return known[norm]


def virtual(norm: Norm) -> bool:
    """Is the map of a norm read by one convolution alone, whose kernels do it through the table?"""
    return (
        not norm.ranged
        and norm.map.sum is None
        and None not in norm.readers
        and len({c.node for c in norm.readers}) == 1
        and all(kernel_of(c) and c.passed in (conv2d.forward, conv2d.grad_w) for c in norm.readers)
        and all(c.when == norm.when for c in norm.readers)
    )


def reads_virtual(lowering: Lowering, call: Call) -> bool:
    """Does a gradient read the map of a virtual norm, which is nowhere but in the kernels that read through tables?"""
    norm = grouping.norms(lowering).by_z.get(call.arrays["x"].root) if call.passed in grouping.GRAD_W else None
    return norm is not None and virtual(norm)


def kernel_of(call: Call):
    """The module whose kernels compute a convolution's call while reading through tables, or None."""
    return None if call.renamed else fitting(call)


def fitting(call: Call):
    """The module with kernels for a convolution's call of this geometry, on whatever arrays, or None."""
    if call.passed not in (conv2d.forward, conv2d.grad_w, conv2d.grad_x):
        return None
    sizes, a = call.sizes, call.attrs
    plain = sizes["G"] == sizes["R"] == sizes["S"] == 1 and a["stride"] == (1, 1) and a["pad"] == ((0, 0), (0, 0))
    if plain and not call.present:
        return pointwise
    if sizes["G"] == sizes["C"] == sizes["K"] and sizes["C"] > 1:
        return depthwise
    return None


def sliced(lowering: Lowering, call: Call, name: str, parts, shape: tuple[int, ...], dtype) -> Prefix:
    """A buffer of partial arrays, one a slice, of which a run with n samples uses the first `parts(n)`."""
    return Prefix(lowering.scratch(call, name, (parts(lowering.batch), *shape), dtype), parts)


def parts_of(kernel, call: Call):
    """Slices that a convolution kernel makes, as a function of the samples."""
    rows = call.sizes["P"] * call.sizes["Q"]
    return depthwise.slices if kernel is depthwise else lambda n: pointwise.slices(n * rows)


def pointwise_scratch(lowering: Lowering, call: Call, sizes, x: Buffer, w: Buffer) -> tuple[Buffer, Buffer]:
    """Scratch of each thread and scratch that all share, enough for every batch up to the full one."""
    needed = [sizes((n, *x.shape[1:]), w.shape) for n in range(1, lowering.batch + 1)]
    own, shared = (max(column) for column in zip(*needed, strict=True))
    return (
        lowering.scratch(call, "scratch", (lowering.threads, own), x.dtype),
        lowering.scratch(call, "shared", (shared,), x.dtype),
    )


def depthwise_scratch(lowering: Lowering, call: Call, sizes, x: Buffer, w: tuple, y: tuple, *rest) -> tuple[Buffer]:
    """Scratch of each thread, enough for every batch up to the full one."""
    own = max(sizes((n, *x.shape[1:]), w, (n, *y), *rest) for n in range(1, lowering.batch + 1))
    return (lowering.scratch(call, "scratch", (lowering.threads, own), x.dtype),)


class Reading(NamedTuple):
    """How a kernel reads a map: array, table or none, activation, and the virtual norm before it if there is one."""

    x: Buffer
    affine: Buffer | np.ndarray
    act: int
    before: Tables | None


def source(lowering: Lowering, x: Buffer, norm: Norm | None) -> Reading:
    """How a kernel reads x, which comes from a training norm or from elsewhere."""
    known = tables(lowering, norm)
    if known and known.virtual:
        return Reading(known.norm.raw, known.affine, known.act, known)
    return Reading(x, absent(2, x.dtype), NONE, None)


def buffers(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    plain = (v.buffer if isinstance(v, Prefix) else v for v in values)
    return tuple(v for v in plain if isinstance(v, Buffer))


def convolve(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A 1×1 or depthwise convolution that reads through the table of the norm before and sums for the norm after.

    A depthwise one adds its bias; or a frozen norm after it is done at once, and an activation that keeps no mask. On
    tangents there is no training norm beside it.
    """
    kernel = fitting(call)
    if kernel is None:
        return None
    conv = grouping.ConvolutionGroup(call) if call.renamed else grouping.beside(lowering, call)
    y, w = call.arrays["y"], call.arrays["w"]
    x, affine, act, before = source(lowering, call.arrays["x"], conv.before)
    after = None if conv.after and conv.after.ranged else tables(lowering, conv.after)
    if kernel is pointwise and before is None and after is None:
        return None  # no table on either side
    sums = absent(3, np.float64)
    if after:
        sums = after.sums = sliced(lowering, call, "sums", parts_of(kernel, call), (2, y.shape[3]), np.float64)
    if kernel is pointwise:
        scratch = pointwise_scratch(lowering, call, pointwise.forward_scratch, x, w)
        args = (y, x, w, affine, sums, *scratch, act)
        return [Launch(call.name, kernel.forward, args, buffers(x, w, affine), buffers(y, sums), (call,), scratch)]
    geometry = (call.attrs["stride"], call.attrs["dilation"], call.attrs["pad"])
    of = (w.shape, y.shape[1:], y.dtype.itemsize, *geometry)
    scratch = depthwise_scratch(lowering, call, depthwise.forward_scratch, x, *of)
    chain, scale, shift = finished(lowering, call)
    out = chain.y.reshape(y.shape)
    post = activation(chain.rectifier)
    args = (out, x, w, affine, sums, scale, shift, *scratch, act, post, *geometry)
    reads = buffers(x, w, affine, scale, shift)
    return [Launch(named(chain.calls), kernel.forward, args, reads, buffers(out, sums), chain.calls, scratch)]


class Finish(NamedTuple):
    """What a kernel does to its output at once, with scale and shift as its arguments."""

    chain: Chain
    scale: Buffer | np.ndarray
    shift: Buffer | np.ndarray


def finished(lowering: Lowering, call: Call) -> Finish:
    """What a depthwise convolution does to y at once: no sum, no mask, and an activation behind one shift only."""
    chain, bias, dtype = grouping.chain(lowering, call).before("sum"), call.arrays.get("b"), call.arrays["y"].dtype
    if bias is not None:
        chain = chain.before("norm")
    if chain.pack or bias is None and chain.norm is None:
        chain = chain.before("rectifier")
    if chain.norm:
        return Finish(chain, chain.norm.arrays["scale"], chain.norm.arrays["shift"])
    return Finish(chain, absent(1, dtype), absent(1, dtype) if bias is None else bias)


def table(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Statistics of the batch, the table of the norm and its running statistics; a virtual norm ends here."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm is None or norm.ranged:
        return None
    known, covers, launches = tables(lowering, norm), norm.statistics, []
    if known.sums is None:
        rows, channels = norm.rows, norm.raw.shape[3]
        known.sums = sliced(
            lowering, call, "sums", lambda b: fast_bn.slices(b * rows, channels), (2, channels), np.float64
        )
        args = (known.sums, norm.raw)
        launches.append(Launch(call.name, fast_bn.statistics, args, (norm.raw,), buffers(known.sums), (call,)))
        covers = covers[1:]
    if known.virtual:
        covers += norm.map.calls
    a, (kept, momentum) = norm.calls["forward"].arrays, running(norm)
    eps = norm.calls["inv_std"].attrs["eps"]
    args = (known.affine, known.moments, *kept, known.sums, a["gamma"], a["beta"], known.count, eps, momentum)
    reads, writes = buffers(known.sums, a["gamma"], a["beta"], *kept), buffers(known.affine, known.moments, *kept)
    launches.append(Launch(f"{call.node} batch_norm table", fast_bn.training_table, args, reads, writes, covers))
    return launches


def running(norm: Norm) -> tuple[list, float]:
    """The running statistics of a norm, mean and variance, and their momentum; empty arrays where none are kept."""
    updates = [norm.calls[p].arrays[f"running_{p[7:]}"] for p in ("update_mean", "update_var") if p in norm.calls]
    if not updates:
        return [absent(1, norm.raw.dtype)] * 2, 0.0
    return updates, norm.calls["update_mean"].attrs["momentum"]


def normalize(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A map that is needed as such: normalised, added to the other branch, rectified, written once."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm is None:
        return None
    known, covers, out = tables(lowering, norm), norm.map.calls, norm.map.y
    other = norm.map.residual if norm.map.sum else absent(4, out.dtype)
    args = (out.reshape(norm.raw.shape), norm.raw, known.affine, other, absent(2, out.dtype), known.act)
    name = f"{call.node} batch_norm.forward" + "".join(f" + {c.name}" for c in covers[1:])
    return [Launch(name, fast_bn.normalize, args, buffers(norm.raw, known.affine, other), (out,), covers)]


def own_gradient(lowering: Lowering, known: Tables, dz: Buffer, call: Call, name: str) -> Launch:
    """The gradient that reaches a norm whose map was written: masked by it, with its sums, in place where it may be."""
    norm = known.norm
    rows, channels = norm.rows, norm.raw.shape[3]
    known.grad_sums = sliced(
        lowering, call, "grad_sums", lambda b: fast_bn.slices(b * rows, channels), (2, channels), np.float64
    )
    no_map = absent(4, dz.dtype)
    written = norm.map.rectifier and norm.map.sum  # without a second branch a·y + b tells what is flat, too
    z = norm.map.y.reshape(norm.raw.shape) if written else no_map
    dz = dz.reshape(norm.raw.shape)
    g = known.dz.reshape(norm.raw.shape)
    args = (g, dz, z, norm.raw, known.affine, known.grad_sums, no_map, absent(3, np.float64), known.act)
    reads, writes = buffers(dz, z, norm.raw, known.affine), buffers(g, known.grad_sums)
    return Launch(name, fast_bn.gradient, args, reads, writes, (call,))


def rectified_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Through the activation of a map that was written, with the sums for the norm before it."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm is None or call is not norm.rectifier_grad:
        return None
    known, dy = tables(lowering, norm), call.arrays["dy"]
    known.dz = call.arrays["dx"]
    lowering.overlay(known.dz, dy, call)
    return [own_gradient(lowering, known, dy, call, call.name)]


def summed(lowering: Lowering, known: Tables, call: Call) -> tuple[list[Launch], tuple[Call, ...]]:
    """What sums the gradient that reaches a norm, where nothing has; and its gradients that are left to do."""
    left = known.norm.gradients
    if known.grad_sums is not None:  # behind an activation, or by a kernel on its way
        return [], left
    known.dz = call.arrays["dy"]
    launch = own_gradient(lowering, known, known.dz, call, f"{call.node} sums of the gradient")
    return [launch], tuple(c for c in left if c is not call)


def norm_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dγ, dβ and the table through which the convolution before reads ∂L/∂y; written out where it cannot."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm is None or norm.ranged:
        return None
    known = tables(lowering, norm)
    launches, covers = summed(lowering, known, call)
    dtype, channels = norm.map.y.dtype, norm.raw.shape[3]
    known.coef = lowering.scratch(call, "coef", (3, channels), dtype)
    dgamma, dbeta = (norm.calls[p].arrays[a] if p in norm.calls else absent(1, dtype)
                     for p, a in (("grad_gamma", "dgamma"), ("grad_beta", "dbeta")))  # fmt: skip
    gamma = norm.calls["forward"].arrays["gamma"]
    args = (known.coef, dgamma, dbeta, known.grad_sums, known.moments, gamma, known.count, 1)
    reads, writes = buffers(known.grad_sums, known.moments, gamma), buffers(known.coef, dgamma, dbeta)
    name = f"{call.node} batch_norm gradient table"
    launches.append(Launch(name, fast_bn.gradient_table, args, reads, writes, covers))
    dx = norm.calls["grad_x"].arrays["dx"] if "grad_x" in norm.calls else None
    if dx and all(kernel_of(c) for c in lowering.readers(dx)):
        lowering.needed_by(known.dz, lowering.readers(dx))
    elif dx:
        known.applied = True
        lowering.overlay(dx, known.dz, norm.calls["grad_x"])
        args = (dx, known.dz.reshape(dx.shape), norm.raw, known.coef)
        name = f"{call.node} apply gradient table"
        launches.append(Launch(name, fast_bn.apply_gradient, args, (known.dz, norm.raw, known.coef), (dx,), covers=()))
    return launches


def convolve_back(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dw and dx of a 1×1 or depthwise convolution in one sweep, with what the norms on both sides need."""
    kernel = kernel_of(call)
    if kernel is None:
        return None
    conv = grouping.beside(lowering, call)
    grad_w, grad_x = conv.grad_w, conv.grad_x
    w, dy = conv.forward.arrays["w"], call.arrays["dy"]
    x, affine, act, before = source(lowering, conv.forward.arrays["x"], conv.before)
    after = tables(lowering, conv.after)
    if kernel is pointwise and before is None and after is None:
        return None
    no_map = absent(4, w.dtype)
    dz, y, coef = (
        (after.dz.reshape(after.norm.raw.shape), after.norm.raw, after.coef)
        if after and not after.applied
        else (dy, no_map, absent(2, w.dtype))
    )
    covers, parts = conv.gradients, parts_of(kernel, conv.forward)
    dx, residual, joined = no_map, no_map, before
    prev, prev_affine, prev_act = no_map, absent(2, w.dtype), NONE
    sums = absent(3, np.float64)
    if grad_x:
        dx = grad_x.arrays["dx"]
        if before:
            if back := before.norm.rectifier_grad:
                covers += (back,)
                dx = back.arrays["dx"]
            prev, prev_affine, prev_act = before.norm.raw, before.affine, before.act
        elif kernel is pointwise:
            if conv.total:
                residual = grouping.other(conv.total, dx)
                covers += (conv.total,)
                dx = conv.total.arrays["y"]
            norm = conv.before
            if norm and norm.when == call.when and norm.map.rectifier is None and norm.receives(dx):
                joined = tables(lowering, norm)
                prev, prev_affine = joined.norm.raw, joined.affine
        if joined:
            joined.dz = dx
            joined.grad_sums = sums = sliced(lowering, call, "grad_sums", parts, (2, x.shape[3]), np.float64)
    dx = dx.reshape(x.shape) if dx is not no_map else dx
    read = x if grad_w or before else no_map  # what nobody reads is not kept for backward
    share, follow = absent(5, w.dtype), []
    if grad_w:
        dw = grad_w.arrays["dw"]
        share = sliced(lowering, call, "dw_slices", parts, w.shape, w.dtype)
        name = f"{call.node} add slices of dw"
        follow = [Launch(name, fast_bn.add_slices, (dw, share), buffers(share), (dw,), covers=())]
    if kernel is pointwise:
        scratch = pointwise_scratch(lowering, call, pointwise.backward_scratch, x, w)
        args = (dx, share, dz, y, coef, read, affine, w, residual, prev, prev_affine, sums, *scratch, act, prev_act)
    else:
        geometry = (call.attrs["stride"], call.attrs["dilation"], call.attrs["pad"])
        of = (w.shape, dz.shape[1:], w.dtype.itemsize, *geometry)
        scratch = depthwise_scratch(lowering, call, depthwise.backward_scratch, x, *of)
        args = (dx, share, dz, y, coef, read, affine, w, sums, *scratch, act, *geometry)
    reads = buffers(dz, y, coef, read, affine, w, residual, prev, prev_affine)
    return [Launch(named(covers), kernel.backward, args, reads, buffers(dx, share, sums), covers, scratch), *follow]


RULES = {  # rule → the passes of the calls that it begins at
    convolve: (conv2d.forward,),
    table: (batch_norm.mean,),
    normalize: (batch_norm.forward,),
    rectified_gradient: grouping.MASKED,
    norm_gradient: grouping.NORM_GRADIENTS,
    convolve_back: (conv2d.grad_w, conv2d.grad_x),
}
