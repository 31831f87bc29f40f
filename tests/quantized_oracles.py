"""Operators in whole numbers once more, in Python's own integers and fractions, padding written out."""

import math
from fractions import Fraction

import numpy as np

LOW, HIGH = -(2**31), 2**31 - 1
HALF = Fraction(1, 2)


def half_up(number):
    """The nearest whole number, a half upwards."""
    return math.floor(number + HALF)


def half_away(number):
    """The nearest whole number, a half away from zero."""
    return -half_up(-number) if number < 0 else half_up(number)


def requantized(value, multiplier, shift, twice):
    """value·multiplier·2^(shift − 31) with one rounding, or with gemmlowp's two."""
    value, multiplier, shift = int(value), int(multiplier), int(shift)
    if not twice:
        return half_up(Fraction(value * multiplier) / Fraction(2) ** (31 - shift))
    high = min(max(value * 2 ** max(shift, 0), LOW), HIGH)
    high = min(half_up(Fraction(high * multiplier, 2**31)), HIGH)
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def clip(value, low, high):
    """A whole number within two ends."""
    return low if value < low else high if value > high else value


def padded(x, pad, fill):
    """Maps (N, H, W, C) of Python integers with the padding around them."""
    (top, bottom), (left, right) = pad
    wide = np.full((x.shape[0], top + x.shape[1] + bottom, left + x.shape[2] + right, x.shape[3]), fill, object)
    wide[:, top : top + x.shape[1], left : left + x.shape[2]] = x.astype(object)
    return wide


def same(size, window, stride):
    """Padding of an axis by which ⌈size / stride⌉ windows fit, the odd one behind."""
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def conv2d(x, w, b, multiplier, shift, stride, dilation, pad, x_zero, y_zero, low, high, twice):
    """The convolution: every output is a list of products, taps in the padding of the zero point among them."""
    rows, columns, depth, kept = w.shape
    if pad == "same":
        pad = tuple(same(x.shape[1 + i], w.shape[i], stride[i]) for i in range(2))
    wide = padded(x, pad, x_zero)
    reach = [(n - 1) * d + 1 for n, d in zip((rows, columns), dilation, strict=True)]
    out = [(wide.shape[1 + i] - reach[i]) // stride[i] + 1 for i in range(2)]
    y = np.empty((len(x), *out, kept), np.int8)
    per_group = kept // (x.shape[3] // depth)
    for n, p, q, k in np.ndindex(y.shape):
        first = k // per_group * depth
        window = wide[
            n,
            p * stride[0] : p * stride[0] + reach[0] : dilation[0],
            q * stride[1] : q * stride[1] + reach[1] : dilation[1],
            first : first + depth,
        ]
        total = int(((window - x_zero) * w[..., k].astype(object)).sum()) + (0 if b is None else int(b[k]))
        assert LOW <= total <= HIGH
        y[n, p, q, k] = clip(requantized(total, multiplier[k], shift[k], twice) + y_zero, low, high)
    return y


def sums(x, w, b, x_zero):
    """The sums of a linear layer (N, K), Python integers."""
    total = (x.astype(object) - x_zero) @ w.astype(object)
    return total if b is None else total + b.astype(object)


def windows(x, window, stride, pad, fill=None, overhang=(0, 0)):
    """(index of the output, list of the elements of its window), `fill` outside the map, or nothing.

    overhang: rows and columns at the end of the padding where there is nothing in any case.
    """
    wide = padded(x, pad, fill)
    wide[:, wide.shape[1] - overhang[0] :] = None
    wide[:, :, wide.shape[2] - overhang[1] :] = None
    for n, c in np.ndindex(x.shape[0], x.shape[3]):
        for p in range((wide.shape[1] - window[0]) // stride[0] + 1):
            for q in range((wide.shape[2] - window[1]) // stride[1] + 1):
                part = wide[n, p * stride[0] :, q * stride[1] :, c][: window[0], : window[1]]
                yield (n, p, q, c), [v for v in part.reshape(-1) if v is not None]


def run(g, x):
    """Every tensor of a net in whole numbers for floats x (M, H, W, C), node by node."""
    w, made = g.weights, {"input": x}
    for node in g.nodes:
        a = {**node.operator.defaults, **node.attrs}
        p = {local: w[name] for local, name in node.params.items()}
        xs = [made[t] for t in node.inputs]
        made |= zip(node.outputs, NODES[node.op](a, p, *xs), strict=False)
    return made


def _each(function, *arrays):
    found = np.empty(arrays[0].shape, np.int8)
    for at in np.ndindex(found.shape):
        found[at] = function(*(int(v[at]) for v in arrays), at[-1])
    return found


def _scaled(a, total, multiplier, shift):
    return clip(requantized(total, multiplier, shift, a["twice"]) + a["y_zero"], a["low"], a["high"])


def _conv(a, p, x):
    names = ("stride", "dilation", "pad", "x_zero", "y_zero", "low", "high", "twice")
    yield conv2d(x, p["w"], p.get("b"), p["multiplier"], p["shift"], **{name: a[name] for name in names})


def _linear(a, p, x):
    total = sums(x, p["w"], p.get("b"), a["x_zero"])
    y = np.zeros(total.shape, np.int8)
    if "multiplier" in p:
        for n, k in np.ndindex(y.shape):
            y[n, k] = _scaled(a, total[n, k], p["multiplier"][k], p["shift"][k])
    yield from (y, total)


def _add(a, p, x, z):
    def both(first, second, _):
        one = requantized((first - a["a_zero"]) << 20, a["a_multiplier"], a["a_shift"], a["twice"])
        other = requantized((second - a["b_zero"]) << 20, a["b_multiplier"], a["b_shift"], a["twice"])
        return _scaled(a, one + other, a["y_multiplier"], a["y_shift"])

    yield _each(both, x, z)


def _concat(a, p, *xs):
    whole = np.concatenate(xs, -1)
    yield _each(lambda v, k: _scaled(a, v - int(p["x_zero"][k]), p["multiplier"][k], p["shift"][k]), whole)


def _pool(of_taps):
    def pool(a, p, x):
        fill = a["x_zero"] if a.get("count_include_pad") else None
        found = dict(windows(x, a["window"], a["stride"], a["pad"], fill, a.get("overhang", (0, 0))))
        y = np.zeros([1 + max(side) for side in zip(*found, strict=True)], np.int8)
        for at, taps in found.items():
            y[at] = clip(of_taps(taps), a["low"], a["high"])
        yield y

    return pool


def _mean(a, p, x):
    total = (x.astype(object) - a["x_zero"]).sum((1, 2))
    assert a["pixels"] == x.shape[1] * x.shape[2]
    yield np.array([[_scaled(a, v, a["multiplier"], a["shift"]) for v in row] for row in total], np.int8)


def _whole(a, p, x):
    scale = p["scale"].astype(x.dtype)[0]
    yield _each(lambda v, k: v, np.rint(x / scale).clip(-128 - a["zero"], 127 - a["zero"]) + a["zero"])


def _real(a, p, x):
    yield p["scale"] * (x.astype(np.int64) - a["zero"]).astype(p["scale"].dtype)


NODES = {
    "quantize": _whole, "dequantize": _real, "quantized_conv2d": _conv, "quantized_linear": _linear,
    "quantized_add": _add, "quantized_concat": _concat, "quantized_max_pool": _pool(max),
    "quantized_avg_pool": _pool(lambda taps: half_away(Fraction(sum(taps), len(taps)))),
    "quantized_global_avg_pool": _mean, "flatten": lambda a, p, x: iter([x.reshape(len(x), -1)]),
}  # fmt: skip
