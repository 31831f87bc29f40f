"""8-bit training against plain NumPy integers: rounding at random, products, combinations, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from nets import NETS
from rule_cases import Together, cases, groups_of, thorough

import oracles
import refimpl as ri
from checks import Case
from refimpl.kernels import random
from refimpl.kernels.passes import ShapeError
from refimpl.methods import gradient_filter, quantized
from refimpl.methods.gradient_filter_quantized import patch_grad_w
from refimpl.methods.quantized import WIDE_LEVELS, QuantizedTraining

SEED, STEP = np.array([3], np.int64), np.array([7], np.int64)
GIVEN = {"seed": SEED, "step": STEP}
SCHEMES = quantized.SCHEMES


def scale(v, levels, axes=None):
    """The largest magnitude as the largest whole number; of zeros 1."""
    most = np.abs(v).max(axes)
    return np.where(most > 0, most / levels, 1.0)


def nearest(v, levels):
    """Whole numbers, a half upwards, and their scale."""
    s = scale(v, levels)
    return np.floor(v / s + 0.5).clip(-levels, levels).astype(np.int64), s


def at_random(v, levels, per_sample, word=0, stream=0):
    """Whole numbers by the words of the generator, and the scale of each sample."""
    s = scale(v, levels, (1, 2, 3)) if per_sample else np.full(len(v), scale(v, levels))
    ratio = v / s[:, None, None, None]
    drawn = random.words_array(int(SEED[0]), stream, int(STEP[0]), v.size)[word].reshape(v.shape)
    up = drawn < np.floor((ratio - np.floor(ratio)) * 2.0**32)
    return (np.floor(ratio) + up).clip(-levels, levels).astype(np.int64), s


def products(x, w, dy, rule, attrs, dy_w=None):
    """Dx and dw by products of int64, each sample for itself; dy_w: the array that dw takes, default dy."""
    (x_q, s_x), (w_q, s_w) = (nearest(v, rule.levels) for v in (x, w))
    dy_q, s_dy = at_random(dy, rule.levels, rule.scheme == "psq")
    dy_w = dy if dy_w is None else dy_w
    wide = (WIDE_LEVELS, False, 1) if rule.scheme == "banner" else (rule.levels, rule.scheme == "psq")
    dy_wide, s_wide = at_random(dy_w, *wide)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n in range(len(x)):
        one = oracles.conv2d({"x": x_q[n : n + 1], "w": w_q, "dy": dy_q[n : n + 1]}, attrs)
        other = oracles.conv2d({"x": x_q[n : n + 1], "w": w_q, "dy": dy_wide[n : n + 1]}, attrs)
        dx[n] = s_dy[n] * s_w * one["dx"][0]
        dw += s_wide[n] * s_x * other["dw"]
    return {"dx": dx, "dw": dw}


def close(found, wanted, tolerance=1e-12):
    """Equal but for the rounding of a few floats."""
    scale = max(np.abs(wanted).max(), 1e-30)
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= tolerance * scale


def together(case, *rules):
    return Together(rules, Case(case.arrays | GIVEN, case.attrs))


# Rounding.


@pytest.mark.parametrize("part", range(257))
def test_unbiased_rounding_takes_as_many_words_up_as_the_number_lies_above(part):
    """Of 2^32 words exactly share·2^32 round up: those below it, and 256 evenly spaced ones show it."""
    ups = [quantized.stochastic_round(-3, part / 256, word << 24, quantized.WORDS) + 3 for word in range(256)]
    assert sum(ups) == part and ups == sorted(ups, reverse=True)
    end = part << 24
    assert [quantized.stochastic_round(5, part / 256, word, quantized.WORDS) for word in (end - 1, end)] == [6, 5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unbiased_rounding_has_the_mean_of_what_was_rounded(dtype):
    """arXiv 2010.14298: both quantizers are unbiased, and their variance is that of a coin, f·(1 − f)·s²."""
    dy = np.random.default_rng(0).normal(size=(2, 1, 3, 2)).astype(dtype)
    dy[1] *= 0.01
    for scales in (quantized.sample_scales, quantized.batch_scales):
        s, count = scales(quantized.most_dy(dy)), 4000
        each = [quantized.stochastic(dy, s, np.array([i], np.int64), SEED) for i in range(count)]
        real = np.array(each, float) * s.astype(float)[:, None, None, None]
        ratio = dy.astype(float) / s.astype(float)[:, None, None, None]
        share = ratio - np.floor(ratio)
        deviation = np.sqrt(share * (1 - share)) * s.astype(float)[:, None, None, None]
        assert (np.abs(real.mean(0) - dy) <= 4.5 * deviation / count**0.5 + 1e-6 * np.abs(dy).max()).all()
        assert np.abs(real.std(0) - deviation).max() <= 0.05 * s.max()


@given(cases())
@thorough
def test_whole_numbers_are_those_of_numpy(case):
    dy, x = case.arrays["dy"], case.arrays["x"]
    for levels in (1, 7, 127):
        most = quantized.most_dy(dy)
        for scales, apart in ((quantized.sample_scales, True), (quantized.batch_scales, False)):
            s = scales(most, levels=levels)
            q, wanted = at_random(dy, levels, apart, stream=levels)
            assert np.array_equal(s, wanted)
            found = quantized.stochastic(dy, s, STEP, SEED, levels=levels, stream=levels)
            assert found.dtype == np.int8 and np.array_equal(found, q)
        s = quantized.tensor_scale(quantized.most(x), levels=levels)
        found, (q, wanted) = quantized.nearest(x, s, levels=levels), nearest(x, levels)
        assert s[0] == wanted and found.dtype == np.int8 and np.array_equal(found, q)
    s = quantized.batch_scales(most, levels=WIDE_LEVELS)
    wide = quantized.stochastic_wide(dy, s, STEP, SEED, stream=3)
    q, _ = at_random(dy, WIDE_LEVELS, False, 1, 3)
    assert wide.dtype == np.int16 and np.array_equal(wide, q)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_one_element_and_ends(dtype):
    zeros, one = np.zeros((2, 3), dtype), np.array([[-2.5]], dtype)
    for v, q, s in ((zeros, 0, 1.0), (one, -127, dtype(2.5) / dtype(127))):
        most = quantized.most(v)
        scales = quantized.sample_scales(most), quantized.batch_scales(most), quantized.tensor_scale(most)
        assert all((found == s).all() for found in scales)
        assert (quantized.nearest(v, scales[2]) == q).all()
        for step in range(50):
            assert (quantized.stochastic(v, scales[0], np.array([step], np.int64), SEED) == q).all()
    beyond = np.array([[400.0, -400.0, 126.5, 0.49]], dtype)  # by a scale that is too small they stay at the ends
    assert quantized.nearest(beyond, np.ones(1, dtype)).tolist() == [[127, -127, 127, 0]]
    assert quantized.stochastic(beyond, np.ones(1, dtype), STEP, SEED)[0, :2].tolist() == [127, -127]
    least = np.full((1, 2), np.finfo(dtype).smallest_subnormal)
    assert quantized.sample_scales(quantized.most(least)).tolist() == [1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_what_is_not_finite_makes_its_scale_so(bad, at):
    v = np.ones((2, 3), np.float32)
    v.flat[at] = bad
    most = quantized.most(v)
    assert np.isfinite(most).tolist() == [at > 2, at < 3]
    assert not np.isfinite(quantized.tensor_scale(most)).any()
    assert not np.isfinite(quantized.batch_scales(most)).any()


def small_and_large(scales):
    """Of a sample and of a thousandth of it: their scales, and their largest whole numbers."""
    dy = np.random.default_rng(1).normal(size=(1, 4, 3, 2)) * np.array([1, 1e-3]).reshape(2, 1, 1, 1)
    s = scales(quantized.most_dy(dy))
    return s, np.abs(quantized.stochastic(dy, s, STEP, SEED)).max((1, 2, 3)).tolist()


def test_per_sample_quantizer_gives_a_small_sample_all_of_its_levels():
    s, largest = small_and_large(quantized.sample_scales)
    assert s[0] == pytest.approx(1000 * s[1]) and largest == [127, 127]


def test_per_tensor_quantizer_leaves_a_small_sample_hardly_any():
    s, largest = small_and_large(quantized.batch_scales)
    assert s[0] == s[1] and largest[0] == 127 and largest[1] <= 1


@given(cases())
@thorough
def test_gradient_bifurcation_takes_sixteen_bits_for_dw_and_eight_for_dx(case):
    node, a = together(case, QuantizedTraining("banner")), case.arrays
    wide, s_wide = at_random(a["dy"], WIDE_LEVELS, False, 1)
    narrow, s_narrow = at_random(a["dy"], 127, False)
    assert np.array_equal(quantized.stochastic_wide(a["dy"], s_wide, STEP, SEED), wide)
    assert np.array_equal(quantized.stochastic(a["dy"], s_narrow, STEP, SEED), narrow)
    node["dw"], node["dx"]
    read = {p.name: arrays["dy_q"].dtype for p, arrays, *_ in node.calls if "dy_q" in arrays}
    assert read == {"grad_w": np.int16, "grad_x": np.int8}


# Products.


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 5, 8])
@given(cases())
@thorough
def test_gradients_are_products_of_whole_numbers(scheme, bits, case):
    """arXiv 2010.14298 and 1805.11046: dx and dw of whole numbers, to the last of them."""
    rule = QuantizedTraining(scheme, bits)
    node, a = together(case, rule), case.arrays
    wanted = products(a["x"], a["w"], a["dy"], rule, case.attrs)
    for name in ("dx", "dw"):
        close(node[name], wanted[name])
    close(node["db"], a["dy"].sum((0, 1, 2)))
    ran = {p.name for p, *_ in node.calls if p.operator == "quantized"}
    assert {"grad_x", "grad_w", "stochastic", "nearest"} <= ran and ("stochastic_wide" in ran) == (scheme == "banner")


@given(cases())
@thorough
def test_the_forward_pass_of_banner_is_a_product_of_whole_numbers(case):
    """arXiv 1805.11046: x and w are of 8 bits in the forward pass too, with a bias or without one."""
    a, b = case.arrays, np.random.default_rng(0).normal(size=case.arrays["w"].shape[3])
    (x_q, s_x), (w_q, s_w) = (nearest(a[name], 127) for name in "xw")
    wanted = s_x * s_w * oracles.conv2d({"x": x_q, "w": w_q}, case.attrs)["y"]
    node = together(case, QuantizedTraining("banner"))
    assert [p.passed for p in node.node.passes if "y" in p.writes] == [quantized.forward]
    arrays = [node[name] for name in ("x_q", "w_q", "x_scale", "w_scale")]
    close(quantized.forward(*arrays, **case.attrs), wanted)
    close(quantized.forward(*arrays, b, **case.attrs), wanted + b)
    for scheme in ("psq", "ptq"):
        assert not [p for p in together(case, QuantizedTraining(scheme)).node.passes if "y" in p.writes]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_eight_bits_are_close_to_the_dense_gradient_and_more_bits_closer(scheme):
    rng = np.random.default_rng(5)
    arrays = {
        "x": rng.normal(size=(3, 7, 6, 4)),
        "w": rng.normal(size=(3, 3, 4, 5)),
        "dy": rng.normal(size=(3, 5, 4, 5)),
    }
    case = Case(arrays)
    wanted = oracles.conv2d(arrays | {"b": np.zeros(5)}, {})
    errors = {}
    for bits in (3, 5, 8):
        node = together(case, QuantizedTraining(scheme, bits))
        errors[bits] = max(np.linalg.norm(node[g] - wanted[g]) / np.linalg.norm(wanted[g]) for g in ("dx", "dw"))
    assert errors[8] < 0.05 and errors[8] < errors[5] < errors[3]


def test_a_sum_that_may_overflow_is_refused_with_the_most_that_fits():
    """127·127·133,144 < 2^31 ≤ 127·127·133,145, and 127·32767·516 < 2^31 ≤ 127·32767·517."""
    assert 127 * 127 * 133_144 < 2**31 <= 127 * 127 * 133_145
    assert 127 * 32767 * 516 < 2**31 <= 127 * 32767 * 517
    q = lambda *shape: np.full(shape, 127, np.int8)  # noqa: E731
    one, ones = np.ones(1), np.ones(1)
    for columns, dy in ((133_144, q(1, 1, 133_144, 1)), (516, np.full((1, 1, 516, 1), 32767, np.int16))):
        most = int(dy.max())
        found = quantized.grad_w(dy, q(1, 1, columns, 1), ones, one, R=1, S=1, levels=most)
        assert found.item() == 127 * most * columns
        longer = np.concatenate([dy, dy[:, :, :1]], 2)
        with pytest.raises(ShapeError, match=rf"overflow 32 bits: the columns Q of dy must be at most {columns}$"):
            quantized.grad_w(longer, q(1, 1, columns + 1, 1), ones, one, R=1, S=1, levels=most)
    with pytest.raises(ShapeError, match=r"^a sum of 133145 products .* R·S·K/G must be at most 133144$"):
        quantized.grad_x(q(1, 1, 1, 133_145), q(1, 1, 1, 133_145), ones, one, H=1, W=1)
    with pytest.raises(ShapeError, match=r"R·S·C/G must be at most 133144$"):
        quantized.forward(q(1, 1, 1, 133_145), q(1, 1, 133_145, 1), one, one)
    with pytest.raises(ShapeError, match=r"the columns V of patches must be at most 516$"):
        patch_grad_w(np.ones((1, 1, 517, 1), np.int16), q(1, 1, 517, 1), ones, one, levels=WIDE_LEVELS)
    many = quantized.grad_w(q(2, 300, 600, 1), q(2, 300, 600, 1), np.ones(2), one, R=1, S=1)
    assert many.item() == 127 * 127 * 2 * 300 * 600 > 2**31  # rows add up in 64 bits


def test_a_net_whose_rows_are_too_long_is_refused_where_dw_takes_sixteen_bits():
    g = ri.Graph("wide", (1, 517), 1)
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", "input", 2, 1)), 2)
    ri.compile(g, ri.Plan(rules=[QuantizedTraining("psq")]), 2)
    with pytest.raises(ShapeError, match=r"node conv .*the columns Q of dy must be at most 516$"):
        ri.compile(g, ri.Plan(rules=[QuantizedTraining("banner")]), 2)


def test_a_sum_is_kept_in_32_bits():
    """Of more than fits the body wraps as an accumulator of 32 bits does: what is refused would go wrong."""
    ends = np.full((1, 1, 1, 133_145), 127, np.int8)
    dx = np.zeros((1, 1, 1, 1))
    quantized.grad_x.kernel(1, dx, ends, ends, np.ones(1), np.ones(1), (1, 1), (1, 1), ((0, 0), (0, 0)))
    assert dx.item() == 127 * 127 * 133_145 - 2**32


# Combinations.

FILTERS = [ri.GradientFilter(2), ri.GradientFilter((1, 3), "corner")]


def check_filtered(node, rule):
    """Dx and dw of a filtered convolution are those of its quantized patches, by NumPy."""
    attrs, w = node.node.attrs, node[node.node.names.get("w", "w")]
    dy_mean, x_sum = node["dy_mean"], node["x_sum"]
    dy_q, s_dy = at_random(dy_mean, rule.levels, rule.scheme == "psq")
    wide = (WIDE_LEVELS, False, 1) if rule.scheme == "banner" else (rule.levels, rule.scheme == "psq")
    dy_wide, s_wide = at_random(dy_mean, *wide)
    x_q, s_x = nearest(x_sum, rule.levels)
    depth, groups = w.shape[2], x_sum.shape[3] // w.shape[2]
    split = lambda v: v.reshape(*v.shape[:3], groups, -1)  # noqa: E731
    dw = np.zeros((depth, w.shape[3]))
    for n in range(len(x_sum)):
        whole = np.einsum("uvgc,uvgk->cgk", split(x_q)[n], split(dy_wide)[n])
        dw += s_wide[n] * s_x * whole.reshape(depth, -1)
    close(node["dw_patch"], dw)
    operand = node["w_sum"] if "w_sum" in node.values or not dilated(node) else w
    w_q, s_w = nearest(operand, rule.levels)
    rows, columns = (0, 0) if operand.ndim == 2 else [
        d // r if d > 1 else 0 for d, r in zip(attrs["dilation"], attrs["patch"], strict=True)
    ]  # fmt: skip
    kernel = w_q.reshape(1, 1, *w_q.shape) if operand.ndim == 2 else w_q
    dx, shape = np.zeros(x_sum.shape[:3] + (groups, depth)), dy_q.shape
    for r, s in np.ndindex(*kernel.shape[:2]):
        i = np.arange(shape[1]) + rows * (kernel.shape[0] - 1) // 2 - r * rows
        j = np.arange(shape[2]) + columns * (kernel.shape[1] - 1) // 2 - s * columns
        for u, v in np.ndindex(*shape[1:3]):
            if 0 <= i[u] < shape[1] and 0 <= j[v] < shape[2]:
                taps = kernel[r, s].reshape(depth, groups, -1)
                dx[:, u, v] += np.einsum("ngk,cgk->ngc", split(dy_q)[:, i[u], j[v]], taps)
    close(node["dx_patch"], dx.reshape(x_sum.shape) * s_w * s_dy[:, None, None, None])


def dilated(node) -> bool:
    return any(b.passed is gradient_filter.patch_grad_dilated for b in node.node.passes)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(cases())
@thorough
def test_a_filtered_convolution_multiplies_quantized_patches(scheme, case):
    for filtering in FILTERS:
        rule = QuantizedTraining(scheme)
        node = together(case, rule, filtering)
        plain = Together([filtering], case)
        assert np.array_equal(node["dy_mean"], plain["dy_mean"]) and np.array_equal(node["x_sum"], plain["x_sum"])
        check_filtered(node, rule)
        sizes = {"H": node["x"].shape[1], "W": node["x"].shape[2]}
        attrs = {a: v for a, v in node.node.attrs.items() if a in gradient_filter.expand.attributes}
        assert np.array_equal(node["dx"], gradient_filter.expand(node["dx_patch"], **attrs, **sizes))
        assert (node["dw"] == node["dw_patch"]).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@given(cases())
@thorough
def test_a_pruned_convolution_multiplies_what_is_kept(scheme, case):
    """Convolutions with several groups are pruned with floats; one group or a depthwise one in whole numbers."""
    rule, pruning, a = QuantizedTraining(scheme), ri.ErrorMapPruning(0.5), case.arrays
    node, plain = together(case, rule, pruning), Together([pruning], case)
    groups, channels = groups_of(a), a["w"].shape[3]
    kept = plain["kept"]
    if groups > 1 and not node.node.depthwise:
        assert np.array_equal(node["dx"], plain["dx"]) and np.array_equal(node["dw"], plain["dw"])
        return
    x = a["x"][..., kept] if groups > 1 else a["x"]
    wanted = products(x, a["w"][..., kept], a["dy"][..., kept], rule, case.attrs)
    dw = np.zeros(a["w"].shape)
    dw[..., kept] = wanted["dw"]
    dx = wanted["dx"]
    if groups > 1:
        dx = np.zeros(a["x"].shape)
        dx[..., kept] = wanted["dx"]
    close(node["dx"], dx)
    close(node["dw"], dw)
    assert len(kept) == pruning.kept(channels)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(cases())
@thorough
def test_pruned_filtered_and_quantized(scheme, case):
    rule, pruning, filtering = QuantizedTraining(scheme), ri.ErrorMapPruning(0.5), ri.GradientFilter(2)
    node, plain = together(case, filtering, rule, pruning), Together([filtering, pruning], case)
    assert np.array_equal(node["dy_mean"], plain["dy_mean"])
    check_filtered(node, rule)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(cases())
@thorough
def test_the_chosen_channels_of_a_sparse_update_are_quantized(scheme, case):
    rule, sparse, a = QuantizedTraining(scheme), ri.SparseUpdate(0.4), case.arrays
    node, plain = together(case, rule, sparse), Together([sparse], case)
    close(node["dx"], products(a["x"], a["w"], a["dy"], rule, case.attrs)["dx"])
    if groups_of(a) > 1:
        assert np.array_equal(node["dw"], plain["dw"])
        return
    chosen = plain["chosen"]
    wanted = products(a["x"][..., chosen], a["w"][:, :, chosen], a["dy"], rule, case.attrs)
    close(node["dw"], wanted["dw"])


# In a step.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_node_and_each_update_draws_its_own_words(scheme):
    p = ri.compile(NETS["residual"](), ri.Plan(rules=[QuantizedTraining(scheme)]), 4, backend="reference")
    rounding = [c for c in p.step if c.passed.name.startswith("stochastic")]
    streams = {c.node: c.attrs["stream"] for c in rounding}
    assert len(set(streams.values())) == len(streams) > 1 and min(streams.values()) >= random.ROUNDING
    assert {c.arrays["step"].name for c in rounding} == {"step"} and "seed" in p.step.host_writes


def test_what_is_kept_for_dw_is_of_eight_bits():
    graph, rule = NETS["residual"](), QuantizedTraining()
    ours, dense = (ri.compile(graph, ri.Plan(rules=r), 4, backend="reference") for r in ([rule], []))
    kept = {b.name: b for b in ours.saved}
    whole = [b for name, b in kept.items() if name.endswith(".x_q")]
    assert whole and all(b.dtype == np.int8 for b in whole) and ours.saved_bytes < dense.saved_bytes


def test_frozen_convolutions_and_inference_compute_with_floats():
    graph, plan = NETS["residual"](), ri.Plan(1, rules=[QuantizedTraining("banner")])
    p = ri.compile(graph, plan, 4, backend="reference")
    inside = {c.node for c in p.step if c.passed.operator == "quantized"}
    assert len(inside) == 2 and "fc" in inside
    assert not [c for c in ri.compile(graph, None, 4, backend="reference").step if c.passed.operator == "quantized"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_step_that_meets_no_number_is_found(backend):
    p = ri.compile(NETS["residual"](), ri.Plan(rules=[QuantizedTraining("banner")]), 4, backend=backend)
    t = ri.Trainer(p, seed=1)
    t.parameters["conv2.w"][0, 1, 2, 3] = np.nan
    with pytest.raises(ri.NonFiniteError):
        t.train_step(np.ones((4, *p.size, 3), np.float32), np.arange(4) % 3, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "bhq"}, "^scheme must be psq, ptq or banner, got 'bhq'$"),
        ({"bits": 9}, "^bits must be a whole number from 2 to 8, got 9$"),
        ({"bits": 1}, "^bits must be a whole number from 2 to 8, got 1$"),
        ({"bits": 8.0}, "^bits must be a whole number from 2 to 8, got 8.0$"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        QuantizedTraining(**settings)
