"""A step by two forward passes and an update, without a backward pass: for the tests of what a strategy can be.

With z from the counter-based generator, each weight moves by ±scale·z, the two losses tell the derivative along z, and
w ← w − lr·(loss₊ − loss₋) / (2·scale)·z. Every perturbation is drawn anew; nothing of the size of the weights is kept.
"""

from dataclasses import dataclass, field

import numpy as np

from refimpl.kernels.passes import declare
from refimpl.kernels.random import words
from refimpl.methods.optim import SGD
from refimpl.methods.strategy import Strategy, Turn

STREAM = 900
SHAPES = {"w": "E*", "seed": "int64: 1", "step": "int64: 1", "move": "1", "slope": "1", "lr": "1"}


@declare(SHAPES, items="E", writes="w", inplace="w")
def shift(t, w, move, seed, step, stream=0):
    """w + move·z, z = ±1 for each element."""
    draw, _ = words(seed[0], stream, step[0], t)
    w[t] = w[t] + move[0] if draw & 1 else w[t] - move[0]


@declare(SHAPES, items="E", writes="w", inplace="w")
def step(t, w, slope, lr, seed, step, stream=0):
    """w − lr·slope·z."""
    draw, _ = words(seed[0], stream, step[0], t)
    w[t] = w[t] - lr[0] * slope[0] if draw & 1 else w[t] + lr[0] * slope[0]


@dataclass(frozen=True)
class TwoPoints(Strategy):
    """The strategy; scale: how far each weight moves."""

    optimizer: SGD = field(default_factory=lambda: SGD(lr=0.1))
    scale: float = 2.0**-8

    def derive(self, composer):
        composer = composer.sharing()
        learner = composer.net()
        trained = {name: b for name, b in learner.parameters.items() if b.region == "state"}
        common = {"seed": learner.seed_write(), "step": learner.count_write()}
        move, slope = (learner.scalar(name, learner.dtype, lambda *_: 0.0) for name in ("move", "slope"))
        rate = learner.scalar("lr", learner.dtype, lambda now: self.optimizer.rate(now.made, now.planned))
        for section in ("plus", "minus", "back", "learn"):
            learner.begin(section)
            for i, (name, w) in enumerate(trained.items()):
                given = {"slope": slope, "lr": rate} if section == "learn" else {"move": move}
                passed = step if section == "learn" else shift
                learner.emit(name, passed, {"w": w} | common | given, {"stream": STREAM + i})
        first, second = (
            composer.net(False, f"{name}.", f"{name}.look", parameters=learner.parameters).build(loss=True)
            for name in ("first", "second")
        )
        plus, minus, back, learn = map(learner.emitted, ("plus", "minus", "back", "learn"))
        return composer.joined(learner.held(), plus, first, minus, second, back, learn)

    def run(self, trainer, x, y, total, everything=False):
        runner, n, losses = trainer.runner, len(y), []
        trainer.begin("", n, total)
        for section, move, net in (("plus", 1, "first."), ("minus", -2, "second."), ("back", 1, None)):
            runner.host("move", n)[0] = move * self.scale
            runner.run(section, n)
            if net:
                trainer.fill(runner, x)
                trainer.put(y, net)
                runner.run(f"{net}look", n)
                losses.append(float(runner.host(f"{net}loss", n)[0]))
        runner.host("slope", n)[0] = (losses[0] - losses[1]) / (2 * self.scale)
        runner.run("learn", n)
        trainer.updated()
        return sum(losses) / 2

    def schedule(self, program, n):
        return tuple(Turn(s, n) for s in program.sections)


def signs_of(shapes, seed, count):
    """z of each weight (name → shape), drawn in plain Python: name → array of ±1."""
    found = {}
    for i, (name, shape) in enumerate(shapes.items()):
        draws = [words(seed, STREAM + i, count, t)[0] & 1 for t in range(int(np.prod(shape)))]
        found[name] = np.where(draws, 1.0, -1.0).reshape(shape)
    return found
