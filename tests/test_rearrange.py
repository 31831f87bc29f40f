import math

import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import rearrange


def case(pick):
    n, shape = pick(1, 3), [pick(1, 4) for _ in range(3)]
    cut = 2 * pick(1, 2)
    own = (shape[0], cut // 2, 2, shape[1])  # digits of x, some of them parts of an axis
    order = sorted(range(4), key=lambda i: (pick(0, 9), i))
    steps = [math.prod(own[i + 1 :]) for i in range(4)]
    attrs = {
        "lengths": (*(own[i] for i in order), 1, 1), "steps": (*(steps[i] for i in order), 0, 0),
        "size": (own[order[0]], own[order[1]] * own[order[2]]),
    }  # fmt: skip
    return Case({"x": rng_of(pick).normal(size=(n, math.prod(own)))}, attrs)


def by_torch(F, t, attrs):
    own = sorted(zip(attrs["steps"][:4], attrs["lengths"][:4], range(4), strict=True), key=lambda d: (-d[0], -d[1]))
    back = np.argsort([at for *_, at in own])
    x = t["x"].reshape(-1, *(length for _, length, _ in own))
    return x.permute(0, *(int(i) + 1 for i in back)).reshape(x.shape[0], *attrs["size"], -1)


subject = Subject("rearrange", case, oracles.rearrange, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_a_transpose_of_parts_of_axes():
    x = np.arange(2 * 24.0).reshape(2, 4, 6)
    y = rearrange.forward(x, lengths=(3, 4, 2, 1, 1, 1), steps=(2, 6, 1, 0, 0, 0), size=(3, 4))
    np.testing.assert_array_equal(y, x.reshape(2, 4, 3, 2).transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(
        rearrange.grad_x(y, lengths=(3, 4, 2, 1, 1, 1), steps=(2, 6, 1, 0, 0, 0), size=(3, 4)), x.reshape(2, 24)
    )


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.conv2d("c", "input", 4, 3, pad=1)
    x = g.rearrange("turned", x, (2, 30), (2, 5, 6, 2), (2, 4, 20, 1))  # heads of two channels, columns first
    x = g.reshape("rows", g.conv2d("d", x, 3, 1), (1, 60))
    g.linear("fc", g.flatten("flat", x), 3)
    assert g.shape("turned") == (1, 2, 30, 2) and g.shape("rows") == (1, 1, 60, 3)
    check_net(g, backend, "c.w", "d.w")


def test_refused():
    g = Graph("net", (2, 3), 4)
    with pytest.raises(ShapeError, match=r"node y \(rearrange\): lengths .* do not give each of D=24 elements once"):
        g.rearrange("y", "input", (2, 3), (4, 5), (1, 4))
    with pytest.raises(ShapeError, match="D=24 elements are no 5x1xR"):
        g.reshape("y", "input", (5, 1))
