"""Maps in another size on the fast kernels, against the reference passes, and as steps of a net."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import interpolate as fast
from refimpl.graph import Graph
from refimpl.ops import interpolate
from refimpl.ops.interpolate import line
from validation.instruments import drawn

ALIKE = {"float32": 1e-5, "float64": 1e-13}
sides = st.integers(1, 12)


@example((5, 7), (11, 3), True, (0, 0), 0, "float32", 0)
@example((5, 7), (3, 14), True, (1, 2), 0, "float64", 0)
@example((6, 4), (3, 9), False, (0, 1), 0, "float32", 0)
@example((4, 9), (8, 5), False, (2, 2), 2, "float64", 0)
@given(
    st.tuples(sides, sides), st.tuples(sides, sides), st.booleans(), st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(0, 3), st.sampled_from(["float32", "float64"]), st.integers(0, 99),
)  # fmt: skip
def test_a_map_in_another_size_and_its_gradient_are_the_references(own, size, smooth, grid, rounding, kind, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=(2, *of, 5)).astype(kind) for of in (own, size))
    attrs = {"size": size, "smooth": smooth, "grid": grid, "rounding": rounding}
    rows, columns = (line(own[i], size[i], size[i], (1, 1), grid[i]) for i in range(2))

    def both():
        y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
        fast.forward(y, x, rows, columns, smooth, rounding)
        fast.grad_x(dx, dy, rows, columns, smooth, rounding)
        return np.concatenate([y.reshape(-1), dx.reshape(-1)])

    y, dx = np.split(both_thread_counts(both), [dy.size])
    wanted = interpolate.forward(x, **attrs), interpolate.grad_x(dy, H=own[0], W=own[1], **attrs)
    np.testing.assert_allclose(y, wanted[0].reshape(-1), ALIKE[kind], ALIKE[kind])
    np.testing.assert_allclose(dx, wanted[1].reshape(-1), ALIKE[kind], 10 * ALIKE[kind])


def net(smooth: bool) -> Graph:
    """A map made larger by a scale and smaller to a size."""
    g = Graph("net", (5, 3), 3)
    x = g.interpolate("larger", g.conv2d("c", "input", 6, 1), scale=((5, 2), (2, 1)), smooth=smooth)
    x = g.interpolate("smaller", x, (4, 5), smooth=smooth, grid=1)
    g.linear("fc", g.flatten("flat", x), 3)
    return g


@pytest.mark.parametrize("smooth", [False, True])
def test_a_net_of_other_sizes_executes_what_it_states(smooth):
    p = ri.compile(net(smooth), ri.Plan(), 2, threads=1)
    assert {fast.forward, fast.grad_x} <= {launch.function for launch in p.order}
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("smooth", [False, True])
def test_steps_of_a_net_of_other_sizes_are_those_of_the_reference_kernels(smooth):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 3, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=0.1)))
        t = ri.Trainer(ri.compile(net(smooth), plan, 4, backend=backend, dtype=np.float64), 0)
        t.train_step(x, y, 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, 1e-12, 1e-12)
