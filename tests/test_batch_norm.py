import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from checks import Case, Subject, check_counts, check_threads, distance, map_shape, nchw, nhwc, rng_of, torch_or_none
from refimpl.kernels.passes import ShapeError
from refimpl.ops import batch_norm


def case(pick):
    shape = map_shape(pick)
    if shape[:3] == (1, 1, 1):
        shape = (2, 1, 1, shape[3])
    rng = rng_of(pick)
    arrays = {
        "x": rng.normal(size=shape) * 2 + 1,
        "gamma": rng.normal(size=shape[3]),
        "beta": rng.normal(size=shape[3]),
    }
    return Case(arrays, {"eps": (1e-5, 1e-3)[pick(0, 1)]})


def torch_batch_norm(F, t, attrs):
    return nhwc(F.batch_norm(nchw(t["x"]), None, None, t["gamma"], t["beta"], training=True, eps=attrs["eps"]))


subject = Subject("batch_norm", case, oracles.batch_norm, torch_batch_norm, oracles.batch_norm_scale)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@given(st.integers(2, 9), st.integers(1, 4), st.sampled_from([0.1, 0.01, 1.0]), st.sampled_from(["float32", "float64"]))
def test_running_statistics_as_torch(n, channels, momentum, dtype):
    rng = np.random.default_rng(n * channels)
    x = rng.normal(size=(n, 1, 1, channels)).astype(dtype)
    old_mean, old_var = rng.normal(size=channels).astype(dtype), rng.random(channels).astype(dtype)
    mean = batch_norm.mean(x)
    var, unbiased = batch_norm.var(x, mean)
    new_mean = batch_norm.update_mean(old_mean, mean, momentum=momentum)
    new_var = batch_norm.update_var(old_var, unbiased, momentum=momentum)
    bound = 1e-12 if dtype == "float64" else 1e-5
    wanted_mean = (1 - momentum) * old_mean + momentum * x.astype(float).mean((0, 1, 2))
    wanted_var = (1 - momentum) * old_var + momentum * x.astype(float).var((0, 1, 2), ddof=1)
    scale = np.abs(old_mean) + np.abs(x).mean((0, 1, 2))
    assert distance(new_mean, wanted_mean, scale) <= bound and distance(new_var, wanted_var) <= bound
    for passed, arrays in (
        (batch_norm.update_mean, {"running_mean": old_mean, "mean": mean}),
        (batch_norm.update_var, {"running_var": old_var, "unbiased_var": unbiased}),
    ):
        check_counts(passed, arrays, {"momentum": momentum}, {})
        check_threads(passed, arrays, {"momentum": momentum}, {})
    torch = torch_or_none()
    if torch is None:
        return
    theirs = [torch.tensor(old_mean), torch.tensor(old_var)]
    torch.nn.functional.batch_norm(nchw(torch.tensor(x)), *theirs, training=True, momentum=momentum)
    assert distance(new_mean, theirs[0].numpy(), scale) <= bound and distance(new_var, theirs[1].numpy()) <= bound


def test_one_value_a_channel_is_refused_like_torch():
    x = np.ones((1, 1, 1, 3))
    with pytest.raises(ShapeError, match="expected more than 1 value per channel when training, but x has N·H·W = 1"):
        batch_norm.var(x, batch_norm.mean(x))
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        torch.nn.functional.batch_norm(nchw(torch.tensor(x)), None, None, training=True)
