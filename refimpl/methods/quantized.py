"""8-bit training: the gradients of convolutions and linear layers by products of whole numbers, scaled back to floats.

Each operand of a product, a number v, becomes a whole number q of 8 bits with the scale s of its tensor, v ≈ s·q:

    s = max|v| / (2^(bits−1) − 1)                                       most, tensor_scale, sample_ or batch_scales
    x, w: q = ⌊v/s + ½⌋                                                 nearest
    dy:   q = ⌊v/s⌋ + 1 with the probability v/s − ⌊v/s⌋, else ⌊v/s⌋    stochastic: E[s·q] = dy
    dw[r,s,c,k] = s_x·Σ_n s_dy[n]·Σ_{p,q} x_q·dy_q                      grad_w
    dx[n,h,w,c] = s_dy[n]·s_w·Σ_{r,s,k} dy_q·w_q                        grad_x

The inner sums are of whole numbers: products of 8 bits in sums of 32, those of dw over a row, whose sums add up in 64
bits over a sample. A sum that could leave 32 bits is refused (`fits`); each is cut to them, for Numba adds in 64.
Those of a linear layer are in `linear_quantized`. Weights, updates and all other layers stay floats.

Schemes:
  [paper] arXiv 2010.14298: psq, its per-sample quantizer, has a scale for each sample of dy; ptq, its per-tensor
          quantizer, one for all of dy. Both are unbiased by stochastic rounding; the price is the variance.
  [paper] banner (arXiv 1805.11046): x and w are of 8 bits in the forward pass too (`forward`), and dy is quantized
          twice (gradient bifurcation): with 16 bits for dw, with 8 for dx. Norms that train with the statistics of the
          batch take its range (`quantized_norm`).
Readings (the equations of these papers were not at hand, only what is known of them):
  [ours]  Symmetric scales without a zero point, so that a product of two operands is one of their whole numbers.
  [ours]  Under psq dw takes the same dy_q as dx: the sum of each sample is scaled before the samples are added.
  [ours]  The scale of x is that of the mini-batch, that of w of the whole kernel; under banner dy has one scale.
  [ours]  db is exact: it is a sum of dy alone. Frozen layers and inference compute with floats.
  [ours]  With other methods the product that they leave is quantized: patch means and sums, kept channels.
  [ours]  The two roundings of banner take one of the two words of a draw each.
  [ours]  Of zeros the scale is 1; of a scale below the smallest float too. What is no number or infinite makes the
          scale so too, and with it the gradient, which is then found as not finite.
Dimensions: N samples (of a kernel: its rows), E elements a sample, H W input and P Q output rows and columns, C input
and K output channels, R S kernel rows and columns, G groups. Any float dtype.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..kernels import random
from ..kernels.geometry import CONV_MAP, CONV_OUT, CONV_TAP, conv_derive
from ..kernels.passes import Bound, Pass, declare, dims, size_of
from ..kernels.random import words
from ..kernels.rounding import LEVELS, WORDS, clip, fits, floor, larger, scale_of, stochastic_round
from . import quantized_norm
from .layer import CONVOLUTION, DENSE, LINEAR, Rule, TrainedLayer
from .registry import Other, Pick, Statement, Tried, register_method

if TYPE_CHECKING:
    from ..compiler.ir import Moment

SHAPES = {
    "v": "N E*", "dy": "N E*", "q": "int8: N E*", "wide": "int16: N E*", "most": "N", "scale": "1", "scales": "N",
    "step": "int64: 1", "seed": "int64: 1",
    "x_q": "int8: N H W C", "w_q": "int8: R S C/G K", "dy_q": "int8|int16: N P Q K", "b": "K", "y": "N P Q K",
    "x_scale": "1", "w_scale": "1", "dy_scale": "N", "dx": "N H W C", "dw": "R S C/G K",
}  # fmt: skip
SCHEMES = ("psq", "ptq", "banner")
BITS, WIDE_BITS = 8, 16
WIDE_LEVELS = 32767  # the largest whole number of 16 bits; the smallest is its negative


def fits_channels(sizes, attrs, channels="K"):
    """P, Q and G of a convolution; ShapeError where a sum over taps and channels may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if {"R", "S", channels} <= sizes.keys():
        groups = sizes.get("G", 1)
        fits(sizes["R"] * sizes["S"] * (sizes[channels] // groups), LEVELS, f"R·S·{channels}/G")
    return found


def fits_rows(sizes, attrs):
    """P, Q and G of a convolution; ShapeError where the sum of a row of dy may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if "Q" in found:
        fits(found["Q"], attrs["levels"], "the columns Q of dy")
    return found


@declare(SHAPES, items="N", writes="most", sums="E")
def most(t, most, v):
    """Largest magnitude of each sample, (N,), of v, (N, E)."""
    found = most.dtype.type(0)
    for e in range(v.shape[1]):
        found = larger(found, abs(v[t, e]))
    most[t] = found


@declare(SHAPES, items="N", writes="most", sums="E")
def most_dy(t, most, dy):
    """Largest magnitude of each sample, (N,), of dy, (N, E)."""
    found = most.dtype.type(0)
    for e in range(dy.shape[1]):
        found = larger(found, abs(dy[t, e]))
    most[t] = found


@declare(SHAPES, items="1", writes="scale", sums="N")
def tensor_scale(t, scale, most, levels=LEVELS):
    """Scale of a tensor, (1,), from the largest magnitudes of its samples, (N,)."""
    found = scale.dtype.type(0)
    for n in range(most.shape[0]):
        found = larger(found, most[n])
    scale[t] = scale_of(found, scale.dtype.type(levels), scale.dtype.type(0), scale.dtype.type(1))


@declare(SHAPES, items="N", writes="scales")
def sample_scales(t, scales, most, levels=LEVELS):
    """Scale of each sample, (N,), from its magnitude in most, (N,): arXiv 2010.14298, the per-sample quantizer."""
    scales[t] = scale_of(most[t], scales.dtype.type(levels), scales.dtype.type(0), scales.dtype.type(1))


@declare(SHAPES, items="N", writes="scales")
def batch_scales(t, scales, most, levels=LEVELS):
    """Scale of all samples, for each of them, (N,), from most, (N,): arXiv 2010.14298, the per-tensor quantizer."""
    found = scales.dtype.type(0)
    for n in range(most.shape[0]):
        found = larger(found, most[n])
    scales[t] = scale_of(found, scales.dtype.type(levels), scales.dtype.type(0), scales.dtype.type(1))


@declare(SHAPES, items="N E", writes="q")
def nearest(t, q, v, scale, levels=LEVELS):
    """Whole numbers q, (N, E), nearest to v / scale, a half upwards, of v, (N, E), and scale, (1,)."""
    n, e = divmod(t, q.shape[1])
    above = v[n, e] / scale[0] + v.dtype.type(0.5)
    cut = np.int64(above)
    whole = floor(above, cut, v.dtype.type(cut))
    q[n, e] = np.int8(clip(whole, np.int64(q.dtype.type(-levels)), np.int64(q.dtype.type(levels))))


@declare(SHAPES, items="N E", writes="q")
def stochastic(t, q, dy, scales, step, seed, levels=LEVELS, stream=0):
    """Whole numbers q, (N, E), around dy / scales, of dy, (N, E), and scales, (N,): the mean of scales·q is dy.

    The unbiased rounding of arXiv 2010.14298, drawn anew in each training step, `step`, (1,), of a run from `seed`.
    """
    n, e = divmod(t, q.shape[1])
    draw, _ = words(seed[0], stream, step[0], t)
    ratio = dy[n, e] / scales[n]
    cut = np.int64(ratio)
    low = floor(ratio, cut, dy.dtype.type(cut))
    whole = stochastic_round(low, ratio - dy.dtype.type(low), draw, dy.dtype.type(WORDS))
    q[n, e] = np.int8(clip(whole, np.int64(q.dtype.type(-levels)), np.int64(q.dtype.type(levels))))


@declare(SHAPES, items="N E", writes="wide")
def stochastic_wide(t, wide, dy, scales, step, seed, stream=0):
    """Whole numbers of 16 bits, (N, E), as `stochastic` makes those of 8, by the other word of the draw.

    For dw under the gradient bifurcation of arXiv 1805.11046, from dy, (N, E), scales, (N,), step and seed, (1,).
    """
    n, e = divmod(t, wide.shape[1])
    _, draw = words(seed[0], stream, step[0], t)
    ratio = dy[n, e] / scales[n]
    cut = np.int64(ratio)
    low = floor(ratio, cut, dy.dtype.type(cut))
    whole = stochastic_round(low, ratio - dy.dtype.type(low), draw, dy.dtype.type(WORDS))
    wide[n, e] = np.int16(clip(whole, np.int64(wide.dtype.type(-WIDE_LEVELS)), np.int64(wide.dtype.type(WIDE_LEVELS))))


@declare(
    SHAPES, items="N P Q K", writes="y", derive=lambda sizes, attrs: fits_channels(sizes, attrs, "C"), alike=CONV_OUT,
    sums="C/G",
)  # fmt: skip
def forward(t, y, x_q, w_q, x_scale, w_scale, b=None, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Output y, (N, P, Q, K), from x_q, (N, H, W, C), w_q, (R, S, C/G, K), their scales, (1,), and b, (K,)."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    depth = w_q.shape[2]
    first = k // (w_q.shape[3] * depth // x_q.shape[3]) * depth  # first input channel of k's group
    total = np.int32(x_q.dtype.type(0))
    for r in range(w_q.shape[0]):
        h = p * stride[0] - pad[0][0] + r * dilation[0]
        if 0 <= h < x_q.shape[1]:
            for s in range(w_q.shape[1]):
                col = q * stride[1] - pad[1][0] + s * dilation[1]
                if 0 <= col < x_q.shape[2]:
                    for c in range(depth):
                        total = np.int32(total + np.int32(x_q[n, h, col, first + c]) * np.int32(w_q[r, s, c, k]))
    value = x_scale[0] * w_scale[0] * y.dtype.type(total)
    y[n, p, q, k] = value + b[k] if b.shape[0] else value


@declare(SHAPES, items="N H W C", writes="dx", derive=fits_channels, alike=CONV_MAP, sums="K/G")
def grad_x(t, dx, dy_q, w_q, dy_scale, w_scale, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), from dy_q, (N, P, Q, K), w_q, (R, S, C/G, K), dy_scale, (N,), and w_scale, (1,).

    H and W (and G) must be given: several sizes give one P.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    depth = w_q.shape[2]
    width = w_q.shape[3] * depth // dx.shape[3]  # output channels of a group
    first = c // depth * width
    total = np.int32(w_q.dtype.type(0))
    for r in range(w_q.shape[0]):
        p, off = divmod(h + pad[0][0] - r * dilation[0], stride[0])
        if off == 0 and 0 <= p < dy_q.shape[1]:
            for s in range(w_q.shape[1]):
                q, off = divmod(col + pad[1][0] - s * dilation[1], stride[1])
                if off == 0 and 0 <= q < dy_q.shape[2]:
                    for k in range(first, first + width):
                        total = np.int32(total + np.int32(dy_q[n, p, q, k]) * np.int32(w_q[r, s, c % depth, k]))
    dx[n, h, col, c] = dy_scale[n] * w_scale[0] * dx.dtype.type(total)


@declare(SHAPES, items="R S C/G K", writes="dw", derive=fits_rows, alike=CONV_TAP, sums="N", adds="N")
def grad_w(
    t, dw, dy_q, x_q, dy_scale, x_scale, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)), levels=LEVELS
):  # fmt: skip
    """Gradient of w, (R, S, C/G, K), from dy_q, (N, P, Q, K), x_q, (N, H, W, C), dy_scale, (N,), and x_scale, (1,).

    levels: the largest of dy_q. R and S (and G) must be given: several sizes give one P.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x_q.shape[3]) * depth + c
    total = dw.dtype.type(0)
    for n in range(x_q.shape[0]):
        whole = np.int64(x_q.dtype.type(0))
        for p in range(dy_q.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x_q.shape[1]:
                row = np.int32(x_q.dtype.type(0))
                for q in range(dy_q.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x_q.shape[2]:
                        row = np.int32(row + np.int32(x_q[n, h, col, channel]) * np.int32(dy_q[n, p, q, k]))
                whole += row
        total += dy_scale[n] * dw.dtype.type(whole)
    dw[r, s, c, k] = x_scale[0] * total


PRODUCTS: dict[Pass, Pass] = {  # of floats → of whole numbers
    DENSE[CONVOLUTION][array]: own for array, own in (("y", forward), ("dx", grad_x), ("dw", grad_w))
}


def stands_for(product: Pass) -> Callable[[Pass], Pass]:
    """Record, as a decorator, the product of whole numbers that stands for one of floats, which a rule leaves to do.

    Its operands are named as those of the other are, an error map dy…, an input x… and weights w…: an array A_q with
    its scale in A_scale, along N of an error map, of one entry of the others.
    """

    def record(own: Pass) -> Pass:
        PRODUCTS[product] = own
        return own

    return record


@register_method
@dataclass(frozen=True)
class QuantizedTraining(Rule):
    """The rule of a Plan that computes the gradients of trained layers with whole numbers of 8 bits.

    scheme: "psq" or "ptq", gradients alone with a scale of dy for each sample or for all; "banner", the forward pass
    too, 16 bits of dy for dw, and range batch norm. bits: of the operands, from 2 to 8, stored in 8. ValueError for
    other values.
    """

    scheme: str = "psq"
    bits: int = BITS

    method: ClassVar[str] = "quantized"
    states: ClassVar[Statement] = Statement(
        "rule", 70, "quantized:scheme=psq,bits=8 (or scheme ptq, banner)", {"scheme": SCHEMES, "bits": int},
        {
            "instances": "the gradients of the chosen instances are products of 8 bits; they are chosen by floats",
            "prunes":
                "the kept channels of the error map are quantized; convolutions with groups that are pruned stay "
                "floats, depthwise ones do not",
            "sparse-update": "dw of the chosen channels is a product of 8 bits; with groups it stays one of floats",
            "filters": "patch means of the error map, patch sums of the input and sums of the weights are quantized",
        },
        tried=Tried(
            timed=({"scheme": "psq"}, {"scheme": "banner"}),
            few=True,
            variants={"=ptq": ({"scheme": "ptq"}, {}), "=banner": ({"scheme": "banner"}, {})},
        ),
    )  # fmt: skip
    operators: ClassVar[tuple[str, ...]] = (CONVOLUTION, LINEAR)
    stage: ClassVar[int] = 3
    stream: ClassVar[int] = random.ROUNDING

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}, got {self.scheme!r}")
        if isinstance(self.bits, bool) or not isinstance(self.bits, (int, np.integer)) or not 2 <= self.bits <= BITS:
            raise ValueError(f"bits must be a whole number from 2 to {BITS}, got {self.bits!r}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "QuantizedTraining":
        """With any scheme and bits."""
        return cls(SCHEMES[pick(0, len(SCHEMES) - 1)], pick(2, BITS))

    @property
    def levels(self) -> int:
        """The largest whole number of an operand."""
        return 2 ** (int(self.bits) - 1) - 1

    @property
    def rounding(self) -> float:
        """A quarter of the smallest step of an operand, as a share of the largest."""
        return 1 / (4 * self.levels)

    def attrs(self) -> dict:
        """The largest whole number of an operand of 8 bits."""
        return {"levels": self.levels}

    def scalars(self) -> dict[str, Callable[["Moment"], float]]:
        """The number of the update and the seed of the run, for rounding at random."""
        return {"step": lambda now: now.updates + 1, "seed": lambda now: now.seed}

    def statistics(self) -> tuple[Pass, ...]:
        """Range batch norm where the forward pass is quantized."""
        return (quantized_norm.ends, quantized_norm.slope, quantized_norm.grad_x) if self.scheme == "banner" else ()

    def bind(self, node: TrainedLayer) -> None:
        """Add the passes of the forward pass where it is quantized, and those of the products that are left."""
        bifurcated = self.scheme == "banner"
        if bifurcated:
            product = node.dense["y"]
            self._quantize(node, "x", "x")
            self._quantize(node, "w", "w", size_of(dims(product.shapes["w"])[0], node.sizes))
            node.add(PRODUCTS[product])
        self._multiply(node, "dx", node.letters, wide=False)
        self._multiply(node, "dw", node.letters | node.w_letters, wide=bifurcated)

    def _multiply(self, node: TrainedLayer, gradient: str, letters: Mapping[str, str], wide: bool) -> None:
        """Add the product that stands for the one of a gradient, with its operands; wide: 16 bits of dy."""
        product = node.products[gradient]
        if product not in PRODUCTS:
            return
        names = {a: node.names[a] for a in product.writes if a in node.names}
        for a in product.reads:
            left = whole = node.names.get(a, a)
            if a.startswith("dy"):
                whole = self._round(node, left, wide)
            elif a.startswith("x"):
                self._quantize(node, a, left)
            else:
                self._quantize(node, a, left, size_of(dims(product.shapes[a])[0], node.sizes))
            names |= {f"{a}_q": f"{whole}_q", f"{a}_scale": f"{whole}_scale"}
        _add(node, Bound(PRODUCTS[product], names, letters, {"levels": WIDE_LEVELS if wide else self.levels}))

    def _quantize(self, node: TrainedLayer, a: str, left: str, rows: int | None = None) -> None:
        """Add the passes that quantize an array of the node, `left`; rows: of one that has no samples."""
        known = {} if rows is None else {"N": rows}
        names = {"v": left, "most": f"{left}_most", "scale": f"{left}_scale", "q": f"{left}_q"}
        for p in (most, tensor_scale, nearest):
            _add(node, Bound(p, {a: n for a, n in names.items() if a in p.arrays}, known=known))

    def _round(self, node: TrainedLayer, left: str, wide: bool) -> str:
        """Add the passes that quantize an error map of the node; the name that its whole numbers begin with."""
        whole = f"{left}_wide" if wide else left
        q = "wide" if wide else "q"
        names = {"dy": left, "most": f"{left}_most", "scales": f"{whole}_scale", q: f"{whole}_q"}
        scales = sample_scales if self.scheme == "psq" else batch_scales
        for p in (most_dy, scales, stochastic_wide if wide else stochastic):
            attrs = {"levels": WIDE_LEVELS} if wide and p is scales else {}
            _add(node, Bound(p, {a: n for a, n in names.items() if a in p.arrays}, attrs=attrs))
        return whole


def _add(node: TrainedLayer, bound: Bound) -> None:
    """Add a pass to a node's once."""
    if bound not in node.passes:
        node.passes.append(bound)
