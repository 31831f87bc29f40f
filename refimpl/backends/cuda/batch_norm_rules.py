"""Batch norm with the statistics of the batch: sums in slices, and what is beside a norm done on its way."""

import math
from typing import NamedTuple

from ...compiler import grouping
from ...compiler.grouping import Arrival
from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...kernels.cuda import simulated
from ...ops import batch_norm
from ..common import absent, activation, named, present, through
from . import batch_norm as kernels
from .conv_rules import pixels
from .tile import up

ITEMS, ROWS, MOST = 1 << 14, 64, 256  # threads that keep a GPU busy, rows that are worth one, and slices at most
GRADIENTS = (batch_norm.grad_gamma, batch_norm.grad_beta, batch_norm.grad_x)


class Cut(NamedTuple):
    """Slices of the pixels of a map (N, H, W, C): pixels of a sample, rows of a slice, and how many at a full batch."""

    pixels: int
    length: int
    number: int

    @classmethod
    def of(cls, x: Buffer) -> "Cut":
        """Those of a map."""
        each, channels = x.batched * math.prod(x.shape[1:3]), x.shape[3]
        rows = math.prod(x.shape[:3])
        number = 2 if simulated() else max(1, min(up(ITEMS, channels), rows // ROWS, MOST))
        length = up(rows, number)
        return cls(each, length, up(rows, length))

    def slices(self, n: int) -> int:
        """Of n samples."""
        return up(n * self.pixels, self.length)

    def partial(self, call: Call, channels: int, dtype) -> Prefix:
        """Two parts of each channel for each slice."""
        return Prefix(Buffer(f"{call.node}.parts", (self.number, 2, channels), dtype, "arena"), self.slices)


def of_rows(x: Buffer) -> AtBatch:
    """The items of what norms `ROWS` pixels of a channel of a map each, for n samples."""
    each, channels = x.batched * math.prod(x.shape[1:-1]), x.shape[-1]
    return AtBatch(lambda n: up(n * each, kernels.ROWS) * channels)


def statistics(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Mean, variance and what follows from it of each channel."""
    own = {c.passed: c for c in lowering.of_node(call.node) if c.when == call.when and lowering.free(c)}
    var, inv_std = own.get(batch_norm.var), own.get(batch_norm.inv_std)
    if var is None or inv_std is None or var.arrays["mean"] is not call.arrays["mean"]:
        return None  # a rule has its own variance
    x, covers = call.arrays["x"], (call, var, inv_std)
    channels, cut = x.shape[3], Cut.of(x)
    partial, eps = cut.partial(call, channels, x.dtype), x.dtype.type(inv_std.attrs["eps"])
    made = (call.arrays["mean"], var.arrays["var"], var.arrays["unbiased_var"], inv_std.arrays["inv_std"])
    args = AtBatch(lambda n: cut.slices(n) * channels), partial, pixels(x), cut.length
    rows = AtBatch(lambda n: n * cut.pixels)
    return [
        Launch(named(covers), kernels.SLICES, args, (x,), (partial.buffer,), covers),
        Launch(
            f"{call.node} statistics of slices", kernels.STATISTICS, (channels, *made, partial, rows, cut.length, eps),
            (partial.buffer,), made, (),
        ),
    ]  # fmt: skip


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The norm, the sum with another branch and the activation after it, in one launch."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm is None or norm.map.start is not call or not all(map(lowering.free, norm.map.before("pack").calls)):
        return None
    chain, a = norm.map.before("pack"), call.arrays
    shape = a["y"].shape
    y = pixels(chain.y.reshape(shape))
    residual = pixels(chain.residual.reshape(shape)) if chain.sum else absent(2, y.dtype)
    given = [a[name] for name in ("gamma", "beta", "mean", "inv_std")]
    x = pixels(a["x"])
    args = (of_rows(a["x"]), y, x, *given, residual, activation(chain.rectifier))
    return [Launch(named(chain.calls), kernels.NORMALISE, args, present(x, *given, residual), (y,), chain.calls)]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of gamma and beta from one look at dy and x, and that of x, through a rectifier's mask."""
    arrival = Arrival()
    if call.passed in grouping.MASKED:
        arrival = grouping.arrival(lowering, call, *GRADIENTS)
        if not arrival.readers or arrival.norm:
            return None
        call = arrival.readers[0]
    own = {c.passed: c for c in lowering.of_node(call.node) if c.passed in GRADIENTS and c.when == call.when}
    of_gamma, of_beta, of_x = (own.get(passed) for passed in GRADIENTS)
    if of_gamma is None or of_beta is None or not all(map(lowering.free, own.values())):
        return None
    if arrival.readers and set(arrival.readers) != set(own.values()) or any(c.renamed for c in own.values()):
        return None
    if len({c.arrays["dy"].root for c in own.values()}) > 1:
        return None  # a rule has another dy for some
    a = of_gamma.arrays
    way = arrival if arrival.passed else Arrival(readers=(of_gamma,))
    dy, (mask, _) = pixels(way.dy.reshape(a["dy"].shape)), through(way)
    x, mean, inv_std = pixels(a["x"]), a["mean"], a["inv_std"]
    cut, channels = Cut.of(a["x"]), a["x"].shape[3]
    partial, each = cut.partial(of_gamma, channels, dy.dtype), math.prod(a["x"].shape[1:3])
    covers = (*way.passed, of_gamma, of_beta)
    dgamma, dbeta = a["dgamma"], of_beta.arrays["dbeta"]
    items, reads = AtBatch(lambda n: cut.slices(n) * channels), present(dy, mask, x, mean, inv_std)
    args = items, partial, dy, mask, x, mean, inv_std, each, cut.length
    launches = [
        Launch(named(covers), kernels.GRADIENT_SLICES, args, reads, (partial.buffer,), covers),
        Launch(
            f"{call.node} gradients of slices", kernels.GRADIENTS, (channels, dgamma, dbeta, partial),
            (partial.buffer,), (dgamma, dbeta), (),
        ),
    ]  # fmt: skip
    if of_x:
        dx, gamma = of_x.arrays["dx"], of_x.arrays["gamma"]
        args = (of_rows(dx), pixels(dx), dy, mask, x, gamma, mean, inv_std, dgamma, dbeta, each)
        reads = present(dy, mask, x, gamma, mean, inv_std, dgamma, dbeta)
        launches.append(Launch(of_x.name, kernels.GRAD_X, args, reads, (dx,), (of_x,)))
    return launches


RULES = {  # rule → the passes of the calls that it begins at
    statistics: (batch_norm.mean,),
    forward: (batch_norm.forward,),
    backward: (batch_norm.grad_gamma, batch_norm.grad_beta, *grouping.MASKED),
}
