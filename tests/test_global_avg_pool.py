import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, nchw, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import global_avg_pool


def case(pick):
    shape = map_shape(pick)
    return Case({"x": rng_of(pick).normal(size=shape)}, {}, {"H": shape[1], "W": shape[2]})


subject = Subject(
    "global_avg_pool",
    case,
    oracles.global_avg_pool,
    lambda F, t, a: F.adaptive_avg_pool2d(nchw(t["x"]), 1).flatten(1),
    oracles.absolute(oracles.global_avg_pool),
)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_refused():
    with pytest.raises(ShapeError, match=r"grad_x: dx needs H, which no input tells: call with H=…"):
        global_avg_pool.grad_x(np.ones((2, 3)))
