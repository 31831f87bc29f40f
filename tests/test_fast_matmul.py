"""Products of two tensors on the fast kernels, against those of NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import grouped
from refimpl.graph import Graph
from validation.instruments import drawn

sides = st.sampled_from([1, 2, 7, 16, 33, grouped.TILE, grouped.TILE + 5])


@given(sides, sides, sides, st.booleans(), st.sampled_from([("float32", 1e-5), ("float64", 1e-13)]), st.integers(0, 99))
def test_each_product_is_numpys(rows, depth, columns, transposed, kind, seed):
    dtype, bound = kind
    rng = np.random.default_rng(seed)
    b_shape = (2, 3, columns, depth) if transposed else (2, 3, depth, columns)
    shapes = {"a": (2, 3, rows, depth), "b": b_shape, "dy": (2, 3, rows, columns)}
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    wanted = oracles.matmul({name: a.astype(float) for name, a in arrays.items()}, {"transposed": transposed})
    straight = (depth, 1, *((1, depth) if transposed else (columns, 1)))
    cases = {
        "y": ("a", "b", (rows, columns, depth), straight),
        "da": ("dy", "b", (rows, depth, columns), (columns, 1, *((depth, 1) if transposed else (1, columns)))),
        "db": ("dy", "a", (columns, depth, rows), (1, columns, depth, 1)) if transposed else
              ("a", "dy", (depth, columns, rows), (1, depth, columns, 1)),
    }  # fmt: skip
    for name, (left, right, sizes, strides) in cases.items():

        def run(left=left, right=right, sizes=sizes, strides=strides, name=name):
            c = np.full(wanted[name].shape, np.nan, dtype)
            grouped.products(c, arrays[left], arrays[right], sizes, strides)
            return c

        found = both_thread_counts(run)
        scale = np.linalg.norm(wanted[name]) + np.sqrt(wanted[name].size)
        assert np.linalg.norm(found - wanted[name]) < bound * scale, name


def test_a_net_runs_on_it_and_executes_what_it_states():
    g = Graph("net", (3, 40), 3)
    x = g.conv2d("c", "input", 6, 1)
    y = g.matmul("values", g.softmax("share", g.matmul("scores", x, x, True)), x)
    g.linear("fc", g.global_avg_pool("mean", y), 3)
    p = ri.compile(g, ri.Plan(), 2, threads=1)
    every = [launch for section in p.launches.values() for launch in section]
    launches = [launch for launch in every if launch.function is grouped.products]
    assert {str(launch.covers[0].passed) for launch in launches} == {"matmul.forward", "matmul.grad_a", "matmul.grad_b"}
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("transposed", [False, True])
def test_steps_of_a_net_are_those_of_the_reference_kernels(transposed):

    def net():
        g = Graph("net", (3, 5), 3)
        x = g.conv2d("c", "input", 5, 1)
        g.linear("fc", g.global_avg_pool("mean", g.matmul("m", x, g.conv2d("d", "input", 5, 1), transposed)), 3)
        return g

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3, 5, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        t = ri.Trainer(
            ri.compile(net(), ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0))), 4, backend=backend, dtype=np.float64), 0
        )
        t.train_step(x, y, 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, 1e-12, 1e-12)
