"""A step of forward gradients on a net of whole numbers, in Python's own integers and fractions."""

import math
from fractions import Fraction

import numpy as np
import quantized_oracles as oracle
from quantized_oracles import clip, half_up

from refimpl.kernels import random


def in_31_bits(factor: float) -> Fraction:
    """The fraction of 31 bits and a power of two that is nearest to a factor."""
    part, power = math.frexp(factor)
    return Fraction(math.floor(part * 2**31 + 0.5), 2**31) * Fraction(2) ** power


class Oracle:
    """The weights of a run and its steps. names: of the parameters that train."""

    def __init__(self, graph, names, seed, m, epsilon, lr, z_max=3.5, signs=False, mean8=False):
        self.graph, self.names, self.seed, self.m, self.epsilon, self.lr = graph, names, seed, m, epsilon, lr
        self.signs, self.mean8, self.count = signs, mean8, 0
        self.unit, self.one = z_max / 127, math.floor(127 / z_max + 0.5)
        self.w = {name: graph.weights[name].astype(object) for name in names}
        self.places = {name: i for i, name in enumerate(graph.parameters)}
        self.ends = {name: self.ends_of(name) for name in names}
        self.met_ends = 0  # weights that were cut off

    def ends_of(self, name):
        """The least and the largest number of a parameter: those of int16, or so few that no sum leaves int32."""
        node, local = next((node, a) for node in self.graph.nodes for a, p in node.params.items() if p == name)
        if local == "b":
            return -(2**28), 2**28
        most = max(127 - node.attrs["x_zero"], 128 + node.attrs["x_zero"])
        end = (2**31 - 1 - 2**28) // (math.prod(self.graph.weights[name].shape[:-1]) * most)
        dtype = np.iinfo(self.graph.weights[name].dtype)
        return max(-end, dtype.min), min(end, dtype.max)

    def scale(self, name):
        """Δw of each element of a parameter, whose last axis is that of the channels."""
        scale = self.graph.weights[self.graph.parameters[name].quantized.scale]
        return np.broadcast_to(scale, self.w[name].shape).astype(float)

    def z(self, name, draw):
        """The whole z of a parameter."""
        w = self.w[name]
        first, second = random.words_array(self.seed, random.PERTURBATION + 3 * self.places[name], draw, w.size)
        if self.signs:
            return np.array([self.one if int(v) % 2 else -self.one for v in first], object).reshape(w.shape)
        step = in_31_bits(1 / (self.unit * math.sqrt(43690)))
        sums = [
            sum(list(int(a).to_bytes(4)) + list(int(b).to_bytes(4))) - 1020 for a, b in zip(first, second, strict=True)
        ]
        return np.array([clip(half_up(v * step), -127, 127) for v in sums], object).reshape(w.shape)

    def cut(self, name, value):
        """A weight, not beyond the ends of its dtype."""
        found = clip(value, *self.ends[name])
        self.met_ends += found != value
        return found

    def moved(self, name, draw, sign):
        """Δw·Δz·(w·1_q ± ε_q·z), requantized by Δw."""
        epsilon = np.vectorize(lambda scale: math.floor(self.epsilon / scale + 0.5), otypes=[object])(self.scale(name))
        unit = in_31_bits(self.unit)
        total = self.w[name] * self.one + sign * epsilon * self.z(name, draw)
        return np.vectorize(lambda v: self.cut(name, half_up(v * unit)), otypes=[object])(total)

    def loss(self, w, x, y):
        """The mean loss, float64, on real numbers of the logits."""
        g = self.graph
        held, g.weights = g.weights, g.weights | {name: a.astype(held_dtype(g, name)) for name, a in w.items()}
        output = np.asarray(oracle.run(g, x)[g.output], np.float64)
        g.weights = held
        output -= output.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(output).sum(1)) - output[np.arange(len(y)), y]))

    def step(self, x, y, share=1.0):
        """One step at a share of the learning rate; its losses."""
        draws, losses, signs = range(self.count * self.m, (self.count + 1) * self.m), [], []
        for draw in draws:
            up, down = (self.loss({n: self.moved(n, draw, s) for n in self.names}, x, y) for s in (1, -1))
            assert up == down or abs(up - down) > 1e-6  # else float32 may see another sign
            losses += [up, down]
            signs.append((up > down) - (up < down))
        for name in self.names:
            factor = 2.0**31 * (self.lr * share * self.unit / (1 if self.mean8 else self.m))
            rate = np.vectorize(lambda scale, f=factor: math.floor(f / scale + 0.5), otypes=[object])(self.scale(name))
            g = sum(s * self.z(name, draw) for s, draw in zip(signs, draws, strict=True))
            if self.mean8:
                g = np.vectorize(lambda v: clip(half_up(Fraction(v, self.m)), -127, 127), otypes=[object])(g)
            step = np.vectorize(lambda v, r: half_up(Fraction(v * r, 2**31)), otypes=[object])(g, rate)
            self.w[name] = np.vectorize(lambda v, name=name: self.cut(name, v), otypes=[object])(self.w[name] - step)
        self.count += 1
        return losses


def held_dtype(graph, name):
    """The dtype of a parameter."""
    return graph.parameters[name].dtype
