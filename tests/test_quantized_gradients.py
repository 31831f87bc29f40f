"""Training of nets in whole numbers: gradients, rounding, scaling and whole steps against plain int64 NumPy."""

import json

import numpy as np
import pytest
from int8_oracle import maps  # noqa: F401 - the statement of the forward pass that the one here is held against
from whole_step_oracle import UPDATE, Whole, drawn

import oracles
import refimpl as ri
from costmodel import predict
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.kernels import random
from refimpl.methods import sparse_update_whole
from refimpl.ops import quantized_conv2d, quantized_linear, quantized_sgd
from validation.instruments import counting, measured
from validation.instruments.int8_files import int8_arrays

N, SIZE, SEED = 3, (16, 16), 5
BACKENDS = ("reference", "fast")
LR = 0.02


def arrays():
    found, structure = int8_arrays()
    return found | {"structure": np.array(json.dumps(structure))}


def net(classes=None):
    return whole_from_int8(arrays(), classes, SIZE)


def batch(graph, n=N, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, *SIZE, 3), np.int8), rng.integers(0, graph.shape(graph.output)[1], n)


def trainer(graph, plan, backend="fast", dtype=np.float64, n=N):
    return ri.Trainer(ri.compile(graph, plan, n, backend=backend, threads=2, dtype=dtype), SEED)


def plan(last="all", *rules, lr=LR, **settings):
    scaled = settings.pop("scaled", True)
    return ri.Plan(last, rules, ri.Backprop(ri.SGD(lr, scaled=scaled)), **settings)


PLANS = {
    "dense": plan(train_bias=True),
    "dense, unscaled": plan(train_bias=True, lr=1e4, scaled=False),
    "last two": plan(2),
    "biases": plan(bias_only=True),
    "sparse": plan("all", ri.SparseUpdate(0.3, fixed_first=0, fixed_last=0)),
}


def chosen_elements(w, block, kept, order):
    """The elements of w (R, S, C/G, K), by number, that a block of sparse update trains, in the order of its dw."""
    r, s, depth, k = w.shape
    groups = len(order) // depth
    width = k // groups
    numbers, found = np.arange(w.size).reshape(w.shape), []
    chosen = np.take(order, np.arange(block * kept, (block + 1) * kept), mode="wrap")
    for c in chosen:
        found.append(numbers[:, :, c % depth, c // depth * width : (c // depth + 1) * width])
    return np.stack(found, 2).reshape(-1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PLANS)
def test_whole_steps_are_those_of_a_plain_statement_to_the_bit(name, backend):
    """arXiv 2206.15472: forward, loss, backward and update of four steps, weights and errors as whole numbers."""
    graph, p = net(), PLANS[name]
    t = trainer(graph, p, backend)
    x, y = batch(graph)
    weights = {n: v.copy() for n, v in graph.weights.items()}
    names = set(t.program.step.gradients)
    moved = 0
    for step in range(4):
        t.train_step(x, y, 8)
        plain = Whole(graph, weights, SEED, step + 1)
        plain.forward(x)
        gradients = plain.backward(y, names)
        assert gradients.keys() == names
        for parameter, gradient in gradients.items():
            of = None
            if p.rules and parameter.endswith(".w") and parameter != "fc.w":
                w, scale = weights[parameter], weights[parameter.replace(".w", ".w_scale")]
                node = next(node for node in graph.nodes if parameter in node.params.values())
                channels = graph.shape(node.inputs[0])[3]
                square = np.square(w * scale.astype(float))
                groups = channels // w.shape[2]
                norms = square.reshape(-1, w.shape[2], groups, w.shape[3] // groups).sum((0, 3)).T.reshape(-1)
                kept = max(1, round(0.3 * channels))
                of = chosen_elements(w, step, kept, np.argsort(-norms, kind="stable"))
                gradient = gradient.reshape(-1)[of]
            plain.update(parameter, gradient, LR if p.step.optimizer.scaled else 1e4, p.step.optimizer.scaled, of)
        for parameter in names:
            now = t.parameters[parameter]
            assert np.array_equal(now, plain.w[parameter]), (step, parameter)
            moved += np.count_nonzero(now != weights[parameter])
            weights[parameter] = now.copy()
        for parameter in set(weights) - names:
            assert np.array_equal(t.parameters[parameter], weights[parameter]), parameter
    assert moved > 50


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_and_errors_of_every_layer_are_those_of_a_plain_statement(backend):
    graph = net()
    t = trainer(graph, PLANS["dense"], backend)
    x, y = batch(graph)
    t.fill(t.runner, x)
    t.put(y)
    for name, value in (("step", 1), ("seed", SEED)):
        t.runner.write(name, N, [value])
    t.runner.run("forward", N)
    t.runner.run("backward", N)
    plain = Whole(graph, graph.weights, SEED, 1)
    plain.forward(x)
    gradients = plain.backward(y, set(t.program.step.gradients))
    for name, buffer in t.program.step.gradients.items():
        found = t.backend.read(t.runner.array(buffer))
        assert np.abs(found - gradients[name].reshape(found.shape)).max() <= 1e-12 * np.abs(gradients[name]).max(), name
