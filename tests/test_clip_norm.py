import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, distance, torch_or_none
from refimpl.kernels.passes import ShapeError
from refimpl.ops import clip_norm


@given(
    st.lists(st.sampled_from([(1,), (3, 5), (4096,), (4097,), (100, 90)]), min_size=1, max_size=3),
    st.sampled_from([0.1, 1e6]),
    st.sampled_from(["float64", "float32"]),
)
def test_factor_as_torch_and_by_hand(shapes, max_norm, dtype):
    rng = np.random.default_rng(len(shapes))
    gradients = [rng.normal(size=s).astype(dtype) for s in shapes]
    partials = np.concatenate([clip_norm.partial_squares(g) for g in gradients])
    assert len(partials) == sum(-(-g.size // clip_norm.SLICE) for g in gradients)
    norm, clip = clip_norm.factor(partials, max_norm=max_norm)
    wanted = np.sqrt(sum(np.sum(g.astype(float) ** 2) for g in gradients))
    bound = 1e-12 if dtype == "float64" else 1e-5
    assert distance(norm, [wanted]) <= bound
    assert distance(clip, [min(1, max_norm / (wanted + 1e-6))]) <= bound
    check_threads(clip_norm.partial_squares, {"dw": gradients[-1]}, {}, {})
    check_counts(clip_norm.factor, {"all_partials": partials}, {"max_norm": max_norm}, {})
    check_counts(clip_norm.partial_squares, {"dw": gradients[-1]}, {}, {})
    torch = torch_or_none()
    if torch is None:
        return
    parameters = [torch.nn.Parameter(torch.tensor(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = torch.tensor(g)
    total = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    assert distance(norm, [total.item()]) <= bound
    for p, g in zip(parameters, gradients, strict=True):
        assert distance(g * clip[0], p.grad.numpy()) <= bound


def test_nan_reaches_the_factor():
    norm, clip = clip_norm.factor(clip_norm.partial_squares(np.array([1.0, np.nan])))
    assert np.isnan(norm[0]) and np.isnan(clip[0])


def test_refused():
    with pytest.raises(ShapeError, match=r"max_norm must be at least 0, got -1\.0"):
        clip_norm.factor(np.ones(2), max_norm=-1.0)
