"""Whole-number nets whose weights train: widened to 16 bits with the same maps, a classifier of whole numbers."""

import numpy as np
import pytest
from forward_gradient_whole_oracle import Oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_oracles import run
from test_int8_whole import NETS, cifar, every_map, packed, random_pixels, small
from test_quantize import samples
from test_weight_files import raw

import refimpl as ri
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.graph import INPUT, Graph, Parameter
from refimpl.kernels.quantized import BIAS_END, MapEnds, Quantized
from refimpl.kernels.requantize import fixed_each
from refimpl.methods.forward_gradient_whole import ends_of
from refimpl.surgery.cut import cut
from refimpl.surgery.for_step import made_for, outlined_for, weights_that_train
from refimpl.surgery.widen import RANGE, widen

FG = ri.ForwardGradient
I8, I16, I32 = np.int8, np.int16, np.int32


def layers(graph):
    return [node.name for node in graph.nodes if "w" in node.params]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_widened_layers_of_the_real_nets_give_the_same_maps_to_the_bit(name, backend):
    """All layers in 16 bits; their sums are up to 256 times as large, and the logits the same floats."""
    size = (32, 32) if backend == "reference" else (128, 128)
    graph = whole_from_int8(raw(name), size=size)
    wide = widen(graph, layers(graph))
    assert all(wide.parameters[f"{n}.w"].dtype == I16 for n in layers(graph))
    pixels = random_pixels(1, size) if backend == "reference" else cifar(4)
    found, wanted = every_map(wide, pixels, backend), every_map(graph, pixels, backend)
    assert found.keys() == wanted.keys() and len(found) > 50
    for tensor, values in wanted.items():
        if tensor == "fc.sums":
            finer = found[tensor] / np.where(values == 0, 1, values)
            assert set(np.unique(finer[values != 0])) <= {64.0, 128.0, 256.0}
        else:
            np.testing.assert_array_equal(found[tensor], values, tensor)


@pytest.mark.parametrize("name", NETS)
def test_only_what_trains_is_widened(name):
    graph = whole_from_int8(raw(name))
    plan = ri.Plan(2, step=FG(m=1, bits="16w8a"))
    wide = made_for(plan.step, graph, np.zeros((1, 128, 128, 3), I8), 0, weights_that_train(plan, graph))
    held = {n: p.dtype for n, p in wide.parameters.items() if n.endswith(".w")}
    assert [n for n, dtype in held.items() if dtype == I16] == [f"{n}.w" for n in [*layers(graph)[-3:-1], "fc"]]
    assert sum(dtype == I8 for dtype in held.values()) == len(held) - 3
    assert made_for(plan.step, wide, None, 0, weights_that_train(plan, wide)) is wide
    assert outlined_for(plan.step, graph, ["fc"]).parameters["fc.w"].dtype == I16


def one_layer(w, b, x_zero, y_zero, factor, low=-128, high=127, twice=False):
    """A convolution of whole numbers alone; factor: of its requantization, one a channel."""
    depth, k = w.shape
    g = Graph("one 8w8a")
    for name, value in (("scale", np.ones(1, np.float32)), ("w_scale", np.full(k, 0.5, np.float32)),
                        ("b_scale", np.full(k, 0.5, np.float32))):  # fmt: skip
        g.add_parameter(name, Parameter(value.shape, "ones"))
        g.weights[name] = value
    g.add_input(INPUT, (2, 2, depth), I8, Quantized("scale"))
    multiplier, shift = fixed_each(factor)
    params = {
        "w": Parameter((1, 1, depth, k), "zeros", dtype=np.dtype(I8), quantized=Quantized("w_scale", axis=3)),
        "b": Parameter((k,), "zeros", dtype=np.dtype(I32), quantized=Quantized("b_scale", axis=0)),
        "multiplier": Parameter((k,), "zeros"), "shift": Parameter((k,), "zeros"),
    }  # fmt: skip
    attrs = {"x_zero": x_zero, "y_zero": y_zero, "low": low, "high": high, "twice": twice}
    g.add_node("c", "quantized_conv2d", (INPUT,), attrs, params, {"y": Quantized("scale")})
    values = (w.reshape(1, 1, depth, k).astype(I8), b.astype(I32), multiplier, shift)
    g.weights |= dict(zip(("c.w", "c.b", "c.multiplier", "c.shift"), values, strict=True))
    return g


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4), st.integers(-128, 127), st.integers(-128, 127),
    st.integers(0, 27),
)  # fmt: skip
def test_any_layer_widened_is_the_same_in_plain_integers(seed, depth, k, x_zero, y_zero, large):
    rng = np.random.default_rng(seed)
    w, b = rng.integers(-127, 128, (depth, k)), rng.integers(-(2**large), 2**large, k, endpoint=True)
    g = one_layer(w, b, x_zero, y_zero, 2.0 ** rng.uniform(-24, -2, k))
    wide = widen(g, ["c"])
    assert wide.parameters["c.w"].dtype == I16
    finer = wide.weights["c.b"] / np.where(b == 0, 1, b)
    assert (abs(wide.weights["c.w"].astype(int)).max() <= 32767) and (abs(wide.weights["c.b"]) <= BIAS_END).all()
    assert set(finer[b != 0]) <= {2.0**j for j in range(9)}
    assert (wide.weights["w_scale"] * finer == 0.5)[b != 0].all()
    x = rng.integers(-128, 128, (3, 2, 2, depth)).astype(I8)
    x[0], x[1] = np.where(w.sum(1) > 0, 127, -128), np.where(w.sum(1) > 0, -128, 127)
    np.testing.assert_array_equal(run(wide, x)["c"], run(g, x)["c"])


def test_a_channel_of_one_number_with_a_large_bias_gets_coarser_steps():
    w, b = np.array([[1, 0], [0, 0]]), np.array([2**31 - 1000, -(2**31) + 5])
    g = one_layer(w, b, -128, 3, [2.0**-22, 2.0**-28])  # saturated, and −8 + 3
    wide = widen(g, ["c"])
    assert (abs(wide.weights["c.b"].astype(np.int64)) <= BIAS_END).all()
    assert (wide.weights["b_scale"] == 4).all()
    x = np.random.default_rng(0).integers(-128, 128, (3, 2, 2, 2)).astype(I8)
    found = run(wide, x)["c"]
    assert set(np.unique(found[..., 0])) == {127} and set(np.unique(found[..., 1])) == {-5}
    np.testing.assert_array_equal(found, run(g, x)["c"])


def test_what_cannot_be_widened_without_another_result_is_refused():
    w, b = np.full((200, 1), 127), np.array([400_000_000])
    with pytest.raises(
        ValueError, match=r"^channel 0 of node c of one 8w8a cannot be widened: its bias of 400,000,000 "
    ):
        widen(one_layer(w, b, 0, 0, [2.0**-22]), ["c"])
    with pytest.raises(ValueError, match="^node c of one 8w8a rounds twice: finer weights would give another result$"):
        widen(one_layer(w, b // 1000, 0, 0, [2.0**-14], twice=True), ["c"])


def test_a_new_classifier_is_of_whole_numbers():
    arrays = packed(*small())
    graph = whole_from_int8(arrays, classes=7, size=(16, 16))
    for bits, dtype in ((16, I16), (8, I8)):
        wide = widen(graph, ["fc"], bits, seed=3)
        assert wide.output == "fc.real" and wide.parameters["fc.w"].dtype == dtype
        assert [node.op for node in wide.nodes[-2:]] == ["quantized_linear", "dequantize"]
        assert not any(node.name == "mean.real" for node in wide.nodes)
        depth = wide.parameters["fc.w"].shape[0]
        end = min(2 ** (bits - 1) - 1, MapEnds(depth, wide.node("fc").attrs["x_zero"]).weight_end)
        scale = wide.weights["fc.w_scale"]
        assert scale[0] == np.float32(RANGE * np.sqrt(2 / depth) / end)
        floats = ri.Trainer(ri.compile(graph, None, 4), 3)
        pixels = (random_pixels(4, (16, 16)).astype(I16) - 128).astype(I8)
        real = wide.weights["fc.w"] * scale
        assert abs(real - floats.parameters["fc.w"]).max() <= scale[0] / 2 + 1e-7
        apart = abs(ri.Trainer(ri.compile(wide, None, 4)).predict(pixels) - floats.predict(pixels)).max()
        assert apart < depth * 128 * float(graph.weights["mean.scale"][0]) * scale[0] / 2
    assert widen(graph, []) is graph


def test_no_sum_overflows_whatever_weights_become():
    """All weights and biases at the ends that training has, all inputs at theirs: in Python's integers."""
    for name in NETS:
        graph = whole_from_int8(raw(name))
        wide = widen(graph, layers(graph))
        for node in wide.nodes:
            if "w" in node.params:
                w, b = (ends_of(wide, node.params[local]) for local in ("w", "b"))
                products = int(np.prod(wide.parameters[node.params["w"]].shape[:-1]))
                far = max(127 - node.attrs["x_zero"], 128 + node.attrs["x_zero"])
                assert products * max(-w["low"], w["high"]) * far + max(-b["low"], b["high"]) < 2**31
                held = wide.weights[node.params["w"]].astype(int)
                assert w["low"] <= held.min() and held.max() <= w["high"]
                assert abs(held).max() * 1.5 <= w["high"] + 1


def test_weights_at_the_ends_run_without_overflow():
    """A layer of so many products that int16 would overflow, trained by steps that saturate every weight."""
    g = Graph("deep", (2, 2), 600)
    g.linear("fc", g.global_avg_pool("mean", INPUT), 3)
    rng = np.random.default_rng(0)
    g.weights = {"fc.w": rng.normal(size=(600, 3)).astype(np.float32), "fc.b": np.zeros(3, np.float32)}
    x = np.abs(samples(g, 8)) + 1
    whole = ri.surgery.quantize(g, g.weights, x, 16, headroom=1.5, zero_points=True)
    end = ends_of(whole, "fc.w")["high"]
    assert end < 32767 and abs(whole.weights["fc.w"].astype(int)).max() <= end
    t = ri.Trainer(ri.compile(whole, ri.Plan(0, step=FG(m=1, epsilon=0.1, optimizer=ri.SGD(1.0))), 8), 0)
    t.fit(x, rng.integers(0, 3, 8), 40)
    assert (abs(t.parameters["fc.w"].astype(int)) == end).mean() > 0.05
    q, sums = run(whole, x[:1].astype(np.float32)), t.parameters["fc.w"].astype(object)
    zero = whole.node("fc").attrs["x_zero"]
    exact = (q[whole.node("fc").inputs[0]].astype(object) - zero) @ sums + t.parameters["fc.b"].astype(object)
    whole.weights |= t.parameters
    found = ri.Trainer(ri.compile(whole, None, 1)).predict(x[:1])
    np.testing.assert_allclose(found, (exact * float(t.parameters["fc.b_scale"][0])).astype(float), rtol=1e-6)


def test_weights_beyond_the_ends_are_refused_with_the_bits_that_do():
    g = Graph("deep", (2, 2), 900)
    g.linear("fc", g.global_avg_pool("mean", INPUT), 3)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(900, 3)).astype(np.float32)
    g.weights = {"fc.w": w, "fc.b": np.zeros(3, np.float32)}
    x = samples(g, 8)
    plan = ri.Plan(0, step=FG(m=1, optimizer=ri.SGD(0.01)))
    with pytest.raises(
        ValueError,
        match=r"^fc of deep 16w8a trained by .* beyond int32: a weight is 32,767, .* or with bits=14 makes such",
    ):
        ri.Trainer(ri.compile(ri.surgery.quantize(g, g.weights, x, 16), plan, 8))
    ri.Trainer(ri.compile(ri.surgery.quantize(g, g.weights, x, 14), plan, 8))
    whole = ri.surgery.quantize(g, g.weights, x, 16, headroom=1.5)  # which takes coarser steps by itself
    ri.Trainer(ri.compile(whole, plan, 8))
    whole.weights["fc.b"] = np.full(3, 2**29, I32)
    with pytest.raises(ValueError, match=r"a bias is 536,870,912, .*: weights of 1 bits less do$"):
        ri.Trainer(ri.compile(whole, plan, 8))


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_features_train_as_in_plain_integers(backend):
    """The classifier alone, whose sums take the place of what was told before the first of several looks."""
    graph = widen(whole_from_int8(packed(*small()), classes=7, size=(16, 16)), ["fc"])
    tail = cut(graph, "mean")[1]
    method = FG(m=2, optimizer=ri.SGD(0.01))
    t = ri.Trainer(ri.compile(tail, ri.Plan(0, step=method), 48, backend=backend, threads=1), seed=7)
    plain = Oracle(tail, ["fc.w", "fc.b"], 7, 2, method.epsilon, 0.01)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x, y = rng.integers(-128, 128, (48, tail.shape(INPUT)[1])).astype(I8), rng.integers(0, 7, 48)
        assert t.train_step(x, y, 3) == pytest.approx(np.mean(plain.step(x, y)), rel=1e-5)
        for name, a in plain.w.items():
            np.testing.assert_array_equal(t.parameters[name], a.astype(np.int64), name)
