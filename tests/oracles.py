"""Each operator once more, in float64 NumPy and by another way than refimpl's: the truth that tests compare with.

Every function takes the arrays and attributes of a call and returns what the operator writes, by name.
"""

import numpy as np
from scipy import special


def _indices(size, window, stride, dilation, pad):
    """(out, window) positions in the padded map, and the length of the padded map."""
    length = size + sum(pad)
    starts = np.arange(0, length - dilation * (window - 1), stride)
    return starts[:, None] + dilation * np.arange(window)[None, :], length


class Windows:
    """All windows of a map as one array (N, P, Q, R, S, C), and the way back."""

    def __init__(self, x, window, stride, dilation=(1, 1), pad=((0, 0), (0, 0)), fill=0.0):
        self.pad, self.shape = pad, x.shape
        padded = np.pad(x, ((0, 0), *pad, (0, 0)), constant_values=fill)
        self.rows, _ = _indices(x.shape[1], window[0], stride[0], dilation[0], pad[0])
        self.columns, _ = _indices(x.shape[2], window[1], stride[1], dilation[1], pad[1])
        self.padded_shape = padded.shape
        self.at = (self.rows[:, None, :, None], self.columns[None, :, None, :])
        self.values = padded[(slice(None), *self.at)]

    def back(self, values):
        """Add each element of `values` (N, P, Q, R, S, C) where it came from: a map (N, H, W, C)."""
        padded = np.zeros(self.padded_shape)
        np.add.at(padded, (slice(None), *self.at), values)
        (top, _), (left, _) = self.pad
        return padded[:, top : top + self.shape[1], left : left + self.shape[2]]


def conv2d(a, attrs):
    x, w = a["x"], a["w"]
    stride, dilation = attrs.get("stride", (1, 1)), attrs.get("dilation", (1, 1))
    pad = attrs.get("pad", ((0, 0), (0, 0)))
    windows = Windows(x, w.shape[:2], stride, dilation, pad)
    groups = x.shape[3] // w.shape[2]
    split = windows.values.reshape(*windows.values.shape[:5], groups, -1)  # N P Q R S G c
    kernel = w.reshape(*w.shape[:3], groups, -1)  # R S c G k
    y = np.einsum("npqrsgc,rscgk->npqgk", split, kernel)
    found = {"y": y.reshape(*y.shape[:3], -1) + a.get("b", 0.0)}
    if "dy" in a:
        dy = a["dy"].reshape(y.shape)
        taps = np.einsum("npqgk,rscgk->npqrsgc", dy, kernel)
        found["dx"] = windows.back(taps.reshape(windows.values.shape))
        found["dw"] = np.einsum("npqrsgc,npqgk->rscgk", split, dy).reshape(w.shape)
        if "b" in a:
            found["db"] = a["dy"].sum((0, 1, 2))
    return found


def linear(a, attrs):
    found = {"y": np.einsum("nd,dk->nk", a["x"], a["w"]) + a.get("b", 0.0)}
    if "dy" in a:
        found["dx"] = np.einsum("nk,dk->nd", a["dy"], a["w"])
        found["dw"] = np.einsum("nk,nd->dk", a["dy"], a["x"])
        if "b" in a:
            found["db"] = a["dy"].sum(0)
    return found


def absolute(oracle):
    """Scales of a sum of products: its oracle on absolute values."""
    return lambda arrays, attrs: oracle({k: np.abs(v) if v.dtype.kind == "f" else v for k, v in arrays.items()}, attrs)


def add(a, attrs):
    return {"y": a["a"] + a["b"]}


def sub(a, attrs):
    return {"y": a["a"] - a["b"], "db": -1 * a["dy"]}


def mul(a, attrs):
    return {"y": np.multiply(a["a"], a["b"]), "da": a["dy"] * a["b"], "db": a["dy"] * a["a"]}


def scale_channels(a, attrs):
    y, dx = (np.einsum("nhwc,nc->nhwc", of, a["s"]) for of in (a["x"], a["dy"]))
    return {"y": y, "dx": dx, "ds": np.einsum("nhwc,nhwc->nc", a["dy"], a["x"])}


def _summed(a, shape):
    """The sum of an array over the axes along which `shape`, which may lack the first, has length 1."""
    lead = a.ndim - len(shape)
    axes = [*range(lead), *(i + lead for i, n in enumerate(shape) if n == 1)]
    return a.sum(tuple(axes), keepdims=True).reshape(shape)


def affine(a, attrs):
    return {"y": a["x"] * attrs["factor"] + attrs["offset"], "dx": a["dy"] * attrs["factor"]}


def add_weight(a, attrs):
    return {"y": a["x"] + a["w"], "dw": _summed(a["dy"], a["w"].shape)}


def mul_weight(a, attrs):
    w = np.broadcast_to(a["w"], a["x"].shape)
    return {"y": w * a["x"], "dx": w * a["dy"], "dw": _summed(a["x"] * a["dy"], a["w"].shape)}


def add_spread(a, attrs):
    return {"y": a["x"] + a["s"], "ds": np.stack([_summed(dy, s.shape) for dy, s in zip(a["dy"], a["s"], strict=True)])}


def mul_spread(a, attrs):
    s, pairs = np.broadcast_to(a["s"], a["x"].shape), zip(a["x"] * a["dy"], a["s"], strict=True)
    return {"y": s * a["x"], "dx": s * a["dy"], "ds": np.stack([_summed(dy, own.shape) for dy, own in pairs])}


def _bits(inside):
    """One bit an element, the first element of a sample in the lowest bit of its first byte."""
    return np.packbits(inside.reshape(inside.shape[0], -1), axis=1, bitorder="little")


def relu(a, attrs):
    inside = a["x"] > 0
    return {"y": np.where(inside, a["x"], 0), "mask": _bits(inside), "dx": inside * a["dy"]}


def relu6(a, attrs):
    inside = (a["x"] > 0) & (a["x"] < 6)
    return {"y": np.clip(a["x"], 0, 6), "mask": _bits(inside), "dx": inside * a["dy"]}


def gelu(a, attrs):
    x, root = a["x"], np.sqrt(2 / np.pi)
    if attrs["approximate"]:  # a tanh is a logistic function of twice the argument
        u = root * (x + 0.044715 * x**3)
        phi = special.expit(2 * u)
        density = 2 * special.expit(2 * u) * special.expit(-2 * u) * root * (1 + 0.134145 * x**2)
    else:
        phi, density = special.ndtr(x), np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return {"y": x * phi, "dx": a["dy"] * (phi + x * density)} if "dy" in a else {"y": x * phi}


def sigmoid(a, attrs):
    y = special.expit(a["x"])
    return {"y": y, "dx": a["dy"] * y * special.expit(-a["x"])} if "dy" in a else {"y": y}


def silu(a, attrs):
    x, s = a["x"], special.expit(a["x"])
    return {"y": x * s, "dx": a["dy"] * (s + x * s * special.expit(-x))}


def tanh(a, attrs):
    return {"y": 2 * special.expit(2 * a["x"]) - 1, "dx": a["dy"] / np.cosh(a["x"]) ** 2}


def hard_sigmoid(a, attrs):
    line = attrs["alpha"] * a["x"] + attrs["beta"]
    inside = (line > 0) & (line < 1)
    return {"y": np.clip(line, 0, 1), "mask": _bits(inside), "dx": attrs["alpha"] * inside * a["dy"]}


def hard_swish(a, attrs):
    x = a["x"]
    return {
        "y": np.select([x <= -3, x < 3], [0, x * (x + 3) / 6], x),
        "dx": a["dy"] * np.select([x <= -3, x < 3], [0, x / 3 + 0.5], 1),
    }


def leaky_relu(a, attrs):
    factor = np.where(a["x"] > 0, 1, attrs["slope"])
    return {"y": factor * a["x"], "mask": _bits(a["x"] > 0), "dx": factor * a["dy"]}


def clip(a, attrs):
    inside = (a["x"] >= attrs["low"]) & (a["x"] <= attrs["high"])
    return {"y": np.clip(a["x"], attrs["low"], attrs["high"]), "mask": _bits(inside), "dx": inside * a["dy"]}


def reciprocal(a, attrs):
    return {"y": a["x"] ** -1.0, "dx": -a["dy"] * a["x"] ** -2.0}


def square_root(a, attrs):
    return {"y": a["x"] ** 0.5, "dx": 0.5 * a["dy"] * a["x"] ** -0.5}


def exponential(a, attrs):
    return {"y": np.e ** a["x"], "dx": a["dy"] * np.e ** a["x"]}


def logarithm(a, attrs):
    return {"y": np.log2(a["x"]) * np.log(2), "dx": a["dy"] * a["x"] ** -1.0}


def absolute_value(a, attrs):
    return {"y": np.maximum(a["x"], -a["x"]), "dx": np.sign(a["x"]) * a["dy"]}


def error_function(a, attrs):
    return {"y": 1 - special.erfc(a["x"]), "dx": a["dy"] * np.exp(-(a["x"] ** 2)) / special.gamma(1.5)}


def smooth_relu(a, attrs):
    return {"y": np.logaddexp(0, a["x"]), "dx": a["dy"] * special.expit(a["x"])}


def softsign(a, attrs):
    return {"y": np.sign(a["x"]) - np.sign(a["x"]) / (1 + np.abs(a["x"])), "dx": a["dy"] * (1 + np.abs(a["x"])) ** -2.0}


def staircase(a, attrs):
    return {"y": (np.floor, np.ceil, np.round, np.fix)[attrs["kind"]](a["x"])}


def by_sign(a, attrs):
    return {"y": np.array([attrs[name] for name in ("below", "at", "above")])[np.sign(a["x"]).astype(int) + 1]}


def constant_like(a, attrs):
    return {"y": np.full_like(a["x"], attrs["value"])}


def one_of_two(a, attrs):
    taken = a["c"] > 0
    return {"y": np.where(taken, a["a"], a["b"]), "da": a["dy"] * taken, "db": a["dy"] * ~taken}


def spread_out(a, attrs):
    x = a["x"]
    gone = tuple(i for i in (1, 2, 3) if x.shape[i] == 1)
    y = np.broadcast_to(x, (len(x), *attrs["size"]))
    return {"y": y, "dx": a["dy"].sum(gone, keepdims=True)}


def arg_max(a, attrs):
    x, over = a["x"], [i + 1 for i, one in enumerate(attrs["over"]) if one]
    kept = [i for i in range(4) if i not in over]
    rows = x.transpose(*kept, *over).reshape(*(x.shape[i] for i in kept), -1)
    place = rows.shape[-1] - 1 - rows[..., ::-1].argmax(-1) if attrs["last"] else rows.argmax(-1)
    return {"y": place.reshape([1 if i in over else n for i, n in enumerate(x.shape)]).astype(x.dtype)}


def _ranked(a, attrs):
    x = a["x"]
    order = np.argsort(x if attrs["smallest"] else -x, axis=-1, kind="stable")
    return order, order[..., : attrs["count"]]


def top_values(a, attrs):
    order, taken = _ranked(a, attrs)
    dx = np.zeros_like(a["x"])
    if "dy" in a:
        np.put_along_axis(dx, taken, a["dy"], -1)
    return {"rank": np.argsort(order, axis=-1), "y": np.take_along_axis(a["x"], taken, -1), "dx": dx}


def top_places(a, attrs):
    order, taken = _ranked(a, attrs)
    return {"rank": np.argsort(order, axis=-1), "y": taken.astype(a["x"].dtype)}


def one_hot(a, attrs):
    index = a["x"] + attrs["depth"] * (a["x"] < 0)
    return {"y": np.where(index == np.arange(attrs["depth"]), attrs["on"], attrs["off"])}


def elu(a, attrs):
    x, low = a["x"], np.minimum(a["x"], 0)
    below = attrs["alpha"] * np.exp(low)
    return {"y": np.where(x > 0, x, below - attrs["alpha"]), "dx": a["dy"] * np.where(x > 0, 1, below)}


def prelu(a, attrs):
    factor = np.where(a["x"] > 0, 1, a["w"])
    dw = _summed(np.minimum(a["x"], 0) * a["dy"], a["w"].shape)
    return {"y": factor * a["x"], "dx": factor * a["dy"], "dw": dw}


def block_prune(a, attrs):
    (n, h, w, c), (rows, columns) = a["x"].shape, attrs["block"]
    padded = np.pad(np.abs(a["x"]), ((0, 0), (0, -h % rows), (0, -w % columns), (0, 0)))
    largest = padded.reshape(n, -(-h // rows), rows, -(-w // columns), columns, c).max((2, 4))
    stays = largest >= attrs["threshold"]
    inside = stays.repeat(rows, 1).repeat(columns, 2)[:, :h, :w]
    return {"y": inside * a["x"], "mask": _bits(stays), "dx": inside * a["dy"]}


def max_pool(a, attrs):
    windows = Windows(a["x"], attrs["window"], attrs["stride"], pad=attrs["pad"], fill=-np.inf)
    n, p, q, r, s, c = windows.values.shape
    flat = windows.values.reshape(n, p, q, r * s, c)
    place = flat.argmax(3)
    chosen = (np.arange(r * s)[:, None] == place[:, :, :, None, :]) * a["dy"][:, :, :, None, :]
    return {"y": flat.max(3), "argmax": place, "dx": windows.back(chosen.reshape(windows.values.shape))}


def avg_pool(a, attrs):
    windows = Windows(a["x"], attrs["window"], attrs["stride"], pad=attrs["pad"])
    counted = np.ones_like(a["x"])
    if attrs.get("count_include_pad", True):
        counted = np.pad(counted, ((0, 0), *attrs["pad"], (0, 0)), constant_values=1)
        rows, columns = attrs.get("overhang", (0, 0))
        counted[:, counted.shape[1] - rows :], counted[:, :, counted.shape[2] - columns :] = 0, 0
        counts = Windows(counted, attrs["window"], attrs["stride"]).values
    else:
        counts = Windows(counted, attrs["window"], attrs["stride"], pad=attrs["pad"]).values
    counts = counts.sum((3, 4), keepdims=True)
    dy = a["dy"][:, :, :, None, None, :]
    spread = np.broadcast_to(dy / counts, windows.values.shape)
    return {"y": (windows.values / counts).sum((3, 4)), "dx": windows.back(spread)}


def interpolation(shape, attrs):
    """What each output row takes of the input's, (P, H), and each output column, (Q, W)."""
    found = []
    for axis, size in enumerate(shape[1:3]):
        over, under = attrs["scale"][axis]
        out = attrs["size"][axis] or size * over // under
        scale = out / size if attrs["size"][axis] else over / under
        p, grid = np.arange(out), attrs["grid"][axis]
        place = [(p + 0.5) / scale - 0.5, np.linspace(0, size - 1, out), p / scale][grid]
        place = np.where(np.abs(2 * place - (2 * place).round()) < 1e-9, (2 * place).round() / 2, place)  # exact halves
        if attrs["smooth"]:
            share = np.maximum(0, 1 - np.abs(place.clip(0, size - 1)[:, None] - np.arange(size)))
        else:
            rounded = [np.ceil(place - 0.5), np.floor(place + 0.5), np.floor(place), np.ceil(place)][attrs["rounding"]]
            share = (rounded.clip(0, size - 1)[:, None] == np.arange(size)).astype(float)
        found.append(share)
    return found


def interpolate(a, attrs):
    rows, columns = interpolation(a["x"].shape, attrs)
    found = {"y": np.einsum("ph,qw,nhwc->npqc", rows, columns, a["x"])}
    return found | {"dx": np.einsum("ph,qw,npqc->nhwc", rows, columns, a["dy"])} if "dy" in a else found


def filters(shape, attrs):
    """What each row takes of the rows of x, (P, H), and each column, (Q, W)."""
    found = []
    for axis, n in enumerate(shape[1:3]):
        scale = attrs["scale"][axis][0] / attrs["scale"][axis][1]
        out = attrs["size"][axis] or n * attrs["scale"][axis][0] // attrs["scale"][axis][1]
        scale = out / n if attrs["size"][axis] else scale
        p = np.arange(out)[:, None]
        place = ((p + 0.5) / scale - 0.5, p * (n - 1) / max(1, out - 1), p / scale)[attrs["grid"][axis]]
        wide = max(1.0, 1 / scale) if attrs["shrink"] else 1.0
        beyond = 4 * n + 20
        rows = np.arange(-beyond, n + beyond)
        d, a = np.abs(rows - place) / wide, attrs["bend"]
        near, far = np.polyval([a + 2, -a - 3, 0, 1], d), a * np.polyval([1, -5, 8, -4], d)
        k = np.where(d < 1, near, np.where(d < 2, far, 0)) if attrs["cubic"] else np.maximum(1 - d, 0)
        k = k * ((rows >= 0) & (rows < n)) if attrs["exclude"] else k
        k /= k.sum(1, keepdims=True)
        found.append(k @ (np.clip(rows, 0, n - 1)[:, None] == np.arange(n)))
    return found


def cubic_resize(a, attrs):
    rows, columns = filters(a["x"].shape, attrs)
    found = {"y": np.einsum("ph,qw,nhwc->npqc", rows, columns, a["x"])}
    return found | {"dx": np.einsum("ph,qw,npqc->nhwc", rows, columns, a["dy"])} if "dy" in a else found


BORDERS = ("constant", "edge", "reflect", "wrap")


def border(a, attrs):
    sides = ((0, 0), *attrs["sides"])
    if attrs["mode"]:
        places = np.pad(np.arange(a["x"].size).reshape(a["x"].shape), sides, BORDERS[attrs["mode"]])
        dx = np.bincount(places.ravel(), a["dy"].ravel(), a["x"].size)
        return {"y": a["x"].ravel()[places], "dx": dx.reshape(a["x"].shape)}
    part = tuple(slice(before, n - behind) for (before, behind), n in zip(sides, a["dy"].shape, strict=True))
    return {"y": np.pad(a["x"], sides, constant_values=attrs["value"]), "dx": a["dy"][part]}


def _axes(attrs):
    """The axes that `over` names."""
    return tuple(i for i, gone in enumerate(attrs["over"], start=1) if gone)


def sum_over(a, attrs):
    y = a["x"].sum(_axes(attrs), keepdims=True)
    share = y.size / a["x"].size if attrs["mean"] else 1.0
    return {"y": y * share, "dx": np.broadcast_to(a["dy"] * share, a["x"].shape)}


def norm_over(a, attrs):
    y = (a["x"] ** 2).sum(_axes(attrs), keepdims=True) ** 0.5
    return {"y": y, "dx": np.divide(a["x"], y) * a["dy"]}


def max_over(a, attrs):
    y = a["x"].max(_axes(attrs), keepdims=True)
    return {"y": y, "dx": (a["x"] == y) * a["dy"]}


def global_avg_pool(a, attrs):
    n, h, w, c = a["x"].shape
    return {"y": a["x"].reshape(n, -1, c).mean(1), "dx": np.tile((a["dy"] / (h * w))[:, None, None], (1, h, w, 1))}


def frozen_batch_norm(a, attrs):
    root = np.sqrt(a["running_var"] + attrs.get("eps", 1e-5))
    normal = (a["x"] - a["running_mean"]) / root
    found = {"y": normal * a["gamma"] + a["beta"], "dx": a["dy"] * a["gamma"] / root}
    return found | {"dgamma": (a["dy"] * normal).sum((0, 1, 2)), "dbeta": a["dy"].sum((0, 1, 2))}


def frozen_batch_norm_scale(a, attrs):
    root = np.sqrt(a["running_var"] + attrs.get("eps", 1e-5))
    terms = (np.abs(a["x"]) + np.abs(a["running_mean"])) / root
    return {
        "y": terms * np.abs(a["gamma"]) + np.abs(a["beta"]),
        "dgamma": (np.abs(a["dy"]) * terms).sum((0, 1, 2)),
        "dbeta": np.abs(a["dy"]).sum((0, 1, 2)),
    }


def batch_norm(a, attrs):
    axes, dy = (0, 1, 2), a["dy"]
    root = np.sqrt(a["x"].var(axes) + attrs.get("eps", 1e-5))
    centred = a["x"] - a["x"].mean(axes)
    normal = centred / root
    g = dy * a["gamma"]
    m = dy.size // dy.shape[3]
    dvar = -(g * centred).sum(axes) / (2 * root**3)  # the chain rule through the variance and the mean, one by one
    dmean = -(g / root).sum(axes) - dvar * 2 * centred.sum(axes) / m
    return {
        "y": normal * a["gamma"] + a["beta"],
        "mean": a["x"].mean(axes),
        "var": a["x"].var(axes),
        "unbiased_var": a["x"].var(axes, ddof=1),
        "inv_std": 1 / root,
        "dx": g / root + dvar * 2 * centred / m + dmean / m,
        "dgamma": (dy * normal).sum(axes),
        "dbeta": dy.sum(axes),
    }


def batch_norm_scale(a, attrs):
    """Absolute values of every term of batch_norm's formulas."""
    axes, dy, gamma = (0, 1, 2), np.abs(a["dy"]), np.abs(a["gamma"])
    mean = np.abs(a["x"]).mean(axes)
    root = np.sqrt(a["x"].var(axes) + attrs.get("eps", 1e-5))
    normal = (np.abs(a["x"]) + mean) / root
    dgamma, dbeta = (dy * normal).sum(axes), dy.sum(axes)
    m = dy.size // dy.shape[3]
    return {
        "y": normal * gamma + np.abs(a["beta"]),
        "mean": mean,
        "var": ((np.abs(a["x"]) + mean) ** 2).mean(axes),
        "unbiased_var": ((np.abs(a["x"]) + mean) ** 2).mean(axes) * 2,
        "dx": gamma / root * (dy + (dbeta + normal * dgamma) / m),
        "dgamma": dgamma,
        "dbeta": dbeta,
    }


def group_norm(a, attrs):
    (n, h, w, _), groups = a["x"].shape, attrs["groups"]
    x = a["x"].reshape(n, h * w, groups, -1)
    root = np.sqrt(x.var((1, 3), keepdims=True) + attrs["eps"])
    normal = (x - x.mean((1, 3), keepdims=True)) / root
    found = {"y": normal.reshape(a["x"].shape) * a["gamma"] + a["beta"], "inv_std": 1 / root.reshape(n, groups)}
    if "dy" in a:
        given = (a["dy"] * a["gamma"]).reshape(x.shape)
        means = given.mean((1, 3), keepdims=True) + normal * (given * normal).mean((1, 3), keepdims=True)
        found |= {"dx": ((given - means) / root).reshape(a["x"].shape), "dbeta": a["dy"].sum((0, 1, 2))}
        found["dgamma"] = (a["dy"] * normal.reshape(a["x"].shape)).sum((0, 1, 2))
    return found


def softmax_cross_entropy(a, attrs):
    x, smoothing = a["x"], attrs.get("label_smoothing", 0.0)
    classes = x.shape[1]
    weights = a.get("class_weights", np.ones(classes))
    lse = np.logaddexp.reduce(x, axis=1)
    hot = np.eye(classes)[a["labels"]]
    target = ((1 - smoothing) * hot + smoothing / classes) * weights
    losses = (target * (lse[:, None] - x)).sum(1)
    total = (hot * weights).sum()
    p = np.exp(x - lse[:, None])
    dx = (p * target.sum(1, keepdims=True) - target) / total
    return {"lse": lse, "losses": losses, "total_weight": [total], "loss": [losses.sum() / total], "dx": dx}


def channel_slice(a, attrs):
    start, end = attrs["start"], attrs["start"] + attrs["count"]
    dx = np.zeros_like(a["x"])
    dx[..., start:end] = a["dy"]
    return {"y": a["x"][..., start:end], "dx": dx}


def channel_shuffle(a, attrs):
    *rows, c = a["x"].shape
    groups = attrs["groups"]
    dealt = a["x"].reshape(*rows, groups, c // groups).swapaxes(-1, -2)
    back = a["dy"].reshape(*rows, c // groups, groups).swapaxes(-1, -2)
    return {"y": dealt.reshape(*rows, c), "dx": back.reshape(*rows, c)}


def rearrange(a, attrs):
    n = len(a["x"])
    places = np.zeros(1, int)
    for length, step in zip(attrs["lengths"], attrs["steps"], strict=True):
        places = np.add.outer(places, step * np.arange(length)).reshape(-1)
    y, dx = a["x"].reshape(n, -1)[:, places], np.zeros((n, len(places)))
    dx[:, places] = a["dy"].reshape(n, -1)
    return {"y": y.reshape(n, *attrs["size"], -1), "dx": dx.reshape(a["x"].shape)}


def layer_norm(a, attrs):
    x, dy = a["x"], a["dy"]
    rows = tuple(range(x.ndim - 1))
    root = np.sqrt(x.var(-1, keepdims=True) + attrs.get("eps", 1e-5))
    centred = x - x.mean(-1, keepdims=True)
    normal, g = centred / root, dy * a["gamma"]
    dvar = -(g * centred).sum(-1, keepdims=True) / (2 * root**3)  # the chain rule through the variance and the mean
    dmean = -(g / root).sum(-1, keepdims=True) - dvar * 2 * centred.mean(-1, keepdims=True)
    return {
        "y": normal * a["gamma"] + a["beta"],
        "mean": x.mean(-1),
        "inv_std": 1 / root[..., 0],
        "dx": g / root + (dvar * 2 * centred + dmean) / x.shape[-1],
        "dgamma": (dy * normal).sum(rows),
        "dbeta": dy.sum(rows),
    }


def layer_norm_scale(a, attrs):
    """Absolute values of every term of layer_norm's formulas."""
    x, dy = np.abs(a["x"]), np.abs(a["dy"])
    rows = tuple(range(x.ndim - 1))
    root = np.sqrt(a["x"].var(-1, keepdims=True) + attrs.get("eps", 1e-5))
    normal, g = (x + x.mean(-1, keepdims=True)) / root, dy * np.abs(a["gamma"])
    along = (g.sum(-1, keepdims=True) + normal * (g * normal).sum(-1, keepdims=True)) / x.shape[-1]
    return {
        "y": normal * np.abs(a["gamma"]) + np.abs(a["beta"]),
        "mean": x.mean(-1),
        "inv_std": 1 / root[..., 0] * np.maximum(1, (x**2).mean(-1) / root[..., 0] ** 2),
        "dx": (g + along) / root,
        "dgamma": (dy * normal).sum(rows),
        "dbeta": dy.sum(rows),
    }


def softmax(a, attrs):
    e = np.exp(a["x"] - a["x"].max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    jacobian = np.einsum("...i,ij->...ij", y, np.eye(y.shape[-1])) - np.einsum("...i,...j->...ij", y, y)
    return {"y": y, "dx": np.einsum("...ij,...j->...i", jacobian, a["dy"])}


def matmul(a, attrs):
    b = a["b"].swapaxes(-1, -2) if attrs["transposed"] else a["b"]
    db = np.einsum("ngpd,ngpk->ngdk", a["a"], a["dy"])
    return {
        "y": np.einsum("ngpd,ngdk->ngpk", a["a"], b),
        "da": np.einsum("ngpk,ngdk->ngpd", a["dy"], b),
        "db": db.swapaxes(-1, -2) if attrs["transposed"] else db,
    }


def attach(a, attrs):
    w = np.broadcast_to(a["w"], (len(a["x"]), *a["w"].shape))
    r = w.shape[-1]
    if attrs["after"]:
        parts, dx, dw = (a["x"], w), a["dy"][..., :-r], a["dy"][..., -r:]
    else:
        parts, dx, dw = (w, a["x"]), a["dy"][..., r:], a["dy"][..., :r]
    return {"y": np.concatenate(parts, -1), "dx": dx, "dw": dw.sum(0)}


def mse(a, attrs):
    d = a["x"] - a["target"]
    return {"loss": [np.mean(d**2)], "dx": 2 * d / d.size}


def philox(c0, c1, key):
    """Philox 2×32-10 on Python integers, as the paper writes it: two words of a counter and a key."""
    for i in range(10):
        high, low = divmod(0xD256D193 * c0, 2**32)
        c0, c1 = high ^ ((key + i * 0x9E3779B9) % 2**32) ^ c1, low
    return c0, c1


def words(seed, stream, step, index):
    key = philox(seed % 2**32, stream, seed >> 32)[0]
    return philox(index, step, key)


def dropout(a, attrs):
    rate, n = attrs["rate"], a["x"].size
    draws = [words(int(a["seed"][0]), attrs["stream"], int(a["step"][0]), i)[0] / 2**32 for i in range(n)]
    kept = (np.array(draws) >= round(rate * 2**24) / 2**24).reshape(a["x"].shape)
    return {"y": kept * a["x"] / (1 - rate), "dx": kept * a["dy"] / (1 - rate)}
