import math

import numpy as np
import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.models import written
from refimpl.ops import clip


def case(pick):
    x = apart(rng_of(pick), any_shape(pick))
    step = 6 / x.size  # between two of x, which lie half a step from 0
    low = pick(-x.size // 2, x.size // 2)
    low, high = low * step, (low + pick(0, x.size)) * step
    return Case({"x": x}, {"low": (low, -math.inf)[pick(0, 1)], "high": (high, math.inf)[pick(0, 1)]})


def by_torch(F, t, attrs):
    return t["x"].clamp(attrs["low"], attrs["high"])


subject = Subject("clip", case, oracles.clip, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.1, 0.7), (-math.inf, 1.0), (0.0, math.inf), (1.0, 1.0)])
def test_at_the_bounds_and_for_nan_as_torch(bounds):
    values = (*FAR, *(b for b in bounds if math.isfinite(b)), np.inf, -np.inf)
    check_values("clip", values, lambda F, x: x.clamp(*bounds), dict(zip(("low", "high"), bounds, strict=True)), (0, 0))


def test_what_backward_keeps_is_a_bit_an_element():
    assert clip.grad_x.reads == ["dy", "mask"]
    assert clip.pack_mask(np.ones((3, 5, 5, 2))).shape == (3, 7)  # ⌈50 / 8⌉


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(lambda g, name, x: g.clip(name, x, -0.5, 0.75), backend)


@pytest.mark.parametrize("bounds", [{}, {"low": -0.5}, {"high": 0.5}, {"low": -0.5, "high": 0.5}])
def test_a_net_with_it_comes_back_from_its_description(bounds):
    g = Graph("net", (2, 3), 4)
    g.linear("fc", g.flatten("flat", g.clip("a", "input", **bounds)), 2)
    assert written.read(written.written(g), "a file").nodes == g.nodes


def test_bounds_that_leave_no_number_between_them_are_refused():
    for low, high in ((1.0, 0.5), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(
            ShapeError, match=rf"^node a \(clip\): low must be at most high, got low {low} and high {high}$"
        ):
            Graph("net", (2, 3), 4).clip("a", "input", low, high)
