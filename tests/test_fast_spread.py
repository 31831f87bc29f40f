"""Products and sums with what is spread along some axes: the fast kernels against the reference ones in float64."""

import itertools

import numpy as np
import pytest

import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import spread, spread_rules
from refimpl.compiler.ir import Buffer, Call, Launch
from refimpl.compiler.lower import Lowering
from refimpl.graph import Graph
from refimpl.ops import add_spread, add_weight, mul_spread, mul_weight, scale_channels
from validation.instruments import drawn

LIMIT = {"float32": 1e-5, "float64": 1e-13}
SHAPES = ((4, 5, 3, 19), (3, 1, 40, 8), (4, 7, 1, 1), (2, 1, 1, 65))  # of which a run takes three samples at most
every_axis = pytest.mark.parametrize("whole", list(itertools.product((False, True), repeat=3)))
every_kind = pytest.mark.parametrize("kind", ["float32", "float64"])


class Alone(Lowering):
    """A lowering of one call, of which the rules use the scratch."""

    def __init__(self):
        pass

    def overlay(self, buffer, old, call):
        """Nothing is put elsewhere."""
        return False


def launch_of(rule, passed, arrays) -> Launch | None:
    """The launch of a rule for a pass on arrays by their names; those of samples are batched."""
    buffers = {
        a: Buffer(a, v.shape, v.dtype, "arena", batched=int(passed.shapes[a].startswith("N")))
        for a, v in arrays.items()
    }
    made = rule(Alone(), Call("forward", "node", passed, buffers, {}, {}))
    return made and made[0]


def ran(rule, passed, arrays, n) -> np.ndarray | None:
    """What a rule's launch writes of the first n samples, on one thread and on two; None where there is no launch."""
    launch = launch_of(rule, passed, arrays)
    if launch is None:
        return None
    name = passed.writes[0]

    def run():
        values = {**arrays, name: np.full_like(arrays[name], np.nan)}

        def filled(a):
            if not isinstance(a, Buffer):
                return a
            if a.name not in values:
                return np.full(a.shape, np.nan, a.dtype)
            value = values[a.name].reshape(a.shape)
            return value[:n] if a.batched else value

        launch.function(*map(filled, launch.args))
        return values[name][:n] if launch.writes[0].batched else values[name]

    return both_thread_counts(run)


def is_near(ours, wanted, scale, kind):
    """‖ours − wanted‖ within the limit of ‖scale‖."""
    assert np.isfinite(ours).all()
    return np.linalg.norm(ours - wanted) <= LIMIT[kind] * np.linalg.norm(scale)


@every_kind
@every_axis
@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_spread_is_the_references(shape, whole, samples, kind):
    rng, n = np.random.default_rng(0), min(3, shape[0])
    own = tuple(length if all_of else 1 for length, all_of in zip(shape[1:], whole, strict=True))
    own = (shape[0], *own) if samples else own
    x, dy, w = (rng.normal(size=s).astype(kind) for s in (shape, shape, own))
    product, total, name = (mul_spread, add_spread, "s") if samples else (mul_weight, add_weight, "w")
    few = {"x": x[:n], "dy": dy[:n], name: w[:n] if samples else w}
    wide = {a: v.astype(float) for a, v in few.items()}
    big = {a: abs(v) for a, v in wide.items()}
    y = ran(spread_rules.spreads, product.forward, {"y": x, "x": x, name: w}, n)
    assert is_near(y, product.forward(wide["x"], wide[name]), product.forward(big["x"], big[name]), kind)
    y = ran(spread_rules.spreads, total.forward, {"y": x, "x": x, name: w}, n)
    assert is_near(y, total.forward(wide["x"], wide[name]), total.forward(big["x"], big[name]), kind)
    dx = ran(spread_rules.spreads, product.grad_x, {"dx": x, "dy": dy, name: w}, n)
    assert is_near(dx, product.grad_x(wide["dy"], wide[name]), product.grad_x(big["dy"], big[name]), kind)
    for of, read in ((product, ("dy", "x")), (total, ("dy",))):
        passed = getattr(of, f"grad_{name}")
        arrays = {f"d{name}": w, "dy": dy, "x": x}
        found = ran(spread_rules.summed, passed, {a: arrays[a] for a in passed.arrays}, n)
        letters = dict(zip("UVD", own[-3:], strict=True))
        wanted, scale = (passed(*(values[a] for a in read), **letters) for values in (wide, big))
        assert found is None or is_near(found, wanted, scale, kind)


def test_sums_of_rows_have_a_launch_and_others_the_reference_kernel():
    x = np.zeros((2, 3, 4, 5), np.float32)
    for own, there in (((1, 1, 5), True), ((3, 4, 5), True), ((3, 1, 5), False), ((3, 4, 1), False), ((1, 4, 5), True)):
        arrays = {"dw": np.zeros(own, np.float32), "dy": x, "x": x}
        assert bool(launch_of(spread_rules.summed, mul_weight.grad_w, arrays)) == there, own


@every_kind
@pytest.mark.parametrize("shape", SHAPES)
def test_factors_of_channels_are_the_references(shape, kind):
    rng, n = np.random.default_rng(0), min(3, shape[0])
    x, dy, s = (rng.normal(size=of).astype(kind) for of in (shape, shape, (shape[0], shape[3])))
    few = [a[:n].astype(float) for a in (x, dy, s)]
    big = [abs(a) for a in few]
    y = ran(spread_rules.spreads, scale_channels.forward, {"y": x, "x": x, "s": s}, n)
    assert is_near(y, scale_channels.forward(few[0], few[2]), scale_channels.forward(big[0], big[2]), kind)
    dx = ran(spread_rules.spreads, scale_channels.grad_x, {"dx": x, "dy": dy, "s": s}, n)
    assert is_near(dx, scale_channels.grad_x(few[1], few[2]), scale_channels.grad_x(big[1], big[2]), kind)
    ds = ran(spread_rules.summed, scale_channels.grad_s, {"ds": s, "dy": dy, "x": x}, n)
    if shape[3] > 1:
        assert is_near(ds, scale_channels.grad_s(few[1], few[0]), scale_channels.grad_s(big[1], big[0]), kind)


def net() -> Graph:
    """Every operator of these kernels."""
    g = Graph("net", (5, 3), 3)
    x = g.mul_weight("scale", g.conv2d("c", "input", 6, 1), (1, 1, 6))
    x = g.add_weight("place", x, (5, 3, 6))
    x = g.scale_channels("gate", x, g.sigmoid("s", g.linear("e", g.global_avg_pool("pool", x), 6)))
    x = g.add_spread("sum", g.mul_spread("product", x, g.conv2d("d", x, 6, 1)), g.conv2d("f", x, 6, 1))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def test_a_net_runs_on_what_is_spread_and_it_executes_what_it_states():
    p = ri.compile(net(), ri.Plan(), 2, threads=1)
    assert {spread.product, spread.total, spread.sums} <= {launch.function for launch in p.order}
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("kind, limit", [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_steps_of_a_net_of_products_are_those_of_the_reference_kernels(kind, limit):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 3, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=0.1)))
        t = ri.Trainer(ri.compile(net(), plan, 4, backend=backend, dtype=kind), 0)
        t.train_step(x, y, 1)
        t.train_step(x[:3], y[:3], 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, limit, limit)
