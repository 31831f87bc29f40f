"""The counting of arXiv 2301.00330, against its published rows and against work done by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refimpl as ri
from costmodel.formulas import paper
from validation.experiments.papers import GRADIENT_FILTERING

GF = ri.GradientFilter


def price(graph, train_last, patch=None, n=1, **keywords):
    rules = [GF(patch)] if patch else []
    return paper.price(graph, ri.Plan(train_last=train_last, rules=rules), n, **keywords)


@pytest.mark.parametrize(
    "row", GRADIENT_FILTERING, ids=lambda r: f"{r.model}-{r.classes}-last{r.train_last}-patch{r.patch}"
)
def test_published_rows(row):
    found = price(ri.models.build(row.model, classes=row.classes), row.train_last, row.patch)
    assert found.flops == pytest.approx(row.flops, rel=row.tolerance)
    if row.memory:
        assert row.printed(found.saved_bytes) == row.memory


def one(channels, kernel, groups=1, stride=1, pad=0, before=4, side=8, dilation=1):
    """A graph of two convolutions: a 1×1 to `before` channels, so that dx of the second is wanted, and a head."""
    g = ri.Graph("one", (side, side), 3)
    x = g.conv2d("first", "input", before, 1)
    x = g.conv2d("conv", x, channels, kernel, stride=stride, pad=pad, groups=groups, dilation=dilation)
    g.linear("head", g.flatten("flat", x), 5)
    return g


def terms(graph, train_last=2, patch=None, n=1):
    return {layer.name: dict(layer.terms) for layer in price(graph, train_last, patch, n).layers}


def test_dense_convolution_by_hand():
    # C=4 K=6 3×3 on 8×8 with padding: dw 24·(9·64 + 63), dx 2·24·9·64; the first layer has no dx
    assert terms(one(6, 3, pad=1)) == {
        "first": {"grad_w": 12 * (64 + 63)},
        "conv": {"grad_w": 24 * (9 * 64 + 63), "grad_x": 2 * 24 * 9 * 64},
        "head": {"linear_grad_w": 6 * 64 * 5, "linear_grad_x": 2 * 6 * 64 * 5},
    }


def test_eq_15_filtered_convolution_by_hand():
    # 8×8 in patches of 3: U·V = 9. Eq. (15) gives dx 9·4·(2·6 − 1)
    found = terms(one(6, 3, pad=1), patch=3)["conv"]
    assert found == {"pool_dy": 6 * (64 + 9), "patch_grad_w": 17 * 24, "sum_w": 8 * 24, "patch_grad": 9 * 4 * 11}


def test_without_anything_trained_upstream_there_is_no_dx():
    for patch, expected in ((None, {"grad_w"}), (2, {"pool_dy", "patch_grad_w"})):
        found = terms(one(6, 3, pad=1), 1, patch)
        assert set(found["conv"]) == expected
        assert "first" not in found


def test_one_patch_is_the_minimum_that_the_paper_names():
    assert terms(one(6, 3, pad=1), patch=8)["conv"]["patch_grad"] == 2 * 4 * 6 - 4
    assert terms(one(6, 3, pad=1), patch=100) == terms(one(6, 3, pad=1), patch=8)


def test_frozen_convolution_between_trained_layers_passes_a_dense_dx():
    g = one(6, 3, pad=1)

    class Chosen(ri.Plan):
        def trained(self, graph):
            return {"first": ["w"], "head": ["w", "b"]}

    found = {layer.name: layer for layer in paper.price(g, Chosen(rules=[GF(2)])).layers}
    assert dict(found["conv"].terms) == {"grad_x": 2 * 24 * 9 * 64}
    assert found["conv"].saved_bytes == 0
    assert found["first"].saved_bytes == 4 * 3 * 16


@given(k=st.sampled_from([1, 3]), stride=st.integers(1, 3), groups=st.sampled_from([1, 2, 4]), side=st.integers(5, 12))
def test_groups_are_convolutions_of_their_own(k, stride, groups, side):
    both = price(one(8, k, groups, stride, k // 2, before=4, side=side), 2, None)
    alone = price(one(8 // groups, k, 1, stride, k // 2, before=4 // groups, side=side), 2, None)
    conv = [next(layer for layer in p.layers if layer.name == "conv") for p in (both, alone)]
    assert conv[0].flops == groups * conv[1].flops
    assert conv[0].saved_bytes == groups * conv[1].saved_bytes


@given(groups=st.sampled_from([1, 2, 4]), patch=st.integers(1, 9), side=st.integers(3, 9))
def test_filtered_groups_are_convolutions_of_their_own(groups, patch, side):
    both = terms(one(8, 3, groups, before=4, side=side), patch=patch)["conv"]
    alone = terms(one(8 // groups, 3, 1, before=4 // groups, side=side), patch=patch)["conv"]
    assert both == {name: groups * count for name, count in alone.items()}


@given(patch=st.integers(1, 6), side=st.integers(2, 9))
def test_a_pointwise_convolution_filtered_in_patches_of_one_is_the_dense_one(patch, side):
    g = one(6, 1, side=side)
    filtered, dense = price(g, 2, 1), price(g, 2)
    assert filtered.saved_bytes == dense.saved_bytes
    by_name = {layer.name: layer.terms for layer in dense.layers}
    for layer in filtered.layers:
        if layer.name == "conv":
            assert layer.terms["patch_grad_w"] == by_name["conv"]["grad_w"]
            assert layer.terms["sum_w"] == 0
    assert price(g, 2, patch).saved_bytes <= dense.saved_bytes


def test_stored_inputs_by_hand():
    # MobileNetV2 ends in 960→320 and 320→1280 pointwise convolutions on 7×7, before them a depthwise one and 160→960
    g = ri.models.build("mobilenet_v2", classes=1000)
    assert price(g, 2).saved_bytes == 4 * 49 * (960 + 320)
    assert price(g, 4).saved_bytes == 4 * 49 * (160 + 960 + 960 + 320)
    assert price(g, 4, 2).saved_bytes == 4 * 16 * (160 + 960 + 960 + 320)
    depthwise = {layer.name: layer for layer in price(g, 4, 2).layers}[trained_convolutions(g)[-3]]
    expected = {"pool_dy": 960 * 65, "patch_grad_w": 31 * 960, "sum_w": 8 * 960, "patch_grad": 16 * 960}
    assert dict(depthwise.terms) == expected


def trained_convolutions(graph):
    return [n.name for n in graph.nodes if n.op == "conv2d"]


def test_a_stride_pools_to_the_grid_of_the_output():
    # 8×8 with stride 2 gives 4×4, in patches of 2 2×2
    assert price(one(6, 3, stride=2, pad=1), 1, 2).saved_bytes == 4 * 4 * 4
    assert price(one(6, 3, stride=2, pad=1), 1).saved_bytes == 4 * 64 * 4


def test_patches_may_be_oblong():
    plan = ri.Plan(train_last=1, rules=[GF((8, 2))])
    assert paper.price(one(6, 3, pad=1), plan).saved_bytes == 4 * 4 * 4


def test_dilated_branch_needs_no_spatial_sum():
    found = terms(one(6, 3, pad=2, dilation=2), patch=2)["conv"]
    assert found["patch_grad_dilated"] == 16 * 4 * (2 * 9 * 6 - 1)
    assert "sum_w" not in found
    assert "sum_w" in terms(one(6, 3, pad=2, dilation=2), patch=3)["conv"]


@given(n=st.integers(1, 9), patch=st.sampled_from([None, 1, 2, 3]))
def test_a_batch_sums_over_samples_and_sums_the_kernel_once(n, patch):
    one_sample, batch = terms(one(6, 3, pad=1), patch=patch), terms(one(6, 3, pad=1), patch=patch, n=n)
    for name in one_sample:
        for term, count in one_sample[name].items():
            pairs = 24 if name == "conv" else 12
            once = {"sum_w": count * (1 - n), "grad_w": (n - 1) * pairs, "patch_grad_w": (n - 1) * pairs}
            assert batch[name][term] == n * count + once.get(term, 0)


def test_the_first_linear_layer_alone_has_no_dx():
    assert terms(one(6, 3), 0) == {"head": {"linear_grad_w": 6 * 36 * 5}}


def test_size_of_the_input():
    g = ri.models.build("resnet18", classes=10)
    assert price(g, 1, size=(256, 256)).saved_bytes == 4 * 64 * 512


def test_a_rule_of_another_method_is_refused():
    class Other:
        operator = "conv2d"
        method = "other"

        def bind(self, node):
            """It adds nothing."""

    with pytest.raises(ValueError, match="knows dense and filtered gradients, not other"):
        paper.price(one(6, 3), ri.Plan(rules=[Other()]))


@pytest.mark.parametrize(
    "plan", [{"instances": ri.HardExamples()}, {"instances": ri.RandomSkip()}, {"depth": ri.StochasticDepth()}]
)
def test_what_enters_or_stays_in_a_step_is_refused(plan):
    (method,) = ri.Plan(**plan).methods
    with pytest.raises(ValueError, match=f"knows dense and filtered gradients, not {method}"):
        paper.price(one(6, 3), ri.Plan(**plan))
