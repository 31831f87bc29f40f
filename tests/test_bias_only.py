"""Bias-only training: what trains, what is kept, gradients against PyTorch, counts and memory as predicted."""

import copy
import re

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from checks import distance
from costmodel import predict
from refimpl.training.trainer import Trainer
from validation.instruments import measured
from validation.instruments.counting import count_call

BACKENDS = ("reference", "fast")
SIZES = {"mobilenet_v2": (64, 64), "resnet18": (64, 64), "efficientnet_lite0": (64, 64)}
BIASES = {"b", "beta"}
PLAIN = ri.Backprop(ri.SGD(lr=0.1))


def program(net, last="all", backend="reference", batch=4, **keywords):
    return ri.compile(NETS[net](), ri.Plan(last, bias_only=True, step=PLAIN), batch, backend=backend, **keywords)


def test_what_trains():
    trained = ri.Plan(bias_only=True).trained(NETS["depthwise"]())
    assert trained == {
        "stem.bn": ["beta"], "expand.bn": ["beta"], "dw.bn": ["beta"], "project.bn": ["beta"], "grouped": ["b"],
        "dilated": ["b"], "hidden": ["w", "b"], "fc": ["w", "b"],
    }  # fmt: skip
    assert ri.Plan(3, bias_only=True).trained(NETS["depthwise"]()).keys() == {
        "project.bn", "grouped", "dilated", "hidden", "fc"
    }  # fmt: skip
    assert ri.Plan(0, bias_only=True).trained(NETS["depthwise"]()).keys() == {"hidden", "fc"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last", ["all", 2])
@pytest.mark.parametrize("model", ri.models.MODELS)
def test_no_feature_map_is_kept_but_the_classifiers_input(model, last, backend):
    graph = ri.models.build(model, size=SIZES.get(model))
    p = ri.compile(graph, ri.Plan(last, bias_only=True, step=PLAIN), 2, backend=backend)
    linear_inputs = {c.arrays["x"].root for c in p.step if c.passed.operator == "linear" and "x" in c.arrays}
    kept = (
        {b for b in p.saved if b.batched and b.dtype.kind == "f"} - linear_inputs - {p.step.host_reads["output"].root}
    )
    assert {b.name for b in kept} == {"loss.lse"}  # a number a sample
    inputs = {c.arrays["x"].root for c in p.step if c.passed.operator == "conv2d" and "x" in c.arrays}
    assert not inputs & set(p.saved)
    assert {c.passed.name for c in p.step if c.passed.operator == "conv2d"} <= {"forward", "grad_x", "grad_b"}
    dense = ri.compile(graph, ri.Plan(last, step=PLAIN), 2, backend=backend)
    assert p.saved_bytes < dense.saved_bytes and p.state_bytes < dense.state_bytes


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-10), ("float32", 1e-3)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", ["lenet5", "resnet8", "mobilenet_v2"])
def test_a_step_is_that_of_pytorch(model, backend, dtype, bound):
    pytest.importorskip("torch")
    from test_whole_nets import BATCH, SIZES, net, ours, samples, theirs

    graph, module = net(model, dtype)
    x = samples(module, (BATCH, *SIZES[model], graph.channels), dtype, training=False)
    labels = np.random.default_rng(7).integers(0, 5, BATCH)
    before = copy.deepcopy(graph.weights)
    mine, after = ours(graph, ri.Plan(bias_only=True, step=PLAIN), x, labels, backend)
    expected, _, scales = theirs(graph, module, x, labels, training=False)
    classifier = {p for n in graph.nodes if n.op == "linear" for p in n.params.values()}
    wanted = {n for n in graph.parameters if n.rsplit(".", 1)[1] in BIASES} | classifier
    assert set(mine) == wanted | {"loss", "output"}
    for name, a in mine.items():
        error = distance(a, expected[name], scales.get(name, 0.0))
        assert error <= bound, f"{name} is off by {error:.1e}"
    changed = {name for name, a in after.items() if (a != before[name]).any()}
    assert changed == wanted


@pytest.mark.parametrize("n", [4, 3, 1])
@pytest.mark.parametrize("last", ["all", 2])
@pytest.mark.parametrize("net", NETS)
def test_predicted_is_counted(net, last, n):
    for call in program(net, last).step:
        assert dict(predict.call_counts(call, n)) == count_call(call, n), f"{call.name} on {n}"


@pytest.mark.parametrize("last", ["all", 2])
@pytest.mark.parametrize("net", NETS)
def test_both_backends_learn_alike_and_touch_what_is_predicted(net, last):
    found = []
    for backend in BACKENDS:
        p = program(net, last, backend)
        x = np.random.default_rng(3).normal(size=(11, *p.size, p.graph.channels)).astype(np.float32)
        y = np.arange(11) % p.step.host_reads["output"].shape[1]
        trainer = Trainer(p, seed=1)
        found.append(trainer.fit(x, y, epochs=2))
        assert measured.touched_bytes(p, x, y, trainer.parameters) == p.peak_bytes
    np.testing.assert_allclose(*found, rtol=2e-4)
    assert found[0][-1] != found[0][0]


def test_statistics_of_the_batch_are_refused():
    message = "bias_only needs batch_norm='frozen': statistics of the batch need the feature map in the backward pass"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ri.Plan(bias_only=True, batch_norm="train")
