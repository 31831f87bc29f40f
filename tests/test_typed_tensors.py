"""Graphs of tensors of any rank: several inputs and outputs, shared parameters, ignored labels, branches unread."""

import numpy as np
import pytest
import torch
from own import extremes, priced

import refimpl as ri
from costmodel import predict
from costmodel.formulas.cost import E, N, cmp, has, load, store
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError, full_shape, merged, read_sizes, starred_axes
from refimpl.ops import forget_operator, operator, register_operator
from validation.instruments import counting, measured

BACKENDS = ("reference", "fast")
T, CLASSES = 5, 6


@pytest.fixture(scope="module", autouse=True)
def costs():
    grad = N * E * ((2 + has("dy") + has("dz")) * load + cmp + 2 * store)
    register_operator(extremes)
    tangent = N * E * ((2 + has("ta") + has("tb")) * load + cmp + 2 * store)
    with priced("extremes", forward=N * E * (2 * load + 2 * cmp + 2 * store), grad=grad, tangent=tangent):
        yield
    forget_operator("extremes")


def two_inputs() -> Graph:
    """Two sequences side by side, a layer used twice, a sum, a branch that nobody reads; an output for each token."""
    g = Graph("two inputs")
    x = g.concat("cat", g.add_input("a", (T, 4)), g.add_input("b", (T, 3)))
    x = g.relu("first", g.linear("l1", x, 7))
    again = g.linear("l3", g.relu("second", g.linear("l2", x, 7)), 7, shared="l2")
    total = g.add("sum", again, x)
    g.relu("unread", g.linear("dead", total, 9))
    g.linear("out", total, CLASSES)
    g.outputs = ("out", "second")
    return g


def by_torch(g, w, x, y, ignored):
    """Loss, outputs and gradients of the same net in PyTorch."""
    p = {n: torch.tensor(a, requires_grad=True) for n, a in w.items()}
    layer = lambda n, v: v @ p[f"{n}.w"] + p[f"{n}.b"]  # noqa: E731
    first = layer("l1", torch.cat([torch.tensor(x["a"]), torch.tensor(x["b"])], -1)).relu()
    second = layer("l2", first).relu()
    out = layer("out", layer("l2", second) + first)
    kept = {} if ignored is None else {"ignore_index": ignored}
    loss = torch.nn.functional.cross_entropy(out.reshape(-1, CLASSES), torch.tensor(y).reshape(-1), **kept)
    loss.backward()
    return loss.item(), out.detach().numpy(), second.detach().numpy(), {n: a.grad for n, a in p.items()}


def drawn(n, seed=0, ignored=None):
    rng = np.random.default_rng(seed)
    x = {"a": rng.normal(size=(n, T, 4)), "b": rng.normal(size=(n, T, 3))}
    y = rng.integers(0, CLASSES, (n, T))
    if ignored is not None:
        y[0, 2], y[-1] = ignored, ignored
    return x, y


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [4, 3])
@pytest.mark.parametrize("ignored", [None, -100, 255, 2])
def test_a_net_of_sequences_is_pytorchs(backend, n, ignored):
    g = two_inputs()
    x, y = drawn(n, 3, ignored)
    plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)), ignored_label=ignored)
    t = ri.Trainer(ri.compile(g, plan, 4, backend=backend, dtype=np.float64), seed=5)
    before = {name: a.copy() for name, a in t.parameters.items()}
    loss, out, second, gradients = by_torch(g, before, x, y, ignored)
    found = t.predict(x)
    assert list(found) == ["out", "second"]
    np.testing.assert_allclose(found["out"], out, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["second"], second, rtol=1e-12, atol=1e-14)
    kept = y != ignored if ignored is not None else np.ones_like(y, bool)
    assert t.evaluate(x, y) == np.mean((out.argmax(-1) == y)[kept])
    np.testing.assert_allclose(t.train_step(x, y, 1), loss, rtol=1e-12)
    for name, gradient in gradients.items():
        if gradient is None:
            assert name.startswith("dead.") and (t.parameters[name] == before[name]).all()
        else:
            np.testing.assert_allclose(before[name] - t.parameters[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignored", [None, -100])
def test_counts_bytes_and_masks_of_sequences(backend, ignored):
    g = two_inputs()
    plan = ri.Plan(ignored_label=ignored)
    p = ri.compile(g, plan, 4, backend=backend)
    for n in (4, 3, 1):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    x, y = drawn(4)
    t = ri.Trainer(p, seed=1)
    t.fit(x, y, 2)
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    assert measured.all_flops(p, t.made) == 2 * predict.estimate(p).flops


def test_a_branch_that_nobody_reads_costs_nothing():
    p = ri.compile(two_inputs(), ri.Plan(), 4)
    assert not [call.name for call in p.step if call.node.startswith(("dead", "unread"))]
    g = two_inputs()
    g.outputs = ("out",)
    q = ri.compile(g, ri.Plan(), 4)
    assert predict.estimate(q).flops == predict.estimate(p).flops


def test_every_row_ignored_teaches_nothing():
    g = two_inputs()
    x, y = drawn(4)
    t = ri.Trainer(ri.compile(g, ri.Plan(ignored_label=-100), 4), seed=1)
    before = {name: a.copy() for name, a in t.parameters.items()}
    assert t.train_step(x, np.full_like(y, -100), 1) == 0
    assert all((t.parameters[name] == a).all() for name, a in before.items())


def test_a_convolution_used_twice_gets_the_sum_of_its_gradients():
    g = Graph("shared", (6, 5), 3)
    x = g.relu("r1", g.conv2d("c1", "input", 3, 3, pad=1, bias=True))
    x = g.relu("r2", g.conv2d("c2", x, 3, 3, pad=1, bias=True, shared="c1"))
    g.linear("fc", g.flatten("flat", x), 4)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(3, 6, 5, 3)), np.array([0, 3, 1])
    plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)), train_bias=True)
    for backend in BACKENDS:
        t = ri.Trainer(ri.compile(g, plan, 3, backend=backend, dtype=np.float64), seed=4)
        w = {n: torch.tensor(a.copy(), requires_grad=True) for n, a in t.parameters.items()}
        kernel, v = w["c1.w"].permute(3, 2, 0, 1), torch.tensor(x).permute(0, 3, 1, 2)
        for _ in range(2):
            v = torch.nn.functional.conv2d(v, kernel, w["c1.b"], padding=1).relu()
        out = v.permute(0, 2, 3, 1).flatten(1) @ w["fc.w"] + w["fc.b"]
        torch.nn.functional.cross_entropy(out, torch.tensor(y)).backward()
        t.train_step(x, y, 1)
        for name, a in w.items():
            moved = a.detach().numpy() - t.parameters[name]
            np.testing.assert_allclose(moved, a.grad, rtol=1e-9, atol=1e-12, err_msg=name)
    with pytest.raises(ValueError, match="sparse-update cannot train c1.w: the layers c1, c2 share it"):
        ri.compile(g, ri.Plan(rules=[ri.SparseUpdate(0.5)]), 3)
    with pytest.raises(ValueError, match="has no conv2d 'fc' whose parameters could be shared"):
        g.conv2d("c3", "r2", 3, 3, shared="fc")
    with pytest.raises(ShapeError, match=r"c1 has parameters of shapes .*, but these were asked for: .*\(5, 5, 3, 8\)"):
        g.conv2d("c4", "r2", 8, 5, bias=True, shared="c1")


@pytest.mark.parametrize("read", ["y", "z", "both"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_operator_of_two_outputs(read, backend):
    g = Graph("extremes", (2, 3), 4)
    a, b = g.conv2d("a", "input", 5, 1), g.conv2d("b", "input", 5, 1)
    larger = g.add_node("pair", "extremes", (a, b), {}, {})
    assert g.shape("pair.z") == g.shape(larger) == (1, 2, 3, 5) and g.tensors["pair.z"].producer == "pair"
    x = {"y": larger, "z": "pair.z", "both": g.concat("both", larger, "pair.z")}[read]
    g.linear("fc", g.flatten("flat", x), 3)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 2, 3, 4)), np.array([0, 2, 1, 1])
    p = ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0))), 4, backend=backend, dtype=np.float64)
    for call in p.step:
        assert dict(predict.call_counts(call, 4)) == counting.count_call(call, 4), call.name
    t = ri.Trainer(p, seed=2)
    w = {n: torch.tensor(v.copy(), requires_grad=True) for n, v in t.parameters.items()}
    u, v = (torch.tensor(x) @ w[f"{n}.w"][0, 0] for n in "ab")
    pair = {"y": torch.maximum(u, v), "z": torch.minimum(u, v)}
    out = torch.cat(list(pair.values()), -1) if read == "both" else pair[read]
    torch.nn.functional.cross_entropy(out.flatten(1) @ w["fc.w"] + w["fc.b"], torch.tensor(y)).backward()
    t.train_step(x, y, 1)
    for name, value in w.items():
        moved = value.detach().numpy() - t.parameters[name]
        np.testing.assert_allclose(moved, value.grad, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_star_stands_wherever_it_is():
    assert merged("N* D", (2, 3, 4, 5)) == (24, 5) and merged("N* D", (2, 5)) == (2, 5)
    assert merged("N E* C", (2, 3, 4, 5)) == (2, 12, 5) and merged("N E* C", (2, 5)) == (2, 1, 5)
    assert merged("N E*", (2,)) == (2, 1) and merged("N E* C", (2,)) == (2,)
    shapes = {"x": "N* D", "y": "N* K"}
    x = np.empty((2, 3, 4))
    assert read_sizes(shapes, {"x": x}) == {"N": 6, "D": 4}
    axes = starred_axes(shapes, {"x": x})
    assert full_shape("N* K", {"N": 6, "K": 7}, axes) == (2, 3, 7)
    with pytest.raises(ShapeError, match=r"y has shape \(3, 2, 4\), but x has \(2, 3, 4\)"):
        starred_axes(shapes, {"x": x, "y": np.empty((3, 2, 4))})


def test_eager_calls_take_any_rank():
    from refimpl.ops import add, linear, softmax_cross_entropy

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5))
    y = linear.forward(x, w)
    np.testing.assert_allclose(y, x @ w)
    np.testing.assert_allclose(linear.grad_w(y, x), np.einsum("ntd,ntk->dk", x, y))
    np.testing.assert_allclose(linear.grad_x(y, w), y @ w.T)
    for shape in ((3,), (2, 3), (2, 3, 4, 5, 2)):
        a, b = rng.normal(size=shape), rng.normal(size=shape)
        np.testing.assert_array_equal(add.forward(a, b), a + b)
    labels = rng.integers(0, 5, (2, 3))
    lse = softmax_cross_entropy.log_sum_exp(y)
    losses = softmax_cross_entropy.sample_losses(y, labels, lse)
    assert lse.shape == losses.shape == (2, 3)
    with pytest.raises(ValueError, match="labels must hold indices from 0 to 4, but it holds -7 to "):
        softmax_cross_entropy.sample_losses(y, np.where(labels == labels[0, 0], -7, labels), lse, ignored=-1)


def test_bad_graphs_and_data_are_refused():
    g = Graph("bad")
    a, b = g.add_input("a", (5, 4)), g.add_input("b", (4, 4))
    with pytest.raises(
        ShapeError, match=r"node c \(concat\): inputs of shapes \(1, 5, 4\) and \(1, 4, 4\) differ in mor"
    ):
        g.concat("c", a, b)
    with pytest.raises(ShapeError, match=r"node c \(concat\): concat takes at least 1 input, got 0"):
        g.concat("c")
    with pytest.raises(ShapeError, match=r"node s \(add\): add takes 2 inputs, got 1"):
        g.add_node("s", "add", (a,), {}, {})
    with pytest.raises(ValueError, match="already has a tensor 'a'"):
        g.add_input("a", (3,))
    with pytest.raises(ValueError, match="has no tensor 'z'"):
        g.outputs = ("z",)
    with pytest.raises(ValueError, match="must be one or more names of tensors, got 'a'"):
        g.outputs = "a"
    with pytest.raises(ValueError, match="there is an operator 'add' already"):
        register_operator(type(extremes)("elsewhere.add"))
    with pytest.raises(KeyError, match="there is no operator 'nothing'"):
        operator("nothing")
    net = two_inputs()
    with pytest.raises(ValueError, match="has no input map, so it takes no size"):
        ri.compile(net, ri.Plan(), 4, size=(3, 3))
    t = ri.Trainer(ri.compile(net, ri.Plan(), 4))
    x, y = drawn(4)
    for bad, message in (
        (x["a"], "has the inputs a, b: x must be a dict with an array for each, but it has a single array"),
        ({"a": x["a"]}, "x must be a dict with an array for each, but it has a"),
        ({"a": x["a"], "b": x["b"][:3]}, "the inputs must have as many samples each, but they have {'a': 4, 'b': 3}"),
        ({"a": x["a"], "b": x["a"]}, r"x\['b'\] must be \(M, 5, 3\) and M ≥ 1, but its shape is \(4, 5, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            t.train_step(bad, y, 1)
    with pytest.raises(
        ValueError, match=r"y must be \(M, 5\) class numbers of an integer type, but its shape is \(4,\)"
    ):
        t.train_step(x, y[:, 0], 1)
    with pytest.raises(ValueError, match="ignored_label needs the loss softmax_cross_entropy"):
        ri.Plan(loss="mse", ignored_label=3)
    with pytest.raises(ValueError, match="ignored_label must be a whole number or None, got 1.5"):
        ri.Plan(ignored_label=1.5)
    with pytest.raises(ValueError, match="labels must be from 0 to 5, but y has -100 to"):
        t.train_step(x, drawn(4, ignored=-100)[1], 1)
