"""Error map pruning (arXiv 2007.03213): equations, NumPy, PyTorch, the dense limit, counts, whole nets, errors."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import Together, cases, dense, groups_of, largest, magnitudes, masked, scores, statement, thorough

from checks import Case, check_close, check_counts, check_threads, distance, nchw, nhwc, padding
from refimpl.methods import error_map_pruning as emp
from refimpl.methods.error_map_pruning import ErrorMapPruning
from validation.instruments import counting

BOUND = {"float64": 1e-12, "float32": 1e-5}
GRADIENTS = ("dx", "dw", "db")
rules = st.builds(
    ErrorMapPruning, st.sampled_from([0.01, 0.25, 0.5, 0.8, 1.0]), st.sampled_from([1.0, 0.0, 3.0]), st.just(0.5)
)


def computed(rule, c: Case) -> Together:
    together = Together([rule], c)
    for name in GRADIENTS:
        together[name]
    return together


@thorough
@given(rules, cases())
def test_eq_11_a_score_is_the_weighted_sum_of_the_norms_of_kernel_and_error_map(rule, c):
    a = c.arrays
    instance = {**a, "dy": a["dy"][:1]}
    expected = [
        rule.gamma_w * np.abs(a["w"][..., k]).sum() + rule.gamma_dy * np.abs(instance["dy"][..., k]).sum()
        for k in range(a["w"].shape[3])
    ]
    found = emp.score(instance["dy"], a["w"], gamma_w=rule.gamma_w, gamma_dy=rule.gamma_dy)
    assert distance(found, expected) <= 1e-12


@thorough
@given(rules, cases())
def test_eq_14_the_batch_score_is_the_sum_over_its_instances(rule, c):
    a, gammas = c.arrays, {"gamma_w": rule.gamma_w, "gamma_dy": rule.gamma_dy}
    parts = [emp.score(instance[None], a["w"], **gammas) for instance in a["dy"]]
    found = emp.score(a["dy"], a["w"], **gammas)
    assert distance(found, np.sum(parts, 0)) <= 1e-12
    assert distance(found, scores(rule, a["w"], a["dy"])) <= 1e-12


@thorough
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_eq_14_kept_are_the_largest_scores_and_of_equal_ones_the_lower_channel(values, data):
    found = np.array(values, float)
    count = data.draw(st.integers(1, len(values)))
    rank = emp.rank(found)
    assert sorted(rank) == list(range(len(values)))
    np.testing.assert_array_equal(emp.keep(rank, L=count), largest(found, count))


def test_the_same_channels_are_kept_for_the_whole_mini_batch():
    """Each instance alone would keep another channel than the batch does."""
    dy = np.zeros((2, 1, 1, 3))
    dy[0, 0, 0], dy[1, 0, 0] = (5.0, 4.0, 0.0), (0.0, 4.0, 5.0)
    w = np.ones((1, 1, 1, 3))
    kept = [emp.keep(emp.rank(emp.score(part, w)), L=1).tolist() for part in (dy[:1], dy[1:], dy)]
    assert kept == [[0], [2], [1]]
    together = Together([ErrorMapPruning(0.34)], Case({"x": np.ones((2, 1, 1, 1)), "w": w, "dy": dy}))
    assert together["dy_kept"].ravel().tolist() == [4.0, 4.0]
    assert together["dx"].ravel().tolist() == [4.0, 4.0]


@thorough
@given(rules, cases())
def test_eq_8_dx_uses_only_the_kept_channels(rule, c):
    together, a = computed(rule, c), c.arrays
    kept = together["kept"]
    expected = dense({**a, "dy": masked(a["dy"], kept)}, c.attrs)["dx"]
    check_close({"dx": together["dx"]}, {"dx": expected}, 1e-12, magnitudes([], c, kept))
    # what is pruned is not read at all: no number there can change a gradient
    spoilt = np.full_like(a["dy"], np.nan)
    spoilt[..., kept] = a["dy"][..., kept]
    again = Together([rule], Case({**a, "dy": spoilt}, c.attrs))
    again.values |= {name: together[name] for name in ("kept", "rank")}
    for name in GRADIENTS:
        assert again[name].tobytes() == together[name].tobytes(), name


@thorough
@given(rules, cases())
def test_eq_12_dw_is_zero_for_pruned_kernels_and_dense_for_kept_ones(rule, c):
    together = computed(rule, c)
    kept, expected, scale = together["kept"], dense(c.arrays, c.attrs), magnitudes([], c)
    pruned = np.setdiff1d(np.arange(c.arrays["dy"].shape[3]), kept)
    assert len(kept) == rule.kept(c.arrays["dy"].shape[3]) and len(pruned) + len(kept) == c.arrays["dy"].shape[3]
    for name in ("dw", "db"):
        assert not together[name][..., pruned].any()
        error = distance(together[name][..., kept], expected[name][..., kept], scale[name][..., kept])
        assert error <= 1e-12, f"{name} is off by {error:.1e}"


@thorough
@given(rules, cases())
def test_the_whole_rule_is_the_plain_statement(rule, c):
    together, expected = computed(rule, c), statement([rule], c.arrays, c.attrs)
    np.testing.assert_array_equal(together["kept"], expected.pop("kept"))
    check_close(together, expected, 1e-12, magnitudes([rule], c, together["kept"]))


@thorough
@given(rules, cases())
def test_each_copy_by_itself(rule, c):
    """What one group and a depthwise convolution put side by side, and back."""
    together, a = computed(rule, c), c.arrays
    kept = together["kept"]
    np.testing.assert_array_equal(emp.keep_dy(a["dy"], kept), a["dy"][..., kept])
    np.testing.assert_array_equal(emp.keep_w(a["w"], kept), a["w"][..., kept])
    if together.node.depthwise:
        np.testing.assert_array_equal(emp.keep_x(a["x"], kept), a["x"][..., kept])
        back = emp.spread_x(a["x"][..., kept], together["rank"], C=a["x"].shape[3])
        np.testing.assert_array_equal(back, masked(a["x"], kept))
    np.testing.assert_array_equal(emp.spread_w(a["w"][..., kept], together["rank"]), masked(a["w"], kept))
    np.testing.assert_array_equal(emp.spread_b(a["w"][0, 0, 0, kept], together["rank"]), masked(a["w"][0, 0, 0], kept))


@thorough
@given(cases())
def test_keep_1_is_the_dense_gradient(c):
    expected = dense(c.arrays, c.attrs)
    expected.pop("y")
    check_close(computed(ErrorMapPruning(1), c), expected, 1e-12, magnitudes([], c))


@given(rules, cases())
def test_counts_of_every_pass(rule, c):
    for made in computed(rule, c).calls:
        check_counts(*made)


@given(rules, cases(), st.integers(0, 999))
def test_every_choice_of_channels_costs_the_same(rule, c, seed):
    """Where the work depends on the kept channels, the total must not: the formula knows only how many they are."""
    together = Together([rule], c)
    sizes = {**together.node.sizes}
    count, channels = sizes["L"], sizes["K"]
    order = np.random.default_rng(seed).permutation(channels)
    choice = {"kept": order[:count], "rank": np.argsort(order)}
    for passed in (emp.grad_x, emp.grad_w):
        attrs = passed.attrs(c.attrs)
        declared = counting.count(passed, sizes, attrs)
        examples = {a: (lambda sizes, a=a: choice[a]) for a in passed.examples}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passed, "examples", examples)
            assert counting.count(passed, sizes, attrs, every_item=True) == declared, f"{passed} of {choice}"


@given(rules, cases())
def test_threads(rule, c):
    for made in computed(rule, c.cast(np.float32)).calls:
        check_threads(*made)


@thorough
@given(rules, cases(), st.sampled_from(list(BOUND)))
def test_as_pytorch_with_the_pruned_channels_of_dy_zero(rule, c, dtype):
    torch = pytest.importorskip("torch")
    c = c.cast(dtype)
    together = computed(rule, c)
    x, w, b = (torch.tensor(v, requires_grad=True) for v in (c.arrays["x"], c.arrays["w"], together["db"] * 0))
    padded = torch.nn.functional.pad(nchw(x), padding(c.attrs["pad"]))
    kernel = w.permute(3, 2, 0, 1).contiguous()
    groups = groups_of(c.arrays)
    y = nhwc(torch.conv2d(padded, kernel, b, c.attrs["stride"], 0, c.attrs["dilation"], groups))
    found = torch.autograd.grad(y, (x, w, b), torch.tensor(masked(c.arrays["dy"], together["kept"])))
    for name in GRADIENTS:
        assert together[name].dtype == dtype
    theirs = {name: g.numpy() for name, g in zip(GRADIENTS, found, strict=True)}
    check_close(together, theirs, BOUND[dtype], magnitudes([rule], c, together["kept"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0}, "keep must be a share above 0 and at most 1, got 0"),
        ({"keep": 1.5}, "keep must be a share above 0 and at most 1, got 1.5"),
        ({"keep": float("nan")}, "keep must be a share above 0 and at most 1, got nan"),
        ({"gamma_w": -1.0}, "gamma_w must be a number from 0 up, got -1.0"),
        ({"gamma_dy": float("inf")}, "gamma_dy must be a number from 0 up, got inf"),
        ({"gamma_w": 0, "gamma_dy": 0}, "gamma_w and gamma_dy are both 0: every channel would have the same score"),
    ],
)
def test_rule_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ErrorMapPruning(**arguments)


def test_at_least_one_channel_is_kept():
    assert [ErrorMapPruning(0.3).kept(k) for k in (1, 2, 10, 100)] == [1, 1, 3, 30]
    assert ErrorMapPruning(1).kept(7) == 7
