"""One step of NITI once more, in Python's own integers: every node forwards and backwards, the loss, the update.

Nothing of the library's arithmetic is used but its random words. A tensor is an array of Python integers with an
exponent; shifts are divisions of fractions, gradients are scattered from the outputs as the forward pass gathers.
"""

import math
from fractions import Fraction

import numpy as np

from refimpl.kernels import random

HALF = Fraction(1, 2)


def clip(number, end):
    """A whole number within ±end."""
    return max(-end, min(end, number))


def rounded(value, shift, how, word=0):
    """A whole number divided by 2^shift and rounded, its sign apart."""
    whole, low = divmod(abs(value), 2**shift)
    if how == "nearest":
        up = Fraction(low, 2**shift) >= HALF
    elif how == "stochastic":
        up = word % 2**shift < low
    else:
        high, rest = divmod(low, 2 ** (shift // 2))
        up = high > (2 * rest if shift % 2 else rest)
    return int(math.copysign(1, value)) * (whole + up)


def words(seed, stream, step, count):
    """The first word of each draw, Python integers."""
    return [int(w) for w in random.words_array(seed, stream, step, count)[0]]


def narrowed(sums, exponent, how="nearest", drawn=None):
    """(q, exponent) of 8 bits; drawn: the words of its elements."""
    shift = max(0, max((abs(v) for v in sums.reshape(-1)), default=0).bit_length() - 7)
    drawn = drawn or [0] * sums.size
    flat = [clip(rounded(v, shift, how, w), 127) for v, w in zip(sums.reshape(-1), drawn, strict=True)]
    return np.array(flat, object).reshape(sums.shape), exponent + shift


def zeros(shape):
    """Python zeros."""
    return np.full(shape, 0, object)


def taps(attrs, kernel, size, out):
    """(p, q, r, s, h, col) of every tap of a window inside the map."""
    dilation = attrs.get("dilation", (1, 1))
    for p, q, r, s in np.ndindex(*out, *kernel):
        h = p * attrs["stride"][0] - attrs["pad"][0][0] + r * dilation[0]
        col = q * attrs["stride"][1] - attrs["pad"][1][0] + s * dilation[1]
        if 0 <= h < size[0] and 0 <= col < size[1]:
            yield p, q, r, s, h, col


def out_size(attrs, kernel, size):
    """Rows and columns of the output."""
    dilation = attrs.get("dilation", (1, 1))
    return tuple(
        (size[i] + sum(attrs["pad"][i]) - dilation[i] * (kernel[i] - 1) - 1) // attrs["stride"][i] + 1 for i in range(2)
    )


def bias(b, x_exponent):
    """A bias in units of the products: b·2^(−x_exponent), rounded, within ±2^30."""
    scaled = abs(int(b)) * Fraction(2) ** -x_exponent
    return clip(int(math.copysign(1, b)) * math.floor(scaled + HALF), 2**30)


class Layer:
    """A convolution or a linear layer, as a convolution of maps of one pixel."""

    def __init__(self, attrs, p, x, e):
        self.attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0)), **attrs}
        self.rank, self.p, self.e = x.ndim, p, e
        self.x = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
        self.w = p["w"].astype(object).reshape((1, 1, *p["w"].shape) if x.ndim == 2 else p["w"].shape)
        self.out = out_size(self.attrs, self.w.shape[:2], self.x.shape[1:3])

    def pairs(self):
        """((n, p, q, k), (n, h, col, channel), (r, s, c, k)) of every product."""
        depth, kept = self.w.shape[2:]
        width = kept // (self.x.shape[3] // depth)
        for p, q, r, s, h, col in taps(self.attrs, self.w.shape[:2], self.x.shape[1:3], self.out):
            for n, k, c in np.ndindex(len(self.x), kept, depth):
                yield (n, p, q, k), (n, h, col, k // width * depth + c), (r, s, c, k)

    def forward(self):
        """The output and its exponent."""
        sums = zeros((len(self.x), *self.out, self.w.shape[3]))
        for y, x, w in self.pairs():
            sums[y] += self.x[x] * self.w[w]
        if "b" in self.p:
            sums += np.array([bias(b, self.e) for b in self.p["b"]], object)
        assert max(abs(v) for v in sums.reshape(-1)) < 2**31
        y, e = narrowed(sums, self.e + int(self.p["w_exponent"][0]))
        return (y if self.rank == 4 else y.reshape(len(y), -1)), e

    def backward(self, dy, e, narrow):
        """dx with its exponent, dw and db."""
        dy = dy.reshape(len(dy), *self.out, -1)
        dx, dw = zeros(self.x.shape), zeros(self.w.shape)
        for y, x, w in self.pairs():
            dx[x] += dy[y] * self.w[w]
            dw[w] += dy[y] * self.x[x]
        dx, e = narrow(dx, e + int(self.p["w_exponent"][0]))
        return dx if self.rank == 4 else dx.reshape(len(dx), -1), e, dw, dy.sum((0, 1, 2))


def add(a, a_e, b, b_e):
    """The sum of two tensors before it is narrowed, and its exponent."""
    e = max(min(a_e, b_e), max(a_e, b_e) - 16)
    at = lambda v, own: int(math.copysign(1, v)) * math.floor(abs(v) * Fraction(2) ** (own - e) + HALF)  # noqa: E731
    flat = [at(x, a_e) + at(y, b_e) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
    return np.array(flat, object).reshape(a.shape), e


def maximum(attrs, x):
    """The largest of each window, and where it is: the first in row order."""
    kernel = attrs["window"]
    y, where = {}, {}
    for p, q, _, _, h, col in taps(attrs, kernel, x.shape[1:3], out_size(attrs, kernel, x.shape[1:3])):
        for n, c in np.ndindex(len(x), x.shape[3]):
            if (n, p, q, c) not in y or x[n, h, col, c] > y[n, p, q, c]:
                y[n, p, q, c], where[n, p, q, c] = x[n, h, col, c], (n, h, col, c)
    found = zeros([1 + max(side) for side in zip(*y, strict=True)])
    for at, value in y.items():
        found[at] = value
    return found, where


def errors(x, e, labels):
    """(softmax − one-hot)·2^14 of logits x·2^e, approximated."""
    found = zeros(x.shape)
    for n, row in enumerate(x):
        powers = []
        for v in row:
            t = math.floor((max(row) - v) * 47274 * Fraction(2) ** (e - 7))
            i, f = divmod(t, 256)
            powers.append(math.floor(Fraction((512 - f) * 128, 2**i)) if i < 64 else 0)
        for k, power in enumerate(powers):
            found[n, k] = 2**14 * power // sum(powers) - (2**14 if k == labels[n] else 0)
    return found


def step(g, x, labels, how, rate_bits, seed, number):
    """(logits, their exponent, parameters after the step number `number`) of a net of whole numbers."""
    w, made, kept = g.weights, {"input": x}, {}
    for node in g.nodes:
        a = {**node.operator.defaults, **node.attrs}
        p = {local: w[name] for local, name in node.params.items()}
        made |= zip(node.outputs, forward(node, a, p, [made[t] for t in node.inputs], kept), strict=True)
    logits, exponent = made[g.output], made[g.tensors[g.output].quantized.scale]

    def narrow(place):
        def of(sums, exponent):
            drawn = words(seed, random.ROUNDING + place, number, sums.size) if how == "stochastic" else None
            return narrowed(sums, exponent, how, drawn)

        return of

    last, last_e = narrow(len(g.nodes))(errors(logits, exponent, labels), -14)
    grads, changes = {g.output: last, g.tensors[g.output].quantized.scale: last_e}, {}
    for place, node in reversed(list(enumerate(g.nodes))):
        dy = [grads.get(t) for t in node.outputs]
        found, own = backward(node, dy, kept[node.name], narrow(place))
        grads |= zip(node.inputs, found, strict=False)
        changes |= {node.params[local]: d for local, d in own.items() if local in node.params}
    new = {name: values.copy() for name, values in w.items()}
    for place, name in enumerate(g.parameters):
        if name in changes:
            new[name] = updated(w[name], changes[name].reshape(-1), how, rate_bits, (seed, place, number))
    return logits, exponent, new


def updated(w, dw, how, rate_bits, draw):
    """A parameter after its update."""
    seed, place, number = draw
    shift = max(0, min(31, max(abs(v) for v in dw).bit_length() - rate_bits))
    drawn = words(seed, random.UPDATE + place, number, w.size) if how == "stochastic" else [0] * w.size
    end = 127 if w.dtype == np.int8 else 32767
    moved = [
        clip(int(v) - rounded(d, shift, how, one), end) for v, d, one in zip(w.reshape(-1), dw, drawn, strict=True)
    ]
    return np.array(moved, w.dtype).reshape(w.shape)


def forward(node, a, p, xs, kept):
    """The outputs of a node; what its gradient needs goes into `kept`."""
    x, kept[node.name] = xs[0], (a, xs)
    if node.op == "niti_input":
        e = int(p["exponent"][0])
        real = [Fraction(float(v)) * Fraction(2) ** -e for v in x.reshape(-1)]
        return np.array([clip(round(clip(v, 127)), 127) for v in real], object).reshape(x.shape), e
    if node.op in ("niti_conv2d", "niti_linear"):
        kept[node.name] = layer = Layer(a if node.op == "niti_conv2d" else {}, p, *xs)
        return layer.forward()
    if node.op == "niti_relu":
        return [np.where(x > 0, x, 0)]
    if node.op == "niti_max_pool":
        y, where = maximum(a, x)
        kept[node.name] = (a, xs, where)
        return [y]
    if node.op == "niti_avg_pool":
        rows, columns = a["window"]
        factor = math.floor(Fraction(2**15, rows * columns) + HALF)
        sums = zeros((len(x), *out_size(a, a["window"], x.shape[1:3]), x.shape[3]))
        for p_, q, _, _, h, col in taps(a, a["window"], x.shape[1:3], sums.shape[1:3]):
            sums[:, p_, q] += x[:, h, col]
        kept[node.name] = (a, xs, factor)
        return narrowed(sums * factor, xs[1] - 15)
    if node.op == "niti_add":
        return narrowed(*add(*xs))
    if node.op == "niti_fork":
        return x, xs[1], x, xs[1]
    assert node.op == "flatten"
    return [x.reshape(len(x), -1)]


def backward(node, dy, kept, narrow):
    """(gradients of the inputs, those of the parameters)."""
    if node.op == "niti_input":
        return [], {}
    if node.op in ("niti_conv2d", "niti_linear"):
        dx, e, dw, db = kept.backward(*dy, narrow)
        return [dx, e], {"w": dw, "b": db}
    a, xs, *rest = kept
    x = xs[0]
    if node.op == "niti_relu":
        return [np.where(x > 0, dy[0], 0)], {}
    if node.op == "niti_max_pool":
        dx = zeros(x.shape)
        for y, at in rest[0].items():
            dx[at] += dy[0][y]
        return [dx], {}
    if node.op == "niti_avg_pool":
        dx = zeros(x.shape)
        for p, q, _, _, h, col in taps(a, a["window"], x.shape[1:3], dy[0].shape[1:3]):
            dx[:, h, col] += dy[0][:, p, q]
        return narrow(dx * rest[0], dy[1] - 15), {}
    if node.op == "niti_add":
        return [dy[0], dy[1], dy[0], dy[1]], {}
    if node.op == "niti_fork":
        return narrow(*add(*dy)), {}
    return [dy[0].reshape(x.shape)], {}
