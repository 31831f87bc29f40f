import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import one_hot


def case(pick):
    depth = pick(1, 6)
    x = rng_of(pick).integers(-depth - 1, depth + 2, (*map_shape(pick)[:3], 1)).astype(float)
    return Case({"x": x}, {"depth": depth, "on": pick(0, 4) / 2, "off": -pick(0, 4) / 2})


def by_torch(F, t, attrs):
    depth, x = attrs["depth"], t["x"].long()[..., 0]
    outside = (x < -depth) | (x >= depth)
    hot = F.one_hot(x.where(~outside, depth + 0 * x) % (depth + 1) + (x < 0) * ~outside * -1, depth + 1)[..., :depth]
    return (attrs["off"] + (attrs["on"] - attrs["off"]) * hot).to(t["x"])


subject = Subject("one_hot", case, oracles.one_hot, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_what_is_no_index():
    x = np.array([-4, -3, 2, 3, 0.5, np.nan], np.float32).reshape(1, 1, 6, 1)
    assert one_hot.forward(x, depth=3)[0, 0].tolist() == [[0] * 3, [1, 0, 0], [0, 0, 1], *[[0] * 3] * 3]
    with pytest.raises(ShapeError, match="depth must be 1 and more, and C=1, got 3 and C=2"):
        one_hot.forward(np.zeros((1, 1, 3, 2)), depth=3)
