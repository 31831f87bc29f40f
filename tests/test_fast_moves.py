"""Elements that are only moved: the fast kernels against the reference passes, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import move_rules, moves
from refimpl.compiler.ir import Buffer, Call
from refimpl.graph import Graph
from refimpl.kernels.geometry import MOST_DIGITS
from refimpl.ops import attach, channel_slice, concat, rearrange
from validation.instruments import drawn

dtypes = st.sampled_from(["float32", "float64"])
widths = st.sampled_from([1, 3, 8, 17, 64, 65])


def launched(passed, sizes, attrs, shapes, given_, dtype, rule) -> np.ndarray:
    """What the launch of a rule writes, on one thread and on two."""
    attrs = passed.attrs(attrs)
    arrays = {a: Buffer(a, shape, np.dtype(dtype), "arena", batched=1) for a, shape in shapes.items()}
    [launch] = rule(None, Call("forward", "node", passed, arrays, attrs, sizes))
    name = passed.writes[0]

    def run():
        out = np.full(shapes[name], np.nan, dtype)
        values = {**given_, name: out}
        launch.function(*(values[a.name].reshape(a.shape) if isinstance(a, Buffer) else a for a in launch.args))
        return out

    return both_thread_counts(run)


@st.composite
def orders(draw):
    """Lengths and steps of up to six digits: a transposition of axes."""
    lengths = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 9, 19]), min_size=1, max_size=MOST_DIGITS))
    while math.prod(lengths) > 20_000:
        lengths[lengths.index(max(lengths))] = 2
    order = draw(st.permutations(range(len(lengths))))
    steps = [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]
    rest = MOST_DIGITS - len(lengths)
    return (*(lengths[i] for i in order), *(1,) * rest), (*(steps[i] for i in order), *(0,) * rest)


@example(((3, 9, 5, 1, 1, 1), (5, 15, 1, 0, 0, 0)), 2, "float32")  # rows apart
@example(((5, 3, 19, 9, 1, 1), (9, 855, 45, 1, 0, 0)), 2, "float32")
@example(((3, 9, 19, 8, 1, 1), (8, 24, 216, 1, 0, 0)), 2, "float64")
@example(((3, 19, 9, 1, 1, 1), (171, 1, 19, 0, 0, 0)), 3, "float32")  # turned
@example(((9, 3, 2, 19, 1, 1), (2, 18, 1, 54, 0, 0)), 2, "float64")
@example(((2, 3, 2, 5, 2, 3), (3, 6, 180, 36, 18, 1)), 2, "float32")  # six digits
@given(orders(), st.integers(1, 3), dtypes)
def test_a_transposition_and_its_gradient_are_numpys(order, n, dtype):
    lengths, steps = order
    size = math.prod(lengths)
    x = np.arange(n * size, dtype=dtype).reshape(n, size)
    axes = np.argsort([-s for s in steps], kind="stable")  # of x, as places in the order of y
    wanted = x.reshape(n, *(lengths[i] for i in axes)).transpose(0, *(1 + np.argsort(axes))).reshape(n, 1, 1, size)
    attrs = {"lengths": lengths, "steps": steps, "size": (1, 1)}
    shapes, sizes = {"y": wanted.shape, "x": x.shape}, {"N": n, "D": size, "P": 1, "Q": 1, "R": size}
    y = launched(rearrange.forward, sizes, attrs, shapes, {"x": x}, dtype, move_rules.reordered)
    np.testing.assert_array_equal(y, wanted)
    shapes = {"dx": x.shape, "dy": wanted.shape}
    dx = launched(rearrange.grad_x, sizes, attrs, shapes, {"dy": wanted}, dtype, move_rules.reordered)
    np.testing.assert_array_equal(dx, x)


def test_axes_that_stay_together_are_moved_as_one():
    assert move_rules.digits((3, 5, 4, 1), (20, 4, 1, 0)) == [(60, 1, 1)]
    assert move_rules.digits((5, 3, 4, 2), (8, 40, 2, 1)) == [(5, 24, 8), (3, 8, 40), (8, 1, 1)]
    assert move_rules.digits((5, 3, 4, 2), (8, 40, 2, 1), back=True) == [(3, 40, 8), (5, 8, 24), (8, 1, 1)]
    assert move_rules.digits((1, 1), (0, 0)) == [(1, 1, 1)]


@example(37, 5, 65, 3, "float32", 0)
@example(300, 0, 64, 128, "float64", 0)
@given(st.integers(1, 40), st.integers(0, 70), widths, st.integers(0, 70), dtypes, st.integers(0, 99))
def test_parts_of_rows_are_the_references(n, before, own, behind, dtype, seed):
    rng, width = np.random.default_rng(seed), before + own + behind
    x, dy = rng.normal(size=(n, width)).astype(dtype), rng.normal(size=(n, own)).astype(dtype)
    attrs, sizes = {"start": before, "count": own}, {"N": n, "C": width, "K": own}
    y = launched(
        channel_slice.forward, sizes, attrs, {"y": dy.shape, "x": x.shape}, {"x": x}, dtype, move_rules.part_of_rows
    )
    np.testing.assert_array_equal(y, channel_slice.forward(x, **attrs))
    shapes = {"dx": x.shape, "dy": dy.shape}
    dx = launched(channel_slice.grad_x, sizes, attrs, shapes, {"dy": dy}, dtype, move_rules.slice_placed)
    np.testing.assert_array_equal(dx, channel_slice.grad_x(dy, C=width, **attrs))
    attrs, sizes = {"start": before}, {"N": n, "A": own, "K": width}
    part = launched(
        concat.grad_x, sizes, attrs, {"dx": dy.shape, "dy": x.shape}, {"dy": x}, dtype, move_rules.part_of_rows
    )
    np.testing.assert_array_equal(part, x[:, before : before + own])
    whole = launched(
        concat.forward, sizes, attrs, {"y": x.shape, "x": dy.shape}, {"x": dy}, dtype, move_rules.part_of_rows
    )
    np.testing.assert_array_equal(whole[:, before : before + own], dy)
    assert np.isnan(whole[:, :before]).all() and np.isnan(whole[:, before + own :]).all()


def test_integers_are_joined_by_the_reference_kernel():
    arrays = {a: Buffer(a, (2, 3), np.dtype(np.int8), "arena", batched=1) for a in "xy"}
    call = Call("forward", "node", concat.forward, arrays, {"start": 0}, {"N": 2, "A": 3, "K": 3})
    assert move_rules.part_of_rows(None, call) is None


@example(3, 4, 5, 17, 8, False, "float32")
@example(3, 4, 5, 17, 65, True, "float64")
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), widths, widths, st.booleans(), dtypes)
def test_attached_weights_are_the_references(n, p, q, own, other, after, dtype):
    rng = np.random.default_rng(own)
    x, w = rng.normal(size=(n, p, q, own)).astype(dtype), rng.normal(size=(p, q, other)).astype(dtype)
    wanted = attach.forward(x, w, after=after)
    sizes = {"N": n, "P": p, "Q": q, "C": own, "R": other, "K": own + other}
    shapes = {"y": wanted.shape, "x": x.shape, "w": w.shape}
    rule = move_rules.weights_attached
    y = launched(attach.forward, sizes, {"after": after}, shapes, {"x": x, "w": w}, dtype, rule)
    np.testing.assert_array_equal(y, wanted)
    shapes = {"dx": x.shape, "dy": wanted.shape}
    dx = launched(attach.grad_x, sizes, {"after": after}, shapes, {"dy": y}, dtype, move_rules.weights_detached)
    np.testing.assert_array_equal(dx, x)


def net() -> Graph:
    """Every operator of these kernels."""
    g = Graph("net", (4, 3), 3)
    x = g.conv2d("c", "input", 6, 1)
    x = g.rearrange("columns", x, (4, 3), (3, 4, 6), (6, 18, 1))
    x = g.rearrange("turned", x, (6, 1), (6, 12), (1, 6))
    x = g.concat("both", x, g.channel_slice("some", x, 3, 5))
    x = g.attach("token", x, 4)
    g.linear("fc", g.flatten("flat", x), 3)
    return g


def test_a_net_runs_on_the_moves_and_they_execute_nothing():
    p = ri.compile(net(), ri.Plan(), 2, threads=1)
    wanted = {moves.rows, moves.placed, moves.attached, moves.blocks_copied, moves.blocks_transposed}
    assert wanted <= {launch.function for launch in p.order}
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_steps_of_a_net_of_moves_are_those_of_the_reference_kernels(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 4, 3, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)))
        t = ri.Trainer(ri.compile(net(), plan, 4, backend=backend, dtype=kind), 0)
        t.train_step(x, y, 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, 1e-4, 1e-5)
