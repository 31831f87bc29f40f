"""Which logical calls belong together: what a backend may do in one launch, found from the calls alone.

A group is a plain record of calls; the arrays between them follow from these. It says nothing of how they are computed.
Each backend's rules ask for a group at the call that it begins at, leave out what their kernels cannot do
(`Chain.before`, or no launch at all), and emit launches. What follows a call or reads a gradient is in a group only
while no launch covers it; what a rule leaves out is offered again at its own calls, and runs its reference kernel if no
rule takes it.

    chain      a call and what follows its result: a frozen norm, the sum of two branches, the activation and its mask
    arrival    what a gradient passes on its way to the operator before, and the calls that read it there
    norms      the training norms of a step: statistics, what follows each, its gradients
    beside     a convolution with its gradients, and the training norms on both sides of it
    expansion  a filtered gradient and its expansion; `places`: a maximum and where it was found
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..kernels.passes import Pass
from ..methods import quantized_norm
from ..ops import add, batch_norm, conv2d, frozen_batch_norm, linear, quantized_conv2d, relu, relu6
from .ir import Buffer, Call, Condition
from .lower import Lowering

# The passes of the calls that groups begin at.
FORWARD = (conv2d.forward, linear.forward)
GRAD_X, GRAD_W = (conv2d.grad_x, linear.grad_x), (conv2d.grad_w, linear.grad_w)
GRAD_B = (conv2d.grad_b, linear.grad_b, frozen_batch_norm.grad_beta)  # a norm's beta is a bias of its map
GRADIENTS = (*GRAD_X, *GRAD_W, *GRAD_B)
RECTIFIERS = {relu.forward: relu, relu6.forward: relu6}  # pass → operator
MASKED = (relu.grad_x, relu6.grad_x)
PASSED = (*MASKED, frozen_batch_norm.grad_x)  # of what a gradient passes on its way
NORM_GRADIENTS = (
    batch_norm.grad_gamma, batch_norm.grad_beta, quantized_norm.slope, batch_norm.grad_x, quantized_norm.grad_x
)  # fmt: skip
NORM_STATISTICS = (
    batch_norm.mean, batch_norm.var, quantized_norm.ends, batch_norm.inv_std, batch_norm.update_mean,
    batch_norm.update_var,
)  # fmt: skip


def given(*calls: Call | None) -> tuple[Call, ...]:
    """Those among some calls that there are, each once."""
    return tuple(dict.fromkeys(c for c in calls if c is not None))


def depthwise(call: Call) -> bool:
    """Does a convolution's call on the weights have one channel a group?"""
    sizes = call.sizes
    return call.passed not in GRAD_B and 1 < sizes.get("G", 1) == sizes["C"] == sizes["K"]


class AsConvolution(NamedTuple):
    """A call in the terms of a convolution: sizes by its letters, its attributes, buffers by its names of them."""

    sizes: dict
    attrs: dict
    arrays: dict


def convolution(call: Call) -> AsConvolution:
    """A call as one of a convolution: a linear layer is a 1×1 one, the rows of a sample its pixels."""
    if call.passed.operator == "conv2d":
        return AsConvolution(dict(call.sizes), dict(call.attrs), dict(call.arrays))
    if call.passed is frozen_batch_norm.grad_beta:
        return AsConvolution(
            {**call.sizes, "K": call.sizes["C"]}, {}, {"dy": call.arrays["dy"], "db": call.arrays["dbeta"]}
        )
    row = next(b for b in call.arrays.values() if b.batched)
    pixels = row.batched * call.sizes["N"] // row.shape[0]
    sizes: dict = {"C": call.sizes.get("D"), **call.sizes, **dict.fromkeys("HRSPG", 1), **dict.fromkeys("WQ", pixels)}
    sizes["N"] //= pixels
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    arrays = {}
    for name, b in call.arrays.items():
        if name in ("w", "dw"):
            b = b.reshape((1, 1, *b.shape))
        arrays[name] = as_map(b)
    return AsConvolution(sizes, attrs, arrays)


def quantized_convolution(call: Call) -> AsConvolution:
    """A call in whole numbers in the terms of a convolution; a linear layer is a 1×1 one of its rows."""
    if call.passed is quantized_conv2d.forward:
        return AsConvolution(dict(call.sizes), dict(call.attrs), dict(call.arrays))
    ones = dict.fromkeys("HRSPG", 1)
    arrays = {"y" if name == "sums" else name: b for name, b in call.arrays.items()}
    pixels = arrays["x"].batched * call.sizes["N"] // arrays["x"].shape[0]
    sizes = {**call.sizes, "C": call.sizes["D"], **ones, **dict.fromkeys("WQ", pixels)}
    sizes["N"] //= pixels
    arrays["w"] = arrays["w"].reshape((1, 1, *arrays["w"].shape))
    for name in ("x", "y"):
        arrays[name] = as_map(arrays[name])
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    return AsConvolution(sizes, attrs, arrays)


def as_map(buffer: Buffer) -> Buffer:
    """The rows (N, K) of a linear layer as maps (samples, 1, rows of a sample, K); others stay as they are."""
    if len(buffer.shape) != 2:
        return buffer
    pixels = max(1, buffer.batched)
    return buffer.reshape((buffer.shape[0] // pixels, 1, pixels, buffer.shape[1]))


def other(total: Call, summand: Buffer) -> Buffer:
    """The summand of a sum that is not this one."""
    return total.arrays["b"] if total.arrays["a"].root is summand.root else total.arrays["a"]


LINKS = ("norm", "sum", "rectifier", "pack")  # of a chain, in their order


@dataclass(frozen=True)
class Chain:
    """A call and what follows its result, in this order. Nobody else reads what is between; y may have other readers.

    Where the chain starts at a rectifier, `rectifier` is that.
    """

    start: Call
    norm: Call | None = None  # a frozen one
    sum: Call | None = None  # with another branch
    rectifier: Call | None = None
    pack: Call | None = None  # the mask that the rectifier's gradient needs

    @property
    def calls(self) -> tuple[Call, ...]:
        """All of them, in order."""
        return given(self.start, self.norm, self.sum, self.rectifier, self.pack)

    @property
    def y(self) -> Buffer:
        """What comes out."""
        return (self.rectifier or self.sum or self.norm or self.start).arrays["y"]

    @property
    def residual(self) -> Buffer | None:
        """The other branch that is added."""
        return other(self.sum, (self.norm or self.start).arrays["y"]) if self.sum else None

    @property
    def mask(self) -> Buffer | None:
        """Of the rectifier, where its gradient needs one."""
        return self.pack.arrays["mask"] if self.pack else None

    def before(self, link: str) -> "Chain":
        """What comes before one of LINKS, for kernels that cannot do that; all of it where the link is not there."""
        if getattr(self, link) is None:
            return self
        left_out: dict = dict.fromkeys(LINKS[LINKS.index(link) :])
        return replace(self, **left_out)


def chain(lowering: Lowering, start: Call) -> Chain:
    """What follows a call of any pass that writes y; a sum that a training norm is followed by is that norm's."""
    if start.passed in RECTIFIERS:
        return rectified(lowering, Chain(start))
    y = start.arrays["y"]
    norm = lowering.reader(y, frozen_batch_norm.forward)
    if norm:
        y = norm.arrays["y"]
    total = lowering.reader(y, add.forward)
    if total in norms(lowering).by_call:
        return Chain(start, norm)
    return rectified(lowering, Chain(start, norm, total))


def rectified(lowering: Lowering, done: Chain) -> Chain:
    """A chain without activation and mask, with them where they follow."""
    rectifier = done.start if done.start.passed in RECTIFIERS else lowering.reader(done.y, *RECTIFIERS)
    if rectifier is None:
        return done
    pack = lowering.find(rectifier.arrays["y"], RECTIFIERS[rectifier.passed].pack_mask)
    return replace(done, rectifier=rectifier, pack=pack)


@dataclass(frozen=True)
class Arrival:
    """A gradient dy, what it passes on its way to the operator before, and the calls that read it there."""

    rectifier: Call | None = None  # its gradient: through a mask
    norm: Call | None = None  # a frozen norm's gradient: times a scale
    readers: tuple[Call, ...] = ()  # all that read what comes out; none where a call that was not asked for does

    @property
    def passed(self) -> tuple[Call, ...]:
        """The calls on the way."""
        return given(self.rectifier, self.norm)

    @property
    def dy(self) -> Buffer:
        """The gradient at the beginning of its way."""
        return (*self.passed, *self.readers)[0].arrays["dy"]

    @property
    def dx(self) -> Buffer:
        """The gradient at its end."""
        return self.passed[-1].arrays["dx"] if self.passed else self.dy

    @property
    def mask(self) -> Buffer | None:
        """Of the rectifier."""
        return self.rectifier.arrays["mask"] if self.rectifier else None

    @property
    def scale(self) -> Buffer | None:
        """Of the norm, by channel."""
        return self.norm.arrays["scale"] if self.norm else None


def arrival(lowering: Lowering, call: Call, *passes: Pass) -> Arrival:
    """From `call` on, one of PASSED, with its readers if all of them are of `passes`; or one of `passes` alone."""
    if call.passed in passes:
        return Arrival(readers=(call,))
    rectifier = call if call.passed in MASKED else None
    norm = lowering.reader(call.arrays["dx"], frozen_batch_norm.grad_x) if rectifier else call
    way = Arrival(rectifier, norm)
    return replace(way, readers=tuple(lowering.all_readers(way.dx, *passes)))


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm with the statistics of the batch, and what belongs to it.

    One that is `ranged` takes the range of the batch in place of its variance (`methods.quantized_norm`).
    """

    calls: Mapping[str, Call]  # its own, by the names of their passes
    map: Chain  # its result and what follows
    rectifier_grad: Call | None  # of the rectifier in `map`
    readers: tuple[Call | None, ...]  # of what comes out, besides the mask; None: the host

    @property
    def raw(self) -> Buffer:
        """What it normalises, (N, H, W, C)."""
        return self.calls["mean"].arrays["x"]

    @property
    def ranged(self) -> bool:
        """Does it go by the ends of the map?"""
        return quantized_norm.ends.name in self.calls

    @property
    def when(self) -> Condition:
        """The steps in which its calls are made."""
        return self.calls["mean"].when

    @property
    def rows(self) -> int:
        """Values of a channel in one sample."""
        return math.prod(self.raw.shape[1:3])

    @property
    def statistics(self) -> tuple[Call, ...]:
        """The calls for the statistics of the batch, and those that keep running ones."""
        return given(*(self.calls.get(p.name) for p in NORM_STATISTICS))

    @property
    def gradients(self) -> tuple[Call, ...]:
        """Its gradients that there are, of gamma, beta and x."""
        return given(*(self.calls.get(p.name) for p in NORM_GRADIENTS))

    def receives(self, dy: Buffer) -> bool:
        """Is dy the whole gradient that reaches the norm?"""
        arrived = [c.arrays["dy"] for c in self.gradients if "dy" in c.arrays]
        return bool(arrived) and all(b.root is dy.root for b in arrived)


@dataclass
class Norms:
    """The training norms of a step, by what identifies them."""

    by_raw: dict[Buffer, Norm] = field(default_factory=dict)  # what they normalise
    by_z: dict[Buffer, Norm] = field(default_factory=dict)  # what comes out at the end
    by_call: dict[Call, Norm] = field(default_factory=dict)  # any of their calls, but masks


def norms(lowering: Lowering) -> Norms:
    """The training norms, found once for a lowering; whose calls run together and alone read their statistics."""
    if "norms" not in lowering.notes:
        known = lowering.notes["norms"] = Norms()
        for call in lowering.calls:
            if call.passed is batch_norm.mean:
                norm = _norm(lowering, call)
                if any(c.when != call.when for c in norm.calls.values()):
                    continue  # steps may need some of its gradients and not others
                if not (norm.ranged or batch_norm.var.name in norm.calls):
                    continue  # a rule has its own variance
                own = {*norm.calls.values()}
                batch = (b for s in norm.statistics for b in s.writes if b.region == "arena")
                if any(c not in own for b in batch for c in lowering.readers(b)):
                    continue  # a tangent needs the statistics of the batch; running ones are kept in any case
                known.by_raw[norm.raw.root] = known.by_z[norm.map.y.root] = norm
                following = given(norm.map.sum, norm.map.rectifier, norm.rectifier_grad)
                known.by_call |= dict.fromkeys((*norm.calls.values(), *following), norm)
    return lowering.notes["norms"]


def _norm(lowering: Lowering, mean: Call) -> Norm:
    passes = (*NORM_STATISTICS, batch_norm.forward, *NORM_GRADIENTS)
    calls = {c.passed.name: c for c in lowering.of_node(mean.node) if c.passed in passes and not c.renamed}
    start = calls["forward"]
    total = lowering.reader(start.arrays["y"], add.forward)
    if total and not lowering.written_before(other(total, start.arrays["y"]), start):
        total = None  # where the other branch is a norm's too, the later one adds
    following = rectified(lowering, Chain(start, sum=total))
    back = lowering.reader(following.mask, *MASKED) if following.mask else None
    readers = (c for c in lowering.readers(following.y) if c is None or c is not following.pack)
    return Norm(calls, following, back, tuple(readers))


@dataclass(frozen=True)
class ConvolutionGroup:
    """A convolution with its gradients, and the training norms beside it.

    Gradients: those of x and w, on chosen channels where a rule chooses some.
    """

    forward: Call
    grad_w: Call | None = None
    grad_x: Call | None = None
    before: Norm | None = None  # of which comes what it reads
    after: Norm | None = None  # which normalises its result
    total: Call | None = None  # the sum that adds dx to another gradient, where that is at hand

    @property
    def gradients(self) -> tuple[Call, ...]:
        """The gradients that there are."""
        return given(self.grad_w, self.grad_x)


def beside(lowering: Lowering, call: Call) -> ConvolutionGroup:
    """The convolution or linear layer that a call belongs to, one of its forward pass or its gradients of x and w."""
    of_node, known = lowering.of_node(call.node), norms(lowering)
    forward = next(c for c in of_node if c.passed in FORWARD)
    back = [c for c in of_node if c.phase == "backward" and c.renamed == call.renamed and c.when == call.when]
    grad_w = next((c for c in back if c.passed in GRAD_W), None)
    grad_x = next((c for c in back if c.passed in GRAD_X), None)
    total = None
    if grad_x:
        dx, first = grad_x.arrays["dx"], min(given(grad_w, grad_x), key=lowering.place.__getitem__)
        total = lowering.reader(dx, add.forward)
        if total and not lowering.written_before(other(total, dx), first):
            total = None
    before, after = known.by_z.get(forward.arrays["x"].root), known.by_raw.get(forward.arrays["y"].root)
    return ConvolutionGroup(forward, grad_w, grad_x, before, after, total)


def expansion(lowering: Lowering, gradient: Call) -> Call | None:
    """The call of a method that alone reads a gradient of the same method, as the expansion of a filtered one does."""
    readers = lowering.readers(gradient.writes[0])
    passes = (c.passed for c in readers if c and c.passed.operator == gradient.passed.operator)
    return lowering.reader(gradient.writes[0], *passes)


def places(lowering: Lowering, maximum: Call) -> Call | None:
    """Where the maxima of a pooling were found, of its own input; None where no gradient needs it."""
    readers = given(*lowering.readers(maximum.arrays["x"]))
    kept = (c for c in readers if (c.passed.operator, c.passed.name) == (maximum.passed.operator, "argmax"))
    own = (c for c in kept if c.node == maximum.node and c.when == maximum.when)
    return next(filter(lowering.free, own), None)
