"""What an operator is put through beside its Subject: values far out, and nets that have it."""

import numpy as np

import refimpl as ri
from checks import Case, Run, map_shape, torch_or_none
from costmodel import closed_form, predict
from refimpl.graph import Graph
from validation.instruments import approximation, counting, measured

FAR = (0.0, -0.0, 1.0, -1.0, 30.0, -30.0, 1000.0, -1000.0, np.nan)


def any_shape(pick) -> tuple[int, ...]:
    """Maps and features alike."""
    return map_shape(pick) if pick(0, 1) else (pick(1, 3), pick(1, 20))


def whole_or_one(pick) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of a map, and the same with some of its axes of length 1."""
    n, *sample = map_shape(pick)
    return (n, *sample), (n, *((1, length)[pick(0, 1)] for length in sample))


def check_values(name, values, by_torch, attrs=None, bounds=(1e-6, 1e-14)):
    """y and dx at single values are PyTorch's, and finite where the values are.

    by_torch: `by_torch(F, tensor)`. bounds: of errors, in float32 and float64.
    """
    torch = torch_or_none()
    for dtype, bound in zip((np.float32, np.float64), bounds, strict=True):
        x = np.array([values], dtype)
        dy = np.linspace(1, 2, x.size, dtype=dtype)[None]
        run = Run(name, Case({"x": x, "dy": dy}, attrs or {}))
        assert run["y"].dtype == run["dx"].dtype == dtype
        finite = np.isfinite(x)
        assert np.isfinite(run["y"][finite]).all() and np.isfinite(run["dx"][finite]).all()
        assert np.isnan(run["y"][np.isnan(x)]).all()
        if torch is None:
            continue
        t = torch.tensor(x, requires_grad=True)
        y = by_torch(torch.nn.functional, t)
        y.backward(torch.tensor(dy))
        for ours, theirs in ((run["y"], y.detach().numpy()), (run["dx"], t.grad.numpy())):
            np.testing.assert_allclose(ours, theirs, bound, bound)


def net(act) -> Graph:
    """The activation behind a convolution with a batch norm, and behind a linear layer."""
    g = Graph("net", (6, 5), 3)
    x = act(g, "a", g.batch_norm("bn", g.conv2d("c", "input", 4, 3, pad=1)))
    g.linear("fc", act(g, "b", g.linear("hidden", g.global_avg_pool("mean", x), 6)), 3)
    return g


def branches(join) -> Graph:
    """Two branches of a net, which `join(graph, name, a, b)` makes one, twice: of maps and of features."""
    g = Graph("net", (6, 5), 3)
    x = join(g, "map", g.conv2d("a", "input", 4, 3, pad=1), g.conv2d("b", "input", 4, 1))
    x = g.global_avg_pool("mean", x)
    g.linear("fc", join(g, "features", g.linear("c", x, 6), g.linear("d", x, 6)), 3)
    return g


def check_in_a_net(act, backend):
    """`check_net` of an activation: `act(graph, name, x)` adds it on the tensor x and returns its output."""
    check_net(net(act), backend, "c.w", "hidden.w")


def check_net(g, backend, *weights_before, **plan):
    """The net trains, its calls count what their formulas say, its arena is as large as told.

    Gradients are slopes, and the derivative along a direction is theirs. weights_before: weights that reach the output
    through what is looked at, and no other way. plan: settings of it.
    """
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(8, *g.size, g.channels)).astype(np.float32), rng.integers(0, 3, 8)
    p = ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=0.1)), **plan), 8, backend=backend)
    trainer = ri.Trainer(p, seed=1)
    first, *_, last = (trainer.train_step(x, y, 60) for _ in range(60))
    assert last < 0.9 * first
    assert measured.touched_bytes(p, x, y, trainer.parameters) == p.peak_bytes
    for call in p.step:
        assert dict(predict.call_counts(call, 5)) == counting.count_call(call, 5), call.name
    assert closed_form.of(g, ri.Plan(**plan)).at(N=8) == predict.estimate(p).units
    gaps = approximation.slopes(g, ri.Plan(**plan), x, y, h=1e-6)
    assert gaps.keys() >= {*weights_before} and max(gaps.values()) < 1e-6, gaps
    t = ri.Trainer(
        ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)), **plan), 8, backend=backend, dtype=np.float64), 1
    )
    weights = {name: w.copy() for name, w in t.parameters.items()}
    t.train_step(x.astype(float), y, 1)
    along = {name: rng.normal(size=weights[name].shape) for name in weights_before}
    found = ri.directional_derivative(g, x.astype(float), y, along, parameters=weights, backend=backend)
    wanted = sum(np.vdot(weights[name] - t.parameters[name], v) for name, v in along.items())
    np.testing.assert_allclose(found.derivative, wanted, rtol=1e-9)
