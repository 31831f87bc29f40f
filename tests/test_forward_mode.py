"""What forward mode derives beside a forward pass, in which order, and what it refuses."""

import numpy as np
import pytest
from nets import NETS
from own import extremes, priced, softplus, softplus_cost  # noqa: F401 (its cost registers itself)

import refimpl as ri
from costmodel import predict
from costmodel.formulas.cost import E, N, cmp, has, load, store
from refimpl.compiler.compose import Composer
from refimpl.compiler.lower import lower
from refimpl.compiler.program import Program
from refimpl.graph import Graph
from refimpl.methods.directional import Directional
from refimpl.ops import add, forget_operator, operator, register_operator
from refimpl.training.runner import Runner
from refimpl.training.state import initial

register_operator(softplus)
BACKENDS = ("reference", "fast")


@pytest.fixture(scope="module", autouse=True)
def own_operators():
    """One of two outputs."""
    register_operator(extremes)
    grad = N * E * ((2 + has("dy") + has("dz")) * load + cmp + 2 * store)
    tangent = N * E * ((2 + has("ta") + has("tb")) * load + cmp + 2 * store)
    with priced("extremes", forward=N * E * (2 * load + 2 * cmp + 2 * store), grad=grad, tangent=tangent):
        yield
    forget_operator("extremes")


def compiled(graph, names, backend="reference", batch=2, **plan):
    return ri.compile(graph, ri.Plan(step=Directional(tuple(names)), **plan), batch, backend=backend, dtype=np.float64)


def tangents(program):
    """The nodes of which a tangent is derived, in order, each once."""
    return list(dict.fromkeys(c.node for c in program.step if any(".t" in b.name for b in c.writes)))


def test_only_what_lies_behind_a_tangent_is_derived():
    g = NETS["residual"]()
    assert tangents(compiled(g, ["fc.b"])) == ["fc", "loss"]
    assert tangents(compiled(g, ["conv2.w"])) == ["conv2", "bn2", "relu2", "mean", "fc", "loss"]
    everything = compiled(g, ["conv0.w"])
    assert tangents(everything) == [n.name for n in g.nodes] + ["loss"]  # the sum has two, so there is a call
    assert len(list(compiled(g, ["fc.b"]).step)) < len(list(everything.step))


def test_a_sum_with_one_tangent_is_that_tangent():
    g = NETS["residual"]()
    p = compiled(g, ["down.w"])
    assert "sum" not in tangents(p)  # no call: it is that of the shortcut
    assert tangents(p) == ["down", "down.bn", "relu2", "mean", "fc", "loss"]


def test_a_branch_that_the_loss_does_not_depend_on_has_none():
    g = Graph("two", (3, 3), 2)
    x = g.relu("r", g.conv2d("c", "input", 4, 3))
    flat = g.flatten("flat", x)
    g.linear("main", flat, 2)
    g.linear("aside", flat, 2)
    g.outputs = ("main", "aside")
    p = compiled(g, ["c.w", "main.w", "aside.w"])
    assert tangents(p) == ["c", "r", "main", "loss"]
    assert any(c.node == "aside" for c in p.step)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_map_waits_for_a_way_back(backend):
    """The arena of a chain of layers is as large whatever its length: that of a training step grows."""

    def chain(depth):
        g = Graph("chain", (12, 12), 4)
        x = "input"
        for i in range(depth):
            x = g.relu(f"r{i}", g.batch_norm(f"n{i}", g.conv2d(f"c{i}", x, 4, 3, pad=1)))
        g.linear("fc", g.global_avg_pool("mean", x), 3)
        return g

    arenas, training = [], []
    for depth in (3, 9):
        g = chain(depth)
        p = compiled(g, ["c0.w"], backend, 8)
        arenas.append(p.peak_bytes)
        training.append(ri.compile(g, ri.Plan(), 8, backend=backend, dtype=np.float64).peak_bytes)
        order = [c.node for c in p.step if c.node != "fc"]
        assert order == sorted(order, key=[*(n.name for n in g.nodes), "loss"].index)  # right after its node
        map_bytes = 8 * 12 * 12 * 4 * 8
        assert p.peak_bytes <= 5.5 * map_bytes
    assert arenas[1] - arenas[0] < 2000 < training[1] - training[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hook_writes_tangents_where_they_are_used(backend):
    """A parameter of two layers is asked for at the first; what the hook emits stands before it."""
    g = Graph("shared", (2, 2), 1)
    x = g.linear("first", g.flatten("flat", "input"), 4)
    g.linear("second", g.relu("r", x), 4, shared="first")
    asked = []

    def twice(net, name, parameter):
        """A direction that follows from the parameter itself, v = 2w, written by a call."""
        asked.append(name)
        z = net.buffer(f"z.{name}", parameter.shape)
        net.emit(name, add.forward, {"a": parameter, "b": parameter, "y": z}, {})
        return z

    plan = ri.Plan()
    composer = Composer(g, plan, 3, (2, 2), np.float64)
    step = composer.net().build(tangent=twice)
    assert asked == ["first.w", "first.b"]
    p = Program(g, plan, 3, (2, 2), np.float64, backend, 1, step, lower(step, backend, 1))
    assert list(step.calls) == ["forward"] and not step.gradients
    weights = initial(p, 4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 2, 2, 1)), np.array([0, 3, 1])
    r = Runner(p, weights)
    r.write("input", 3, x)
    r.write("labels", 3, y)
    r.run("forward", 3)
    along = {name: 2 * w for name, w in weights.items()}
    wanted = ri.directional_derivative(g, x, y, along, parameters=weights)
    np.testing.assert_allclose([r.read("loss", 3)[0], r.read("tloss", 3)[0]], wanted, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("names", [("a.w",), ("b.w",), ("a.w", "b.b", "fc.w")])
def test_an_operator_of_two_outputs(names, backend):
    g = Graph("pair", (2, 3), 4)
    a, b = g.conv2d("a", "input", 5, 1), g.conv2d("b", "input", 5, 1, bias=True)
    larger = g.add_node("pair", "extremes", (a, b), {}, {})
    g.linear("fc", g.flatten("flat", g.concat("both", larger, "pair.z")), 3)
    p = compiled(g, names, backend)
    assert [c.passed.name for c in p.step if c.node == "pair"] == ["forward", "tangent"]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 2, 3, 4)), np.array([2, 0])
    weights, h = initial(p, 2), 1e-6
    along = {name: rng.normal(size=weights[name].shape) for name in names}
    found = ri.directional_derivative(g, x, y, along, parameters=weights, backend=backend)
    ends = [
        ri.directional_derivative(
            g, x, y, along, parameters=weights | {m: weights[m] + d * v for m, v in along.items()}
        ).loss
        for d in (h, -h)
    ]
    assert abs(found.derivative - (ends[0] - ends[1]) / (2 * h)) <= 1e-8


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_operator_of_ones_own(backend):
    g = Graph("own", (3, 3), 2)
    x = g.add_node("act", "softplus", (g.conv2d("c", "input", 3, 3, pad=1),), {}, {})
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    rng = np.random.default_rng(1)
    x, y, v = rng.normal(size=(2, 3, 3, 2)), np.array([2, 0]), rng.normal(size=(3, 3, 2, 3))
    t = ri.Trainer(ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0))), 2, backend="reference", dtype=np.float64))
    weights = {name: w.copy() for name, w in t.parameters.items()}
    t.train_step(x, y, 1)
    found = ri.directional_derivative(g, x, y, {"c.w": v}, parameters=weights, backend=backend)
    np.testing.assert_allclose(found.derivative, np.vdot(weights["c.w"] - t.parameters["c.w"], v), rtol=1e-10)


def test_an_operator_that_states_no_tangent_is_refused(monkeypatch):
    monkeypatch.delattr(softplus, "TANGENT")
    operator.cache_clear()
    g = Graph("own", (3, 3), 2)
    x = g.add_node("act", "softplus", (g.conv2d("c", "input", 3, 3),), {}, {})
    g.linear("fc", g.flatten("flat", x), 3)
    try:
        wrong = (
            "there is no derivative through node act in forward mode: its operator softplus states no TANGENT that "
            "tells how ty follows from tx"
        )
        with pytest.raises(ValueError, match=wrong):
            compiled(g, ["c.w"])
        assert tangents(compiled(g, ["fc.w"])) == ["fc", "loss"]  # it does not pass there
    finally:
        operator.cache_clear()


def test_a_term_that_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(softplus, "TANGENT", ("ta",))
    wrong = "each of TANGENT of the operator softplus must be a pass, a bound one, or 'tx', got 'ta'"
    with pytest.raises(ValueError, match=wrong):
        operator.__wrapped__("softplus")


def test_a_tangent_costs_what_its_linear_maps_do():
    """Along a weight of the last layer only that layer's product is made once more."""
    g = NETS["residual"]()
    forward = predict.estimate(ri.compile(g, ri.Plan(), 2)).sections["forward"]
    ours = predict.estimate(compiled(g, ["fc.w"]))
    loss = 2 * 3 + 2 * 2 + 2  # tlse, and what divides
    assert 2 * 6 * 3 <= ours.units["mul"] - forward["mul"] <= 2 * 6 * 3 + loss
