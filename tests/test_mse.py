import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import mse


def case(pick):
    shape = map_shape(pick) if pick(0, 1) else (pick(1, 4), pick(1, 6))
    rng = rng_of(pick)
    return Case({"x": rng.normal(size=shape), "target": rng.normal(size=shape)})


subject = Subject("mse", case, oracles.mse, lambda F, t, a: F.mse_loss(t["x"], t["target"]).reshape(1), output="loss")
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_refused():
    with pytest.raises(ShapeError, match=r"target has shape \(2, 6\), but x has \(2, 3, 2\)"):
        mse.sample_losses(np.ones((2, 3, 2)), np.ones((2, 6)))
