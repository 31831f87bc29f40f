"""Gradient filtering (arXiv 2301.00330): equations, PyTorch, NumPy, exact special cases, counts, errors."""

import re
from dataclasses import replace

import numba
import numpy as np
import pytest
from filter_cases import Case, cases, error, magnitudes, with_numpy, with_torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.formulas.cost import counts
from refimpl.kernels.passes import ShapeError
from refimpl.methods import gradient_filter as gf
from refimpl.ops import conv2d, passes_of
from validation.instruments.counting import count

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def filtered(case: Case, x, dy, w) -> dict[str, np.ndarray]:
    """Every array that the rule's passes write, called in their order."""
    found = {"x": x, "dy": dy, "w": w}
    for p in case.rule.passes(case.attrs):
        keep = {a: v for a, v in case.attrs.items() if a in p.attributes}
        letters = {d: n for d, n in case.sizes.items() if d in p.letters()}
        found[p.writes[0]] = p(*(found[a] for a in p.reads), **keep, **letters)
    return found


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(["float64", "float32"]))
def test_equals_the_method_in_pytorch(case, dtype):
    arrays = case.arrays(dtype)
    ours, theirs, scale = filtered(case, *arrays), with_torch(case, *arrays), with_torch(case, *magnitudes(arrays))
    for name, value in theirs.items():
        assert ours[name].dtype == dtype
        assert error(ours[name], value, scale[name]) <= TOLERANCE[dtype], name


@settings(max_examples=100, deadline=None)
@given(cases())
def test_equals_the_method_element_by_element(case):
    arrays = case.arrays()
    ours, plain, scale = filtered(case, *arrays), with_numpy(case, *arrays), with_numpy(case, *magnitudes(arrays))
    for name, value in plain.items():
        assert error(ours[name], value, scale[name]) <= 1e-12, name


@settings(max_examples=50, deadline=None)
@given(cases())
def test_eq_2_dy_mean_is_the_mean_of_each_patch(case):
    _, dy, _ = case.arrays()
    ours = gf.pool_dy(dy, patch=case.patch, align=gf.ALIGN[case.align])
    corner = case.before(case.out, case.patch)
    for u, v in np.ndindex(*case.grid):
        rows = slice(*(max((u + i) * case.patch[0] - corner[0], 0) for i in (0, 1)))
        columns = slice(*(max((v + i) * case.patch[1] - corner[1], 0) for i in (0, 1)))
        np.testing.assert_allclose(ours[:, u, v], dy[:, rows, columns].mean((1, 2)), rtol=1e-12, atol=1e-13)


def test_eq_2_corner_patches_start_at_the_first_element_and_centred_ones_are_padded_above():
    dy = np.arange(7.0).reshape(1, 7, 1, 1)
    corner = gf.pool_dy(dy, patch=(3, 1), align=gf.CORNER)
    centre = gf.pool_dy(dy, patch=(3, 1), align=gf.CENTRE)
    assert corner.ravel().tolist() == [1.0, 4.0, 6.0]
    assert centre.ravel().tolist() == [0.5, 3.0, 5.5]
    odd = gf.pool_dy(np.arange(3.0).reshape(1, 3, 1, 1), patch=(2, 1), align=gf.CENTRE)
    assert odd.ravel().tolist() == [0.0, 1.5]  # the odd row of padding is above


@settings(max_examples=50, deadline=None)
@given(cases())
def test_eq_3_dx_of_a_patch_is_dy_mean_times_the_spatial_sum_of_the_kernel(case):
    case = replace(case, dilation=(1, 1), groups=1)
    x, dy, w = case.arrays()
    ours = filtered(case, x, dy, w)
    expected = np.einsum("nuvk,rsck->nuvc", ours["dy_mean"], w)
    scale = np.einsum("nuvk,rsck->nuvc", np.abs(ours["dy_mean"]), np.abs(w))
    assert error(ours["dx_patch"], expected, scale) <= 1e-12
    above, beside = case.before(case.size, case.sides)
    for h, i in np.ndindex(*case.size):
        u, v = (h + above) // case.sides[0], (i + beside) // case.sides[1]
        if 0 <= u < case.grid[0] and 0 <= v < case.grid[1]:
            np.testing.assert_array_equal(ours["dx"][:, h, i], ours["dx_patch"][:, u, v])
        else:
            assert not ours["dx"][:, h, i].any()


@settings(max_examples=50, deadline=None)
@given(cases())
def test_eq_5_one_dw_for_the_whole_window(case):
    x, dy, w = case.arrays()
    ours = filtered(case, x, dy, w)
    np.testing.assert_array_equal(ours["dw"], np.broadcast_to(ours["dw"][0, 0], ours["dw"].shape))
    for c, k in np.ndindex(*w.shape[2:]):
        g = k // case.width
        pairs = ours["x_sum"][..., g * case.depth + c] * ours["dy_mean"][..., k]
        assert abs(ours["dw"][0, 0, c, k] - pairs.sum()) <= 1e-12 * np.abs(pairs).sum()


def test_eq_5_x_sum_is_the_sum_over_each_patch():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    by_hand = x.reshape(2, 2, 2, 3, 2, 3).sum((2, 4))
    np.testing.assert_allclose(gf.pool_x(x, U=2, V=3), by_hand, rtol=1e-12)
    edges = np.add.reduceat(
        np.add.reduceat(x, [0, 2], 1), [0, 1, 4], 2
    )  # patches of 2×3 in the middle: 1, 3, 2 columns
    np.testing.assert_allclose(gf.pool_x(x, U=2, V=3, patch=(2, 3)), edges, rtol=1e-12)
    dw_patch = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(gf.expand_w(dw_patch, R=2, S=3), np.broadcast_to(dw_patch, (2, 3, 3, 4)))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_supplement_b_4_a_patch_is_treated_as_if_it_extended_far_enough(case):
    # one patch's x among zeros, its dy_mean everywhere: the dense gradients on that wide map are the filtered ones
    case = replace(case, groups=1, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)))
    assume(all(r <= h for r, h in zip(case.window, case.size, strict=True)))
    x, dy, w = case.arrays()
    ours = filtered(case, x, dy, w)
    wide = [h + 2 * r - 2 for h, r in zip(case.size, case.window, strict=True)]
    inner = (slice(None), *(slice(r - 1, r - 1 + h) for h, r in zip(case.size, case.window, strict=True)))
    total = np.zeros_like(w)
    for u, v in np.ndindex(*case.grid):
        above, beside = case.before(case.size, case.sides)
        rows = (np.arange(case.size[0]) + above) // case.sides[0] == u
        columns = (np.arange(case.size[1]) + beside) // case.sides[1] == v
        out = [n - r + 1 for n, r in zip(wide, case.window, strict=True)]
        far = np.broadcast_to(ours["dy_mean"][:, u : u + 1, v : v + 1], (case.n, *out, dy.shape[3])).copy()
        alone = np.zeros((case.n, *wide, x.shape[3]))
        alone[inner] = x * np.outer(rows, columns)[None, :, :, None]
        dx = conv2d.grad_x(far, w, H=wide[0], W=wide[1])[inner][:, rows][:, :, columns]
        np.testing.assert_allclose(ours["dx"][:, rows][:, :, columns], dx, rtol=1e-9, atol=1e-12)
        total += conv2d.grad_w(far, alone, R=case.window[0], S=case.window[1])
    np.testing.assert_allclose(ours["dw"], total, rtol=1e-9, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 4))
def test_exact_for_a_pointwise_kernel_and_dy_constant_on_patches(case, patch):
    case = replace(case, window=(1, 1), stride=(1, 1), pad=((0, 0), (0, 0)), patch=(patch, patch))
    x, dy, w = case.arrays()
    mean = gf.pool_dy(dy, patch=case.patch, align=gf.ALIGN[case.align])
    dy = gf.expand(mean, H=case.out[0], W=case.out[1], patch=case.patch, align=gf.ALIGN[case.align])
    ours = filtered(case, x, dy, w)
    dx = conv2d.grad_x(dy, w, H=case.size[0], W=case.size[1], G=case.groups)
    dw = conv2d.grad_w(dy, x, R=1, S=1, G=case.groups)
    big = magnitudes((x, dy, w))
    assert error(ours["dx"], dx, conv2d.grad_x(big[1], big[2], H=case.size[0], W=case.size[1], G=case.groups)) <= 1e-12
    assert error(ours["dw"], dw, conv2d.grad_w(big[1], big[0], R=1, S=1, G=case.groups)) <= 1e-12


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([(3, 3), (5, 1), (1, 3)]), st.integers(2, 4))
def test_dilated_branch_of_patch_1_is_the_dense_dx(case, window, d):
    pad = tuple((d * (r - 1) // 2, d * (r - 1) // 2) for r in window)
    case = replace(case, window=window, stride=(1, 1), dilation=(d, d), pad=pad, patch=(1, 1))
    x, dy, w = case.arrays()
    geometry = {"H": case.size[0], "W": case.size[1], "G": case.groups, "dilation": (d, d), "pad": pad}
    dense, scale = conv2d.grad_x(dy, w, **geometry), conv2d.grad_x(np.abs(dy), np.abs(w), **geometry)
    assert case.rule.dilated(case.attrs)
    assert error(filtered(case, x, dy, w)["dx"], dense, scale) <= 1e-12


@pytest.mark.parametrize("name", sorted(passes_of(gf)))
@settings(max_examples=25, deadline=None)
@given(cases(channels=2))
def test_counts_equal_the_formulas_and_the_count_of_every_item(name, case):
    p = passes_of(gf)[name]
    attrs = p.attrs(case.attrs)
    counted = count(p, case.sizes, attrs)
    assert counted == counts("gradient_filter", name, case.sizes, attrs)
    assert counted == count(p, case.sizes, attrs, every_item=True)


def test_same_bits_with_one_and_two_threads():
    threads = numba.get_num_threads()
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread here")
    case = Case(3, (31, 29), 2, 2, 3, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (2, 2), "centre", 0)
    arrays = case.arrays("float32")
    try:
        numba.set_num_threads(1)
        one = filtered(case, *arrays)
        numba.set_num_threads(2)
        two = filtered(case, *arrays)
    finally:
        numba.set_num_threads(threads)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_rule_names_the_passes_that_replace_the_dense_ones():
    names = lambda rule, attrs: [p.name for p in rule.passes(attrs)]  # noqa: E731
    plain = ["pool_x", "pool_dy", "sum_w", "patch_grad", "expand", "patch_grad_w", "expand_w"]
    dilated = ["pool_x", "pool_dy", "patch_grad_dilated", "expand", "patch_grad_w", "expand_w"]
    assert names(gf.GradientFilter(), {}) == plain
    assert names(gf.GradientFilter(4), {"dilation": (2, 3)}) == plain
    assert names(gf.GradientFilter(1), {"dilation": (1, 1)}) == plain
    assert names(gf.GradientFilter(2), {"dilation": (2, 2)}) == dilated
    assert names(gf.GradientFilter((2, 8)), {"dilation": (4, 4)}) == dilated
    assert gf.GradientFilter(3) == gf.GradientFilter((3, 3)) and gf.GradientFilter.operators == ("conv2d",)
    assert gf.GradientFilter(3, "corner").attrs() == {"patch": (3, 3), "align": gf.CORNER}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"patch": (2, -1)}, "patch must be at least 1, got -1"),
        ({"patch": 2.5}, "patch must be an integer or two, got 2.5"),
        ({"patch": (1, 2, 3)}, "patch must be an integer or two, got (1, 2, 3)"),
        ({"patch": True}, "patch must be an integer or two, got True"),
        ({"align": "left"}, "align must be centre or corner, got 'left'"),
    ],
)
def test_rule_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        gf.GradientFilter(**arguments)


def test_passes_refuse():
    dy = np.ones((1, 4, 4, 2))
    with pytest.raises(ShapeError, match="^patch must be at least 1, got 0$"):
        gf.pool_dy(dy, patch=0)
    with pytest.raises(ShapeError, match="^the call has U=3, but the operator gives U=2$"):
        gf.pool_dy(dy, U=3, patch=2)
    with pytest.raises(ShapeError, match="x_sum needs U, which no input tells: call with U=…"):
        gf.pool_x(dy)
    with pytest.raises(ShapeError, match="w_sum has K=3, but dy_mean has K=2"):
        gf.patch_grad(dy, np.ones((2, 3)))
    with pytest.raises(ShapeError, match="^K=2 is not a multiple of G=3 groups$"):
        gf.patch_grad(dy, np.ones((2, 2)), G=3)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_on_constant_maps_gradients_are_exact_but_for_the_square_of_the_stride(stride):
    rng = np.random.default_rng(0)
    side, w = 12 * stride, rng.normal(size=(1, 1, 3, 4))
    x, dy = np.ones((2, side, side, 3)) * rng.normal(size=3), np.ones((2, 12, 12, 4)) * rng.normal(size=4)
    at = {"stride": (stride, stride)}
    mean = gf.pool_dy(dy, patch=(2, 2), align=gf.CENTRE)
    sums = gf.pool_x(x, patch=(2, 2), align=gf.CENTRE, **at, U=6, V=6)
    dw, dx = gf.patch_grad_w(mean, sums, G=1), gf.patch_grad(mean, gf.sum_w(w), G=1, C=3)
    exact_w, exact_x = conv2d.grad_w(dy, x, **at, R=1, S=1)[0, 0], conv2d.grad_x(dy, w, **at, H=side, W=side)
    np.testing.assert_allclose(dw, stride**2 * exact_w, rtol=1e-12)
    np.testing.assert_allclose(dx.mean((0, 1, 2)), stride**2 * exact_x.mean((0, 1, 2)), rtol=1e-12)
