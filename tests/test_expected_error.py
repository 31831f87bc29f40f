"""The expected gradient error: sums of measured shares, against the vectors that they are the shares of."""

import json
from importlib.resources import files

import numpy as np
import pytest

import refimpl as ri
from costmodel.advice import advice, expected_error
from costmodel.advice.expected_error import ErrorTable
from refimpl import models
from refimpl.kernels import random
from validation.experiments import gradient_errors
from validation.instruments import approximation

METHODS = {"gradient-filter": [{"patch": 2}, {"patch": 4}], "sparse-update": [{"ratio": 0.5}]}


@pytest.fixture(scope="module")
def measured():
    """ResNet-8 with random weights on random images, and what was measured."""
    graph = models.build("resnet8", classes=3, size=(8, 8), channels=2)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, 12)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan("all"), 4), 0)
    graph.weights = trainer.parameters
    return graph, x, y, gradient_errors.shares(graph, x, y, METHODS, batch=4, batches=1)


def whole_gradient(graph, x, y, plan: ri.Plan) -> np.ndarray:
    """The gradient of all convolutions and the classifier under a plan, frozen ones 0, in float64."""
    trainer = ri.Trainer(ri.compile(graph, plan, 4, backend="reference", dtype=np.float64), 0)
    chosen = random.permutation(0, random.SHUFFLE, 0, len(x))[:4]
    approximation.fill(trainer, x[chosen], y[chosen], 0, 1)
    for section in ("forward", "backward"):
        trainer.runner.run(section, 4)
    found = []
    for node in graph.nodes:
        for local in ("w", "b") if node.op == "linear" else ("w",) if node.op == "conv2d" else ():
            name = node.params[local]
            known = name in trainer.program.step.gradients
            shape = graph.parameters[name].shape
            g = approximation.full_gradient(trainer.program, trainer.runner, name) if known else np.zeros(shape)
            found.append(g.ravel())
    return np.concatenate(found)


@pytest.mark.parametrize("train_last", [0, 1, 3, "all"])
@pytest.mark.parametrize("rule, setting", [
    (None, None), (ri.GradientFilter(2), 2), (ri.GradientFilter(4), 4), (ri.SparseUpdate(0.5), 0.5),
], ids=str)  # fmt: skip
def test_the_error_is_that_of_the_whole_gradient(measured, rule, setting, train_last):
    graph, x, y, shares = measured
    method = rule.method if rule else "backprop"
    g = whole_gradient(graph, x, y, ri.Plan("all"))
    a = whole_gradient(graph, x, y, ri.Plan(train_last, (rule,) if rule else ()))
    found = ErrorTable({"resnet8": shares}).error("resnet8", method, setting, train_last, len(shares["exact"]))
    cosine = a @ g / np.linalg.norm(a) / np.linalg.norm(g)
    factor = a @ g / (a @ a)  # what brings a nearest to g
    assert found.cosine == pytest.approx(cosine, rel=1e-4)
    assert found.error == pytest.approx(np.linalg.norm(factor * a - g) / np.linalg.norm(g), rel=1e-3, abs=3e-3)
    assert found.relative_error == pytest.approx(np.linalg.norm(a - g) / np.linalg.norm(g), rel=1e-3, abs=3e-3)
    assert found.measured_on == "resnet8"


def test_exact_methods_have_no_error(measured):
    *_, shares = measured
    table = ErrorTable({"resnet8": shares})
    for method, setting in expected_error.exact_settings().items():
        found = table.error("resnet8", method, setting, "all", 9)
        assert found.error == pytest.approx(0, abs=3e-3) and found.cosine == pytest.approx(1, abs=1e-5)


def test_frozen_layers_count_with_their_share():
    half = {"classifier": 0.25, "exact": [0.5, 0.25], "methods": {}}
    table = ErrorTable({"net": half})
    for k, frozen in ((0, 0.75), (1, 0.5), (2, 0.0)):
        found = table.error("net", "backprop", None, k, 2)
        assert found.error == pytest.approx(frozen**0.5) == pytest.approx(found.relative_error)
    assert table.error("net", "backprop", None, 2, 4).error == pytest.approx(0.5**0.5)  # half of another net's layers


def test_between_settings_and_beyond_them():
    def one(patch, share):
        return {"patch": patch, "dot": [share], "square": [1.0]}

    net = {"classifier": 0.0, "exact": [1.0], "methods": {"gradient-filter": [one(4, 0.6), one(2, 0.8)]}}
    table = ErrorTable({"net": net})

    def cosine(patch):
        return table.error("net", "gradient-filter", patch, "all", 1).cosine

    assert [cosine(1), cosine(2), cosine(4), cosine(9)] == pytest.approx([1.0, 0.8, 0.6, 0.6])
    assert cosine(8**0.5) == pytest.approx(0.7)  # half way on a logarithmic scale


def test_a_net_that_was_not_measured_takes_the_nearest():
    nets = {name: {"classifier": 1.0, "exact": [0.0] * n, "methods": {}} for name, n in (("small", 3), ("large", 50))}
    table = ErrorTable(nets)
    assert [table.nearest("x", n) for n in (0, 2, 11, 13, 99)] == ["small", "small", "small", "large", "large"]
    assert table.nearest("large", 3) == "large"
    with pytest.raises(KeyError, match="no error was measured of bias-only"):
        table.error("small", "bias-only", None, 1, 3)


def test_the_shipped_table_holds_what_is_searched():
    table = expected_error.shipped()
    record = json.loads(files("costmodel.advice").joinpath("gradient-errors.json").read_text())
    assert record["name"] == gradient_errors.NAME and record["command"] and record["machine"] and record["versions"]
    assert set(table.nets) == set(gradient_errors.CASES)
    for net in table.nets.values():
        assert net["classifier"] + sum(net["exact"]) == pytest.approx(1, abs=1e-4)
        for method in advice.searched():
            if method.setting:
                settings = [one[method.setting] for one in net["methods"][method.name]]
                assert min(settings) <= min(method.values) and max(method.values) <= max(settings)
                assert settings == [one[method.setting] for one in gradient_errors.METHODS[method.name]]


def test_too_few_samples_and_nets_without_convolutions(measured):
    graph, x, y, _ = measured
    with pytest.raises(ValueError, match="need 16 samples, but there are 12"):
        gradient_errors.shares(graph, x, y, METHODS, batch=8, batches=2)
    flat = ri.Graph("flat", (2, 2), 1)
    flat.linear("fc", flat.flatten("f", "input"), 3)
    with pytest.raises(ValueError, match="flat has no convolution"):
        gradient_errors.shares(flat, x[:, :2, :2, :1], y, {}, batch=4, batches=1)


def test_the_record_of_the_measurement(tmp_path, measured):
    graph, x, y, shares = measured
    d = ri.data.from_arrays("random", x, y, x, y, classes=("a", "b", "c"))
    case = gradient_errors.Case(graph, d, {"data": "random", "weights": "random"})
    short = {"gradient-filter": [{"patch": 2}]}
    record = gradient_errors.run(tmp_path, lambda *_: None, {"resnet8": lambda seed: case}, 4, 1, methods=short)
    net = record["nets"]["resnet8"]
    assert record["ok"] and record["seeds"] == [0] and net["data"] == "random" and net["size"] == [8, 8]
    assert net["methods"]["gradient-filter"] == shares["methods"]["gradient-filter"][:1]
    figures = record["measured"]["resnet8, gradient-filter:patch=2"]
    found = ErrorTable(record["nets"]).error("resnet8", "gradient-filter", 2, "all", len(net["exact"]))
    assert figures["cosine"] == pytest.approx(found.cosine, abs=1e-3) and 0 < figures["error"] < 1
