import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, nchw, nhwc, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import frozen_batch_norm


def case(pick):
    shape = map_shape(pick)
    rng = rng_of(pick)
    arrays = {a: rng.normal(size=shape[3]) for a in ("gamma", "beta", "running_mean")}
    arrays |= {"x": rng.normal(size=shape), "running_var": rng.random(shape[3]) + 0.01}
    return Case(arrays, {"eps": (1e-5, 1e-3)[pick(0, 1)]})


def torch_frozen(F, t, attrs):
    statistics = t["running_mean"], t["running_var"]
    return nhwc(F.batch_norm(nchw(t["x"]), *statistics, t["gamma"], t["beta"], eps=attrs["eps"]))


subject = Subject("frozen_batch_norm", case, oracles.frozen_batch_norm, torch_frozen, oracles.frozen_batch_norm_scale)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_refused_like_torch():
    x, c = np.ones((1, 2, 2, 3)), np.ones(4)
    with pytest.raises(ShapeError, match="scale has C=4, but x has C=3"):
        frozen_batch_norm.forward(x, c, c)
    torch = pytest.importorskip("torch")
    c = torch.tensor(c)
    with pytest.raises(RuntimeError, match="running_mean should contain 3 elements not 4"):
        torch.nn.functional.batch_norm(nchw(torch.tensor(x)), c, c, c, c)
