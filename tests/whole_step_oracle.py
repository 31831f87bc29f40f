"""One training step of a net in whole numbers once more, in int64 and float64 NumPy: no kernel or pass of ours.

Convolutions, a linear classifier in 32 bits, sums, the mean and dequantization, as `formats.int8_whole` makes them.
"""

import numpy as np
from quantized_oracles import requantized

import oracles

ROUNDING, UPDATE = 1 << 21, 1 << 22  # where the streams of both begin
times = np.vectorize(requantized, otypes=[np.int64])
drawn = np.vectorize(oracles.words, otypes=[np.int64, np.int64])


class Whole:
    """A net with its whole numbers, and what a step of it reads and writes."""

    def __init__(self, graph, weights, seed, step):
        """step: the number of the update, from 1."""
        self.graph, self.seed, self.step = graph, seed, step
        self.w = {name: v.astype(np.int64) if v.dtype.kind == "i" else v.astype(float) for name, v in weights.items()}
        self.maps, self.gradients = {}, {}

    def param(self, node, local):
        return self.w[node.params[local]]

    def attrs(self, node):
        return {**node.operator.defaults, **node.attrs}

    def forward(self, x):
        """Every map; the last one is of real numbers."""
        self.maps["input"] = x.astype(np.int64)
        for node in self.graph.nodes:
            a, given = self.attrs(node), [self.maps[t] for t in node.inputs]
            x = given[0]
            if node.op == "quantized_conv2d":
                total = self.sums(node, x - a["x_zero"]) + self.param(node, "b")
                y = times(total, self.param(node, "multiplier"), self.param(node, "shift"), a["twice"])
                y = (y + a["y_zero"]).clip(a["low"], a["high"])
            elif node.op == "quantized_add":
                parts = [
                    times((v - a[f"{n}_zero"]) << 20, a[f"{n}_multiplier"], a[f"{n}_shift"], a["twice"])
                    for n, v in zip("ab", given, strict=True)
                ]
                y = times(sum(parts), a["y_multiplier"], a["y_shift"], a["twice"]) + a["y_zero"]
                y = y.clip(a["low"], a["high"])
            elif node.op == "quantized_global_avg_pool":
                total = (x - a["x_zero"]).sum((1, 2))
                y = times(total, a["multiplier"], a["shift"], a["twice"]) + a["y_zero"]
                y = y.clip(a["low"], a["high"])
            elif node.op == "quantized_linear":
                y = (x - a["x_zero"]) @ self.param(node, "w") + self.param(node, "b")
                self.maps[f"{node.name}.sums"] = y
            elif node.op == "dequantize":
                y = self.param(node, "scale") * (x - a["zero"])
            else:
                raise AssertionError(node.op)
            self.maps[node.name] = y
        return y

    def sums(self, node, x, **more):
        """What the convolution of `oracles` finds for x, in int64; with dy its gradients too."""
        a = self.attrs(node)
        geometry = {"stride": a["stride"], "dilation": a["dilation"], "pad": a["pad"]}
        found = oracles.conv2d({"x": x, "w": self.param(node, "w"), **more}, geometry)
        return found if more else np.rint(found["y"]).astype(np.int64)

    def inner(self, node):
        """Where a map passes a gradient on."""
        a, y = self.attrs(node), self.maps[node.name]
        return (y > a["low"]) & (y < a["high"])

    def rounded(self, node, values, word):
        """Values (N, …) as whole numbers of 8 bits, and the scale of each sample."""
        most = np.abs(values).reshape(len(values), -1).max(1)
        scale = np.where(most > 0, most / 127, 1.0).reshape(-1, *[1] * (values.ndim - 1))
        ratio = values / scale
        stream = ROUNDING + self.graph.place(node.name)
        words = drawn(self.seed, stream, self.step, np.arange(values.size))[word].reshape(values.shape)
        up = words < np.floor((ratio - np.floor(ratio)) * 2.0**32)
        return (np.floor(ratio) + up).clip(-127, 127).astype(np.int64), scale

    def backward(self, labels, trained):
        """Gradients of the real numbers that trained parameters stand for, by their names; of all of a weight."""
        z = self.maps[self.graph.output]
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(p)), labels] -= 1
        arriving = {self.graph.output: p / len(p)}
        self.errors = {}
        for node in reversed(self.graph.nodes):
            a, name = self.attrs(node), node.inputs[0]
            out = next((t for t in node.outputs if t in arriving), None)
            dy = arriving.pop(out)
            if node.op == "dequantize":
                dx = [self.param(node, "scale") * dy]
            elif node.op == "quantized_global_avg_pool":
                x, slope = self.maps[name], a["multiplier"] * 2.0 ** (a["shift"] - 31)
                dx = [np.broadcast_to((dy * self.inner(node) * slope)[:, None, None], x.shape)]
            elif node.op == "quantized_add":
                dy = dy * self.inner(node) * a["y_multiplier"] * 2.0 ** (a["y_shift"] - 31) * 2**20
                dx = [dy * a[f"{n}_multiplier"] * 2.0 ** (a[f"{n}_shift"] - 31) for n in "ab"]
            else:
                if node.op == "quantized_conv2d":
                    dy = (
                        dy * self.inner(node) * self.param(node, "multiplier") * 2.0 ** (self.param(node, "shift") - 31)
                    )
                dx = [self.through(node, dy, trained)]
            for tensor, gradient in zip(node.inputs, dx, strict=True):
                arriving[tensor] = arriving.get(tensor, 0) + gradient
        return self.gradients

    def through(self, node, dsum, trained):
        """The gradient of a layer's whole input from that of its sums; it notes those of its parameters."""
        a, w, x = self.attrs(node), self.param(node, "w"), self.maps[node.inputs[0]]
        w_scale, b_scale = (self.w[self.graph.parameters[node.params[n]].quantized.scale] for n in "wb")
        error, scale = self.rounded(node, dsum, 0)
        w_error, own = self.rounded(node, dsum / w_scale, 1)
        self.errors[node.name] = error, w_error
        linear = node.op == "quantized_linear"
        dw, dx = 0, []
        for n in range(len(x)):
            one = x[n : n + 1] - a["x_zero"]
            if linear:
                dw = dw + own[n] * (one.T @ w_error[n : n + 1])
                dx.append(scale[n] * (error[n : n + 1] @ w.T))
                continue
            dw = dw + own[n] * self.sums(node, one, dy=w_error[n : n + 1])["dw"]
            dx.append(scale[n] * self.sums(node, one, dy=error[n : n + 1])["dx"])
        db = (own * w_error).sum(tuple(range(w_error.ndim - 1))) * w_scale / b_scale
        for local, gradient in (("w", dw), ("b", db)):
            if node.params[local] in trained:
                self.gradients[node.params[local]] = gradient
        return np.concatenate(dx)

    def update(self, name, gradient, lr, scaled, of=None):
        """A step of a parameter. of: which elements gradient (E,) is of, in their order; default all."""
        parameter = self.graph.parameters[name]
        scale = self.w[parameter.quantized.scale]
        whole = self.w[name].reshape(-1)
        of = np.arange(whole.size) if of is None else of
        s = scale[of % len(scale)]
        move = lr * (gradient.reshape(-1) / s if scaled else gradient.reshape(-1) * s)
        stream = UPDATE + list(self.graph.parameters).index(name)
        words = drawn(self.seed, stream, self.step, np.arange(of.size))[0]
        low = np.floor(move)
        steps = (low + (words < np.floor((move - low) * 2.0**32))).clip(-(2.0**33), 2.0**33).astype(np.int64)
        node = next(node for node in self.graph.nodes if name in node.params.values())
        w = self.graph.parameters[node.params["w"]].shape
        most = 127 if parameter.dtype == np.int8 else 2**31 - 1 - int(np.prod(w[:-1])) * 127 * 255
        whole[of] = (whole[of] - steps).clip(-most, most)
        self.w[name] = whole.reshape(self.w[name].shape)
