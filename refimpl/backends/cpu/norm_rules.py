"""Batch norm with the statistics of the batch, and the convolutions around it: maps are read through small tables.

Between two convolutions nothing normalised is stored where one of the kernels that read through tables (`pointwise`,
`depthwise`) is the only consumer: it reads the raw output y of the convolution before as act(a·y + b), and leaves its
dx with the two sums that the norm's own gradient needs. Such a norm is called *virtual* here. Elsewhere the map is
written once (`normalize`, together with the sum of two branches and the activation).
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...methods import error_map_pruning
from ...ops import add, batch_norm, conv2d, frozen_batch_norm, relu, relu6
from . import batch_norm as fast_bn
from . import channel_rules, depthwise, pointwise
from .activation import NONE
from .rules import RECTIFIERS, absent, named


@dataclass
class Norm:
    """A training batch norm: its calls by pass name, what follows it, and the arrays of its kernels."""

    calls: dict[str, Call]
    raw: Buffer
    affine: Buffer
    moments: Buffer
    sum: Call | None = None  # the sum of two branches after it
    rectifier: Call | None = None
    pack: Call | None = None
    rectifier_grad: Call | None = None
    z: Buffer | None = None  # what comes out at the end
    act: int = NONE
    virtual: bool = False
    sums: Buffer | Prefix | None = None  # Σy, Σy² by slice
    grad_sums: Buffer | Prefix | None = None  # Σdz, Σdz·y by slice
    coef: Buffer | None = None
    applied: bool = False  # is ∂L/∂y written out, since others than the kernels that read through `coef` need it?
    dz: Buffer | None = None  # ∂L/∂(a·y + b), zero where the activation is flat

    @property
    def rows(self) -> int:
        """Values of a channel in one sample."""
        return math.prod(self.raw.shape[1:3])

    def receives(self, dy: Buffer) -> bool:
        """Is dy the whole gradient that reaches the norm?"""
        gradients = [self.calls[p] for p in ("grad_gamma", "grad_beta", "grad_x") if p in self.calls]
        return bool(gradients) and all(c.arrays["dy"].root is dy.root for c in gradients)

    @property
    def count(self) -> AtBatch:
        """M = N·H·W at run time."""
        rows = self.rows
        return AtBatch(lambda n: n * rows)


@dataclass
class Norms:
    """The training norms of a step, by what identifies them."""

    by_raw: dict[Buffer, Norm] = field(default_factory=dict)
    by_z: dict[Buffer, Norm] = field(default_factory=dict)
    by_call: dict[Call, Norm] = field(default_factory=dict)


def norms(lowering: Lowering) -> Norms:
    """Find them once for a lowering."""
    if "norms" not in lowering.notes:
        known = lowering.notes["norms"] = Norms()
        for call in lowering.calls:
            if call.passed is batch_norm.mean:
                norm = _norm(lowering, call)
                if any(c.when != call.when for c in norm.calls.values()):
                    continue  # steps may need some of its gradients and not others: reference kernels do it
                known.by_raw[norm.raw.root] = norm
                known.by_z[norm.z.root] = norm
                known.by_call |= dict.fromkeys(
                    [*norm.calls.values(), norm.sum, norm.rectifier, norm.rectifier_grad], norm
                )
        known.by_call.pop(None, None)
    return lowering.notes["norms"]


def _norm(lowering: Lowering, mean: Call) -> Norm:
    calls = {c.passed.name: c for c in lowering.of_node(mean.node) if c.passed.operator == "batch_norm"}
    raw, y = mean.arrays["x"], calls["forward"].arrays["y"]
    channels = raw.shape[3]
    own = lowering.scratch
    norm = Norm(
        calls, raw, own(mean, "affine", (2, channels), y.dtype), own(mean, "moments", (2, channels), np.float64), z=y
    )
    total = lowering.reader(y, add.forward)
    if total and lowering.written_before(_other(total, y), calls["forward"]):
        norm.sum, norm.z = total, total.arrays["y"]
    rectifier = lowering.reader(norm.z, *RECTIFIERS)
    if rectifier:
        norm.rectifier, norm.z = rectifier, rectifier.arrays["y"]
        norm.act, operator = RECTIFIERS[rectifier.passed]
        norm.pack = lowering.find(norm.z, operator.pack_mask)
        if norm.pack:
            norm.rectifier_grad = lowering.reader(norm.pack.arrays["mask"], relu.grad_x, relu6.grad_x)
    readers = [c for c in lowering.readers(norm.z) if c is not norm.pack]
    norm.virtual = (
        norm.sum is None
        and None not in readers
        and len({c.node for c in readers}) == 1
        and all(c.when == mean.when for c in readers)
        and all(kernel_of(c) and c.passed in (conv2d.forward, conv2d.grad_w) for c in readers)
    )
    return norm


def _other(total: Call, y: Buffer) -> Buffer:
    """The summand of `total` that is not y."""
    return total.arrays["b"] if total.arrays["a"].root is y.root else total.arrays["a"]


def kernel_of(call: Call):
    """The module whose kernels compute a convolution's call while reading through tables, or None."""
    if call.passed not in (conv2d.forward, conv2d.grad_w, conv2d.grad_x) or call.renamed:
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
    """How a kernel reads a map: the array, the table or none, the activation, the virtual norm if there is one."""

    x: Buffer
    affine: Buffer | np.ndarray
    act: int
    norm: Norm | None


def source(known: Norms, x: Buffer) -> Reading:
    """How a kernel reads x."""
    norm = known.by_z.get(x.root)
    if norm and norm.virtual:
        return Reading(norm.raw, norm.affine, norm.act, norm)
    return Reading(x, absent(2, x.dtype), NONE, None)


def buffers(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    plain = (v.buffer if isinstance(v, Prefix) else v for v in values)
    return tuple(v for v in plain if isinstance(v, Buffer))


def convolve(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A 1×1 or depthwise convolution that reads through the table of the norm before and sums for the norm after.

    A depthwise one adds its bias; or a frozen norm after it is done at once, and an activation that keeps no mask.
    """
    kernel = kernel_of(call)
    if kernel is None:
        return None
    known = norms(lowering)
    y, w = call.arrays["y"], call.arrays["w"]
    x, affine, act, before = source(known, call.arrays["x"])
    after = known.by_raw.get(y.root)
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
    covers, out, scale, shift, post = finished(lowering, call)
    args = (out, x, w, affine, sums, scale, shift, *scratch, act, post, *geometry)
    reads = buffers(x, w, affine, scale, shift)
    return [Launch(named(covers), kernel.forward, args, reads, buffers(out, sums), tuple(covers), scratch)]


class Finish(NamedTuple):
    """What a kernel does to its output at once: calls, what is written, scale, shift and activation."""

    covers: list[Call]
    out: Buffer
    scale: Buffer | np.ndarray
    shift: Buffer | np.ndarray
    act: int


def finished(lowering: Lowering, call: Call) -> Finish:
    """What a depthwise convolution does to y at once."""
    covers, y = [call], call.arrays["y"]
    scale, shift, act = absent(1, y.dtype), call.arrays.get("b"), NONE
    norm = lowering.reader(y, frozen_batch_norm.forward) if shift is None else None
    if norm:
        covers.append(norm)
        scale, shift, y = norm.arrays["scale"], norm.arrays["shift"], norm.arrays["y"]
    rectifier = lowering.reader(y, *RECTIFIERS) if shift is not None else None
    if rectifier and not lowering.find(rectifier.arrays["y"], RECTIFIERS[rectifier.passed][1].pack_mask):
        covers.append(rectifier)
        act, y = RECTIFIERS[rectifier.passed][0], rectifier.arrays["y"]
    shift = absent(1, y.dtype) if shift is None else shift
    return Finish(covers, y.reshape(call.arrays["y"].shape), scale, shift, act)


def table(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Statistics of the batch, the table of the norm and its running statistics; a virtual norm ends here."""
    norm = norms(lowering).by_call.get(call)
    if norm is None:
        return None
    first, launches = [call], []
    if norm.sums is None:
        rows, channels = norm.rows, norm.raw.shape[3]
        norm.sums = sliced(
            lowering, call, "sums", lambda b: fast_bn.slices(b * rows, channels), (2, channels), np.float64
        )
        launches.append(
            Launch(
                call.name, fast_bn.statistics, (norm.sums, norm.raw), (norm.raw,), buffers(norm.sums), covers=(call,)
            )
        )
        first = []
    covers = first + [norm.calls[p] for p in ("var", "inv_std", "update_mean", "update_var") if p in norm.calls]
    if norm.virtual:
        covers += [c for c in (norm.calls["forward"], norm.rectifier, norm.pack) if c]
    a = norm.calls["forward"].arrays
    updates = [norm.calls[p].arrays[f"running_{p[7:]}"] for p in ("update_mean", "update_var") if p in norm.calls]
    running = updates or [absent(1, a["y"].dtype)] * 2
    momentum = norm.calls["update_mean"].attrs["momentum"] if updates else 0.0
    eps = norm.calls["inv_std"].attrs["eps"]
    args = (norm.affine, norm.moments, *running, norm.sums, a["gamma"], a["beta"], norm.count, eps, momentum)
    reads = (*buffers(norm.sums), a["gamma"], a["beta"], *updates)
    name = f"{call.node} batch_norm table"
    launches.append(
        Launch(name, fast_bn.training_table, args, reads, (norm.affine, norm.moments, *updates), tuple(covers))
    )
    return launches


def normalize(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A map that is needed as such: normalised, added to the other branch, rectified, written once."""
    norm = norms(lowering).by_call.get(call)
    if norm is None:
        return None
    other = absent(4, norm.z.dtype)
    if norm.sum:
        other = _other(norm.sum, call.arrays["y"])
    covers = tuple(c for c in (call, norm.sum, norm.rectifier, norm.pack) if c)
    z = norm.z.reshape(norm.raw.shape)
    args = (z, norm.raw, norm.affine, other, absent(2, z.dtype), norm.act)
    name = f"{call.node} batch_norm.forward" + "".join(f" + {c.name}" for c in covers[1:])
    return [Launch(name, fast_bn.normalize, args, buffers(norm.raw, norm.affine, other), (norm.z,), covers)]


def own_gradient(lowering: Lowering, norm: Norm, dz: Buffer, covers: tuple[Call, ...], name: str) -> Launch:
    """The gradient that reaches a norm whose map was written: masked by it, with its sums, in place where it may be."""
    rows, channels = norm.rows, norm.raw.shape[3]
    call = covers[0] if covers else norm.calls["mean"]
    norm.grad_sums = sliced(
        lowering, call, "grad_sums", lambda b: fast_bn.slices(b * rows, channels), (2, channels), np.float64
    )
    no_map = absent(4, dz.dtype)
    written = norm.act != NONE and norm.sum  # without a second branch a·y + b tells what is flat, too
    z = norm.z.reshape(norm.raw.shape) if written else no_map
    dz = dz.reshape(norm.raw.shape)
    g = norm.dz.reshape(norm.raw.shape)
    args = (g, dz, z, norm.raw, norm.affine, norm.grad_sums, no_map, absent(3, np.float64), norm.act)
    return Launch(
        name, fast_bn.gradient, args, buffers(dz, z, norm.raw, norm.affine), buffers(g, norm.grad_sums), covers
    )


def rectified_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Through the activation of a map that was written, with the sums for the norm before it."""
    norm = norms(lowering).by_call.get(call)
    if norm is None or call is not norm.rectifier_grad:
        return None
    dy, norm.dz = call.arrays["dy"], call.arrays["dx"]
    lowering.overlay(norm.dz, dy, call)
    return [own_gradient(lowering, norm, dy, (call,), call.name)]


def norm_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dγ, dβ and the table through which the convolution before reads ∂L/∂y; written out where it cannot."""
    norm = norms(lowering).by_call.get(call)
    gradients = ("grad_gamma", "grad_beta", "grad_x")
    if norm is None:
        return None
    calls = {p: norm.calls[p] for p in gradients if p in norm.calls}
    dy = call.arrays["dy"]
    launches = []
    if norm.grad_sums is None:  # no activation, and no kernel has summed on its way
        norm.dz = dy
        launches.append(own_gradient(lowering, norm, dy, (call,), f"{call.node} sums of the gradient"))
        calls = {p: c for p, c in calls.items() if c is not call}
    dtype, channels = norm.z.dtype, norm.raw.shape[3]
    norm.coef = lowering.scratch(call, "coef", (3, channels), dtype)
    written = {p: norm.calls[p].arrays[a] if p in norm.calls else absent(1, dtype)
               for p, a in (("grad_gamma", "dgamma"), ("grad_beta", "dbeta"))}  # fmt: skip
    gamma = norm.calls["forward"].arrays["gamma"]
    args = (norm.coef, written["grad_gamma"], written["grad_beta"], norm.grad_sums, norm.moments, gamma, norm.count, 1)
    covers = tuple(calls.values())
    writes = buffers(norm.coef, *written.values())
    name = f"{call.node} batch_norm gradient table"
    launches.append(
        Launch(name, fast_bn.gradient_table, args, buffers(norm.grad_sums, norm.moments, gamma), writes, covers)
    )
    dx = norm.calls["grad_x"].arrays["dx"] if "grad_x" in norm.calls else None
    if dx and all(kernel_of(c) for c in lowering.readers(dx)):
        lowering.needed_by(norm.dz, lowering.readers(dx))
    elif dx:
        norm.applied = True
        lowering.overlay(dx, norm.dz, norm.calls["grad_x"])
        args = (dx, norm.dz.reshape(dx.shape), norm.raw, norm.coef)
        name = f"{call.node} apply gradient table"
        launches.append(Launch(name, fast_bn.apply_gradient, args, (norm.dz, norm.raw, norm.coef), (dx,), covers=()))
    return launches


def convolve_back(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dw and dx of a 1×1 or depthwise convolution in one sweep, with what the norms on both sides need."""
    kernel = kernel_of(call)
    if kernel is None:
        return None
    known = norms(lowering)
    of_node = lowering.of_node(call.node)
    backward = {c.passed: c for c in of_node if c.phase == "backward" and not c.renamed and c.when == call.when}
    grad_w, grad_x = backward.get(conv2d.grad_w), backward.get(conv2d.grad_x)
    forward = next(c for c in of_node if c.passed is conv2d.forward)
    w, dy = forward.arrays["w"], call.arrays["dy"]
    x, affine, act, before = source(known, forward.arrays["x"])
    after = known.by_raw.get(forward.arrays["y"].root)
    if kernel is pointwise and before is None and after is None:
        return None
    no_map = absent(4, w.dtype)
    dz, y, coef = (
        (after.dz.reshape(after.raw.shape), after.raw, after.coef)
        if after and not after.applied
        else (dy, no_map, absent(2, w.dtype))
    )
    covers = [c for c in (grad_w, grad_x) if c]
    parts = parts_of(kernel, forward)
    dx, residual, joined = no_map, no_map, before
    prev, prev_affine, prev_act = no_map, absent(2, w.dtype), NONE
    sums = absent(3, np.float64)
    if grad_x:
        dx = grad_x.arrays["dx"]
        if before:
            if before.rectifier_grad:
                covers.append(before.rectifier_grad)
                dx = before.rectifier_grad.arrays["dx"]
            prev, prev_affine, prev_act = before.raw, before.affine, before.act
        elif kernel is pointwise:
            total = lowering.reader(dx, add.forward)
            if total and total.phase == "backward" and lowering.written_before(_other(total, dx), call):
                residual = _other(total, dx)
                covers.append(total)
                dx = total.arrays["y"]
            joined = known.by_z.get(forward.arrays["x"].root)
            if joined and joined.act == NONE and joined.receives(dx) and joined.calls["mean"].when == call.when:
                prev, prev_affine = joined.raw, joined.affine
            else:
                joined = None
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
    name = " + ".join(c.name for c in covers)
    return [Launch(name, kernel.backward, args, reads, buffers(dx, share, sums), tuple(covers), scratch), *follow]


def kept_depthwise(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Gradients of x and, if asked for, of w: of some channels of a depthwise convolution, which stand side by side."""
    sizes = call.sizes
    if not call.renamed or not 1 < sizes["G"] == sizes["C"] == sizes["K"]:
        return None
    of_node = (c for c in lowering.of_node(call.node) if c.when == call.when)
    calls = {c.passed: c for c in of_node if c.phase == "backward" and c.renamed}
    grad_w, grad_x = calls.get(conv2d.grad_w), calls.get(conv2d.grad_x)
    if grad_x is None:
        return None  # the first trained layer has no dx: its reference kernel does
    w, dy, dx = (grad_x.arrays[a] for a in ("w", "dy", "dx"))
    no_table, no_map, no_sums = absent(2, w.dtype), absent(4, w.dtype), absent(3, np.float64)
    geometry = (call.attrs["stride"], call.attrs["dilation"], call.attrs["pad"])
    of = (w.shape, dy.shape[1:], w.dtype.itemsize, *geometry)
    scratch = depthwise_scratch(lowering, call, depthwise.backward_scratch, dx, *of)
    covers, x, share, follow = (grad_x,), no_map, absent(5, w.dtype), []
    if grad_w:
        covers, x, dw = (grad_w, grad_x), grad_w.arrays["x"], grad_w.arrays["dw"]
        share = sliced(lowering, call, "dw_slices", depthwise.slices, w.shape, w.dtype)
        name = f"{call.node} add slices of dw"
        follow = [Launch(name, fast_bn.add_slices, (dw, share), buffers(share), (dw,), covers=())]
        spread = lowering.reader(dw, error_map_pruning.spread_w)
        follow += channel_rules.spread(lowering, spread)  # it came before dx was at hand
    args = (dx, share, dy, no_map, no_table, x, no_table, w, no_sums, *scratch, NONE, *geometry)
    name = " + ".join(c.name for c in covers)
    return [Launch(name, depthwise.backward, args, buffers(dy, x, w), buffers(dx, share), covers, scratch), *follow]


RULES = {  # rule → the passes of the calls that it begins at
    convolve: (conv2d.forward,),
    kept_depthwise: (conv2d.grad_w, conv2d.grad_x),
    table: (batch_norm.mean,),
    normalize: (batch_norm.forward,),
    rectified_gradient: (relu.grad_x, relu6.grad_x),
    norm_gradient: (batch_norm.grad_gamma, batch_norm.grad_beta, batch_norm.grad_x),
    convolve_back: (conv2d.grad_w, conv2d.grad_x),
}
