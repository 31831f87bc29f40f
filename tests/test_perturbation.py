import numpy as np
import pytest
from forward_gradient_oracle import normal
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads
from refimpl.kernels.random import bell, words
from refimpl.ops import perturbation

ONE = np.ones(1)


def given_arrays(elements, draws, seed, dtype=np.float64):
    """Weights, seed, numbers of draws and their coefficients."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=elements).astype(dtype)
    return w, np.array([seed]), rng.integers(0, 2**40, draws), rng.normal(size=draws).astype(dtype)


@given(st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4, 5)]), st.integers(1, 4), st.integers(0, 2**40), st.booleans())
def test_the_sum_of_draws_is_that_of_numpy(shape, draws, seed, signs):
    w, seeds, numbers, c = given_arrays(shape, draws, seed)
    z = [normal(seed, 5, int(number), shape, signs) for number in numbers]
    wanted = sum(a * one for a, one in zip(c, z, strict=True))
    found = perturbation.estimate(w, seeds, numbers, c, stream=5, signs=signs)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    moved = perturbation.perturb(w, seeds, numbers, c, stream=5, signs=signs)
    np.testing.assert_allclose(moved, w + wanted, atol=1e-12)
    scales = np.arange(1.0, draws)
    if draws > 1:
        wanted = wanted + sum((s - 1) * a * one for s, a, one in zip(scales, c, z, strict=False))
        np.testing.assert_allclose(
            perturbation.estimate(w, seeds, numbers, c, scales=scales, stream=5, signs=signs), wanted, atol=1e-12
        )
    for passed in (perturbation.perturb, perturbation.estimate):
        arrays = {"w": w, "seed": seeds, "draws": numbers, "coefficients": c}
        check_threads(passed, arrays, {"signs": signs}, {})
        check_counts(passed, arrays, {"signs": signs}, {})


def test_a_draw_has_the_moments_of_a_normal_variable():
    z = perturbation.estimate(np.zeros(200_000), np.array([1]), np.array([4]), ONE)
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) and abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))
    assert abs(np.mean(z**4) - 2.85) < 0.05 and np.abs(z).max() < 4.881
    first, second = words(1, 0, 4, 17)
    assert z[17] == bell(first, second) * perturbation.UNIT


def test_no_draw_is_like_another():
    zero = np.zeros(5_000)
    draw = lambda seed, number, stream: perturbation.estimate(  # noqa: E731
        zero, np.array([seed]), np.array([number]), ONE, stream=stream
    )
    all_of_them = [
        draw(1, 0, 0),
        draw(2, 0, 0),
        draw(1, 1, 0),
        draw(1, 0, 1),
        draw(1, 2**32 - 1, 0),
        draw(2**33 + 1, 0, 0),
    ]
    close = np.corrcoef(all_of_them) - np.eye(len(all_of_them))
    assert np.abs(close).max() < 0.06


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_guide_is_followed(dtype):
    w, seeds, numbers, c = given_arrays(50, 2, 9, dtype)
    guide, share = np.linspace(-1, 1, 50).astype(dtype), np.array([0.25], dtype)
    attrs = {"stream": 6, "deviation": 0.8, "spread": 0.6}
    z = [
        0.25 * 0.8 * normal(9, 6, int(d), 50) + 0.75 * (guide + 0.6 * normal(9, 7, int(d), 50)) for d in numbers
    ]  # fmt: skip
    found = perturbation.estimate(w, seeds, numbers, c, guide=guide, share=share, **attrs)
    np.testing.assert_allclose(found, c[0] * z[0] + c[1] * z[1], atol=1e-5)
    np.testing.assert_allclose(perturbation.follow(guide, seeds, numbers, share, **attrs), z[1], atol=1e-5)
    check_counts(perturbation.follow, {"guide": guide, "seed": seeds, "draws": numbers, "share": share}, attrs, {})


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([np.float32, np.float64]), st.integers(0, 9))
def test_the_threshold_lets_the_largest_through(elements, keep, dtype, seed):
    w = np.random.default_rng(seed).normal(size=elements).astype(dtype)
    keep = min(keep, elements)
    least = perturbation.magnitude(w, keep=keep)
    assert np.count_nonzero(np.abs(w) >= least[0]) == keep
    assert np.sort(np.abs(w))[-keep] - least[0] <= np.abs(w).max() * 2.0**-20


def test_the_threshold_of_equal_weights_lets_all_of_them_through():
    for w in (np.zeros(5), np.full(5, 0.5), np.array([0.5, -0.5, 0.1, 0.5])):
        least = perturbation.magnitude(w, keep=2)
        assert np.count_nonzero(np.abs(w) >= least[0]) == np.count_nonzero(np.abs(w) == np.abs(w).max())
    check_counts(perturbation.magnitude, {"w": w}, {"keep": 2}, {})


def test_a_random_share_takes_part_and_another_one_in_the_next_step():
    w = np.ones(20_000)
    taken = [
        perturbation.estimate(w, np.array([3]), np.array([0]), ONE, step=np.array([step]), chosen=0.2, signs=True)
        for step in (1, 1, 2)
    ]
    first, again, other = (np.abs(one) for one in taken)
    assert set(np.unique(first)) == {0, 1} and abs(first.mean() - 0.2) < 0.012
    np.testing.assert_array_equal(first, again)
    assert 0.03 < np.mean(first * other) < 0.05  # 0.2²: independent


@pytest.mark.parametrize("elements", [5, 4096, 4097, 9000])
def test_eq_9_the_ratio_of_norms(elements):
    w, seeds, numbers, _ = given_arrays(elements, 3, 4)
    squares = perturbation.squares(w, seeds, numbers, M=2)
    z = np.stack([normal(4, 0, int(d), elements) for d in numbers[:2]])
    np.testing.assert_allclose(squares.sum(1), np.sum(z**2, 1), rtol=1e-12)
    of_w = np.array([np.sum(w**2) / 4, np.sum(w**2) * 3 / 4])
    of_z = np.stack([squares.sum(1), np.zeros(2)], 1)
    wanted = np.linalg.norm(w) / np.linalg.norm(z, axis=1)
    np.testing.assert_allclose(perturbation.norm_ratio(of_w, of_z), wanted, rtol=1e-12)
    check_threads(perturbation.squares, {"w": w, "seed": seeds, "draws": numbers}, {}, {"M": 2})
    check_counts(perturbation.norm_ratio, {"w_squares": of_w, "z_squares": of_z}, {}, {})


def test_a_norm_of_zero_is_guarded():
    ratio = perturbation.norm_ratio(np.array([0.0, 0.0]), np.array([[1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(ratio, [1e-3, 1e-3])
    assert perturbation.norm_ratio(np.array([4.0]), np.array([[0.0], [1.0]])).tolist() == [1e-3, 2.0]
