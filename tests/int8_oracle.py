"""The int8 microcontroller nets once more, straight from a file's structure: int64 NumPy, no kernel or loader of ours.

Sums are of 64 bits, padding is written out, factors are fractions, and every map is kept under the name that our net
gives it.
"""

import json
import math
from fractions import Fraction

import numpy as np

SIX = 6


def pair(factor):
    """A factor as m·2^-right, m of 31 bits, the nearest, a half upwards."""
    exact, right = Fraction(factor), 31
    while exact >= 1:
        exact, right = exact / 2, right - 1
    while exact < Fraction(1, 2):
        exact, right = exact * 2, right + 1
    m = math.floor(exact * 2**31 + Fraction(1, 2))
    return (m // 2, right - 1) if m == 2**31 else (m, right)


def times(values, factors):
    """values·factors of the last axis, rounded once, a half upwards; values int64, of up to 50 bits."""
    found = np.empty(values.shape, np.int64)
    for k, factor in enumerate(factors):
        m, right = pair(factor)
        assert right > 20
        high, low = np.divmod(values[..., k], 2**20)  # two products, so that those of sums beyond 32 bits fit, too
        found[..., k] = (high * m + (low * m + 2 ** (right - 1)) // 2**20) // 2 ** (right - 20)
    return found


def convolved(q, zero, weight, bias, stride, groups):
    """Sums (N, P, Q, K) of maps q (N, H, W, C) padded with the zero point; weight (K, C/G, R, S)."""
    outputs, depth, rows, columns = weight.shape
    n, height, width, _ = q.shape
    wide = np.full((n, height + rows // 2 * 2, width + columns // 2 * 2, q.shape[3]), zero, np.int64)
    wide[:, rows // 2 : rows // 2 + height, columns // 2 : columns // 2 + width] = q
    out = [(wide.shape[1] - rows) // stride + 1, (wide.shape[2] - columns) // stride + 1]
    total = np.zeros((n, *out, outputs), np.int64) + bias.astype(np.int64)
    each = outputs // groups
    for r in range(rows):
        for s in range(columns):
            tap = wide[:, r::stride, s::stride][:, : out[0], : out[1]] - zero
            if groups == outputs == q.shape[3]:
                total += tap * weight[:, 0, r, s].astype(np.int64)
                continue
            for g in range(groups):
                part = tap[..., g * depth : (g + 1) * depth]
                own = slice(g * each, (g + 1) * each)
                total[..., own] += part @ weight[own, :, r, s].T.astype(np.int64)
    return total


def maps(arrays, pixels):
    """Every int8 map by the name of our node, the sums of the classifier, and the logits in real numbers.

    arrays: of a file; pixels: (N, H, W, 3) uint8.
    """
    structure, found = json.loads(str(arrays["structure"])), {}

    def of(entry, key):
        return arrays[entry["params"][key]["array"]]

    def conv(name, q, entry, rectified):
        p = entry["params"]
        sums = convolved(q, p["x_zero"], of(entry, "weight"), of(entry, "bias"), entry["stride"], entry["groups"])
        factors = [p["x_scale"] * float(s) / p["y_scale"] for s in of(entry, "w_scales")]
        high = min(127, p["y_zero"] + round(SIX / p["y_scale"])) if rectified else 127
        found[name] = (times(sums, factors) + p["y_zero"]).clip(p["y_zero"] if rectified else -128, high)
        return found[name]

    def added(name, q, last, shortcut, p):
        """TensorFlow Lite's ADD: both branches with 20 more bits, of twice the larger scale."""
        scales, zeros = (last["y_scale"], p["x_scale"]), (last["y_zero"], p["x_zero"])
        common = 2 * max(scales)
        parts = [
            times((v - zero).reshape(-1, 1) * 2**20, [scale / common])
            for v, scale, zero in zip((q, shortcut), scales, zeros, strict=True)
        ]
        total = times(sum(parts), [common / (2**20 * p["y_scale"])]) + p["y_zero"]
        found[name] = total.reshape(q.shape).clip(-128, 127)
        return found[name]

    q = conv("stem", pixels.astype(np.int64) - 128, structure["first_conv"], True)
    for i, block in enumerate(structure["blocks"], start=1):
        shortcut = q
        if block["pointwise1"]:
            q = conv(f"block{i}.expand", q, block["pointwise1"], True)
        q = conv(f"block{i}.depthwise", q, block["depthwise"], True)
        q = conv(f"block{i}.project", q, block["pointwise2"], False)
        if block["residual"]:
            last = block["pointwise2"]["params"]
            q = added(f"block{i}.add", q, last, shortcut, block["residual"]["params"])
    p = structure["classifier"]["params"]
    count = q.shape[1] * q.shape[2]
    q = (times((q - p["x_zero"]).sum((1, 2)), [Fraction(1, count)] * q.shape[3]) + p["x_zero"]).clip(-128, 127)
    found["mean"] = q
    sums = convolved(q[:, None, None], p["x_zero"], *(of(structure["classifier"], a) for a in ("weight", "bias")), 1, 1)
    found["fc.sums"] = sums[:, 0, 0]
    found["fc.real"] = found["fc.sums"] * (p["x_scale"] * of(structure["classifier"], "w_scales").astype(np.float64))
    return found
