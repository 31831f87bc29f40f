"""A step of forward gradients in plain NumPy, float64, of one small net: no kernel, no Program, no backward pass.

z of a parameter is the sum of the eight bytes of two random words less its mean, over its deviation.
"""

import numpy as np

import refimpl as ri
from refimpl.kernels import random

CLASSES = 3
TRAINED = ("c1.w", "c2.w", "fc.w", "fc.b")
SIZES = (("c1", 4), ("c2", 5))


def net(batch_norm=True) -> ri.Graph:
    """Two 1×1 convolutions, the first with a frozen norm behind it, and a classifier of their means."""
    g = ri.Graph("small", (3, 2), 2)
    x = g.conv2d("c1", "input", 4, 1, bias=False)
    x = g.relu("r1", g.batch_norm("n1", x) if batch_norm else x)
    x = g.relu("r2", g.conv2d("c2", x, 5, 1, bias=False))
    g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
    return g


def data(n, seed=0):
    """Inputs (n, 3, 2, 2) and labels (n,)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3, 2, 2)), rng.integers(0, CLASSES, n)


def passed(w, x, y):
    """Everything that a forward pass makes."""
    a = x @ w["c1.w"][0, 0]
    a = (a - w["n1.running_mean"]) / np.sqrt(w["n1.running_var"] + 1e-5) * w["n1.gamma"] + w["n1.beta"]
    a = np.maximum(a, 0)
    b = a @ w["c2.w"][0, 0]
    features = np.maximum(b, 0).mean((1, 2))
    z = features @ w["fc.w"] + w["fc.b"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return {"x": x, "a": a, "b": b, "features": features, "p": p, "loss": -np.mean(np.log(p[np.arange(len(y)), y]))}


def loss(w, x, y):
    """The mean loss."""
    return passed(w, x, y)["loss"]


def gradients(w, x, y):
    """Of what trains, by the chain rule."""
    f, n = passed(w, x, y), len(y)
    dz = (f["p"] - np.eye(CLASSES)[y]) / n
    db = (dz @ w["fc.w"].T)[:, None, None] / 6 * (f["b"] > 0)
    da = (db @ w["c2.w"][0, 0].T) * (f["a"] > 0) * w["n1.gamma"] / np.sqrt(w["n1.running_var"] + 1e-5)
    maps = {"c1.w": np.einsum("nhwc,nhwk->ck", f["x"], da), "c2.w": np.einsum("nhwc,nhwk->ck", f["a"], db)}
    return {"fc.w": f["features"].T @ dz, "fc.b": dz.sum(0)} | {name: g[None, None] for name, g in maps.items()}


def normal(seed, stream, draw, shape, signs=False):
    """z of an array."""
    first, second = random.words_array(seed, stream, draw, int(np.prod(shape)))
    if signs:
        return np.where(first & 1, 1.0, -1.0).reshape(shape)
    whole = sum((word >> 8 * i) & 255 for word in (first, second) for i in range(4)) - 1020
    return whole.reshape(shape) / np.sqrt(8 * (256**2 - 1) / 12)


class Oracle:
    """The weights of a run, what it remembers, and its steps."""

    def __init__(self, method: ri.ForwardGradient, weights, seed, names=TRAINED):
        self.method, self.seed, self.names, self.count = method, seed, names, 0
        self.w = {name: np.array(a, np.float64) for name, a in weights.items()}
        self.places = {name: i for i, name in enumerate(weights)}
        back = {None: (), 0: ("fc.w", "fc.b"), 1: ("c2.w", "fc.w", "fc.b")}[method.backprop_last]
        self.back, self.moved = back, [name for name in names if name not in back]
        self.guide = {name: np.zeros_like(self.w[name]) for name in self.moved}
        self.state = {name: (np.zeros_like(self.w[name]), np.zeros_like(self.w[name])) for name in names}

    def z(self, name, draw):
        """z of a parameter, before a mask."""
        s, shape, signs = random.PERTURBATION + 3 * self.places[name], self.w[name].shape, None
        signs = self.method.distribution == "signs"
        n = normal(self.seed, s, draw, shape, signs)
        if self.method.beta == 1:
            return n
        beta, alpha = self.method.beta if self.count else 1.0, self.method.alpha
        z1 = np.sqrt(alpha) * n
        z2 = self.guide[name] + np.sqrt(1 - alpha) * normal(self.seed, s + 1, draw, shape, signs)
        return beta * z1 + (1 - beta) * z2

    def mask(self, name):
        """1 where a weight takes part."""
        method, w = self.method, self.w[name]
        if method.sparse == "magnitude":
            keep = max(1, round(method.share * w.size))
            return np.abs(w) >= np.sort(np.abs(w), None)[-keep]
        if method.sparse == "threshold":
            return np.abs(w) >= method.threshold
        if method.sparse == "random":
            s = random.PERTURBATION + 3 * self.places[name] + 2
            first, _ = random.words_array(self.seed, s, self.count + 1, w.size)
            return (first / 2.0**32 < method.share).reshape(w.shape)
        return np.ones(w.shape)

    def gradient(self, factors, draws):
        """Σ c·z of each parameter."""
        total = {}
        for name in self.moved:
            z = [self.z(name, draw) * self.mask(name) for draw in draws]
            scale = np.ones(len(z))
            if self.method.normalize == "tensor":
                norms = np.array([np.linalg.norm(one) for one in z])
                ratio = np.linalg.norm(self.w[name]) / np.where(norms > 0, norms, np.inf)
                scale = np.maximum(ratio, 1e-3)
            total[name] = sum(f * s * one for f, s, one in zip(factors, scale, z, strict=True))
        return total

    def factors(self, x, y, draws, above):
        """What the losses say of each draw, and the losses."""
        method, m = self.method, self.method.m

        def at(c, draw):
            moved = {n: self.w[n] + c * self.z(n, draw) * self.mask(n) + above.get(n, 0) for n in self.moved}
            return loss(self.w | moved, x, y)

        if method.estimator == "exact":
            moved = self.w | {n: self.w[n] + above.get(n, 0) for n in self.moved}
            dw = gradients(moved, x, y)
            slopes = [sum(np.sum(dw[n] * self.z(n, d) * self.mask(n)) for n in self.moved) for d in draws]
            return np.array(slopes) / m, [loss(moved, x, y)] * m
        if method.estimator == "one-sided":
            base, losses = at(0, draws[0]), np.array([at(method.epsilon, d) for d in draws])
            return (losses - base) / (m * losses.std()), [base, *losses]
        pairs = np.array([[at(method.epsilon, d), at(-method.epsilon, d)] for d in draws])
        difference = pairs[:, 0] - pairs[:, 1]
        c = np.sign(difference) / m if method.estimator == "sign" else difference / (2 * method.epsilon * m)
        return c, [*pairs.reshape(-1)]

    def step(self, x, y):
        """One step; its loss."""
        method, m = self.method, self.method.m
        first = self.count * m * (2 if method.sharpness else 1)
        draws = range(first, first + m)
        c, losses = self.factors(x, y, draws, {})
        if method.sharpness:
            above = self.gradient(method.sharpness * c, draws)
            draws = range(first + m, first + 2 * m)
            c, more = self.factors(x, y, draws, above)
            losses += more
        g = self.gradient(c, draws)
        if self.back:
            g |= {name: a for name, a in gradients(self.w, x, y).items() if name in self.back}
            losses = [loss(self.w, x, y)]
        if method.clip_norm is not None:
            norm = np.sqrt(sum(np.sum(a**2) for a in g.values()))
            g = {name: a * min(1, method.clip_norm / (norm + 1e-6)) for name, a in g.items()}
        guide = {name: self.z(name, draws[-1]) for name in self.moved} if method.beta < 1 else {}
        for name, a in g.items():
            self.update(name, a)
        self.guide |= guide
        self.count += 1
        return float(np.mean(losses))

    def update(self, name, g):
        """The optimizer on one parameter."""
        optimizer, (first, second) = self.method.optimizer, self.state[name]
        if isinstance(optimizer, ri.SGD):
            first = optimizer.momentum * first + g
            self.w[name] = self.w[name] - optimizer.lr * first
        else:
            (b1, b2), t = optimizer.betas, self.count + 1
            first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g * g
            change = first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + optimizer.eps)
            self.w[name] = self.w[name] - optimizer.lr * change
        self.state[name] = first, second
